"""One fit of 240 points, and 4,000 bootstraps of it, against scipy's L-BFGS-B on the same cost and gradient.

A fit is all that `fit` does but the bootstraps: grid, descents, profile intervals of every parameter, every point left
out. The baseline of a fit is what its point estimate alone costs with L-BFGS-B from 100 random starts; that of the
bootstraps is L-BFGS-B from the fitted coordinates, timed on ten of them and told for one.
"""

from collections.abc import Iterator

import numpy as np

from benchmarks.laws.repeats import measured
from benchmarks.laws.rivals import descend, random_starts
from benchmarks.laws.truths import Truth
from benchmarks.rows import Options as Asked
from benchmarks.rows import Row, at_most, cost, medians
from laws.fitting import Law, Loss, Options, fit, resampling
from laws.fitting.fitter import spread_around
from laws.fitting.objective import Problem, problem_of
from laws.fitting.uncertainty import clusters
from laws.forms import Additive, Array, Form, Joint
from laws.points import Points

BOOTSTRAPS, STARTS, TIMED = 4000, 100, 10
CASES: tuple[tuple[Form, Loss], ...] = (
    (Additive(), "huber-log"),
    (Additive(), "squared"),
    (Joint(), "squared"),
    (Joint(), "relative"),
)
PARAMETERS = {
    "additive": {"E": 1.69, "A": 406.4, "alpha": 0.34, "B": 410.7, "beta": 0.28},
    "joint": {"A": 1e9, "alpha": 0.28, "B": 1e8, "beta": 0.34, "delta": 1.69},
}


def measure(asked: Asked) -> Iterator[Row]:
    """Rows of every case."""
    for form, loss in CASES:
        truth = Truth(form=form, parameters=PARAMETERS[form.name], sizes=4 if asked.quick else 16)
        points = measured(truth, Options(loss=loss), 0.01, (0,))
        points = points.where(np.arange(len(points)) < 240)
        yield from _case(f"{form.name}, {loss}", form, points, Options(loss=loss, bootstraps=0), asked.quick)


def _case(name: str, form: Form, points: Points, options: Options, quick: bool) -> Iterator[Row]:
    problem, _ = problem_of(form, points, options)
    law = fit(form, points, options)
    count = 50 if quick else BOOTSTRAPS
    noise = _noise(problem, points, law, count)
    spread = spread_around(problem, points, law.theta)
    assert spread is not None
    starts = random_starts(problem, points.y, 3 if quick else STARTS, 0)
    batch = problem.of(target=_targets(problem, law, noise[: 2 if quick else TIMED]))
    singly = [problem.of(target=target) for target in batch.target]
    seconds = medians(
        {
            "fit": lambda: fit(form, points, options),
            "starts": lambda: [descend(problem, start, 20_000) for start in starts],
            "bootstraps": lambda: resampling.refit(problem, law.theta, spread, noise),
            "one by one": lambda: [descend(each, law.theta, 20_000) for each in singly],
        },
        repeats=1 if quick else 3,
    )
    size = len(points)
    yield at_most(f"{name}: one fit of {size} points", seconds["fit"], "s", 0.05)
    told = f"{name}: one fit, against L-BFGS-B from {len(starts)} starts"
    yield cost(told, seconds["fit"], "s", seconds["starts"])
    yield at_most(f"{name}: {count:,} bootstraps of {size} points", seconds["bootstraps"], "s", 1.0)
    one, alone = 1e3 * seconds["bootstraps"] / count, 1e3 * seconds["one by one"] / len(singly)
    yield cost(f"{name}: one bootstrap, against L-BFGS-B", one, "ms", alone)


def _noise(problem: Problem, points: Points, law: Law, count: int) -> Array:
    spread = spread_around(problem, points, law.theta)
    assert spread is not None
    return resampling.noise(problem, law.theta, spread, clusters(points), count, np.random.default_rng(0))


def _targets(problem: Problem, law: Law, noise: Array) -> Array:
    value = law.form.value(law.theta, problem.u)
    return np.asarray((np.log(value) if problem.logarithmic else value) + noise / problem.root)
