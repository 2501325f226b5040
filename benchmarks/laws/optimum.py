"""The fitted objective against the best of 2,000 random starts of scipy's L-BFGS-B."""

from collections.abc import Iterator

from benchmarks.laws.published import SERIES
from benchmarks.laws.repeats import measured
from benchmarks.laws.rivals import best_of
from benchmarks.laws.truths import TRUTHS
from benchmarks.rows import Options as Asked
from benchmarks.rows import Row, at_most
from laws.fitting import Loss, Options, fit
from laws.fitting.objective import problem_of
from laws.forms import Form
from laws.points import Points

STARTS = 2000
NOISE = 0.01
OTHER_LOSSES = ("power over n", "additive", "joint", "joint + gain by N", "bounded joint, ceiling fitted")
_ZERO = 1e-12
"""Of the sum of squares about the mean: below that share costs are equal."""


def measure(asked: Asked) -> Iterator[Row]:
    """A row a form and loss, then one a published series."""
    count, truths, series = (8, TRUTHS[:2], SERIES[:1]) if asked.quick else (STARTS, TRUTHS, SERIES)
    for truth in truths:
        losses: tuple[Loss, ...] = ("squared", *(("relative", "huber-log") if truth.name in OTHER_LOSSES else ()))
        for loss in losses:
            points = measured(truth, Options(loss=loss), NOISE, (5,))
            yield _row(truth.name, truth.form, points, Options(loss=loss, bootstraps=0), count)
    for name, form, points in series:
        yield _row(name, form, points, Options(bootstraps=0), count)


def excess(form: Form, points: Points, options: Options, count: int) -> float:
    """By what share the fitted cost is above the best of `count` random starts; below zero where it is lower."""
    law = fit(form, points, options)
    problem, _ = problem_of(form, points, options)
    about_mean = float(((problem.target - problem.target.mean()) ** 2 * problem.root**2).sum())
    ours, theirs = problem.cost_at(law.theta), best_of(problem, points.y, count)
    return (ours - theirs) / max(theirs, _ZERO * about_mean)


def _row(name: str, form: Form, points: Points, options: Options, count: int) -> Row:
    told = f"{name}, {options.loss}: above the best of {count:,} starts of L-BFGS-B"
    return at_most(told, excess(form, points, options, count), "of cost", 1e-6)
