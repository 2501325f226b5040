"""Fitting a form to points: `fit(form, points) -> Law`, in float64.

The linear coordinates are solved for over a grid of the others, the best candidates run downhill as one batch with
analytic gradients, and bootstraps, left-out points and profiles are batches of the same.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from laws.fitting import resampling
from laws.fitting.criteria import aicc, leave_out, limits
from laws.fitting.descent import minimise
from laws.fitting.law import Law, Parameter
from laws.fitting.objective import Problem, objective, problem_of
from laws.fitting.options import Options
from laws.fitting.profiles import find_ends
from laws.fitting.starts import survivors
from laws.fitting.uncertainty import Spread, clusters, spread_of, with_queries
from laws.forms import Array, Form
from laws.points import Points

AGREE = 1e-6
"""A start agrees where its cost is within this share of the best, or of the mean's."""
_POLISHED = 3


def fit(form: Form, points: Points, options: Options | None = None) -> Law:
    """The best fit of `form` to the points, lower values being better.

    Raises ValueError where a value is not finite, an axis is not positive, there are fewer than two distinct points, or
    relative residuals are asked of values that are not positive. Fewer points than parameters do fit - exactly, and
    mean nothing: see `laws.verdict`.
    """
    options = options or Options()
    problem, centre = problem_of(form, points, options)
    rng = np.random.default_rng(options.seed)
    reached, costs = _downhill(problem, survivors(problem, options.starts, rng))
    order = np.argsort(costs)
    polished, ends = minimise(problem, reached[order[:_POLISHED]], tolerance=1e-15, steps=200)
    theta, cost = polished[np.argmin(ends)], float(ends.min())
    spread = spread_around(problem, points, theta)
    residuals = points.y - form.value(theta, problem.u)
    total = float(((points.y - points.y.mean()) ** 2).sum())
    squares = float((residuals**2).sum())
    cells = _cells(points.logs(form.axes))
    return Law(
        form=form,
        parameters=_parameters(problem, theta, centre, spread, options),
        r2=1 - squares / total if total > 0 else 0.0,
        rmse=float(np.sqrt(squares / len(points))),
        objective=objective(problem, cost),
        noise=np.nan if spread is None else spread.noise * problem.unit,
        aicc=aicc(problem, cost, len(theta)),
        n_points=len(points),
        n_distinct=len(np.unique(cells)),
        leave_out=leave_out(problem, points, polished, theta, cells),
        starts=len(costs),
        agree=float(np.mean(costs <= cost + AGREE * (cost + 1e-3 * _cost_of_mean(problem, points.y)))),
        limits=limits(problem, theta, points.y),
        options=options,
        theta=theta,
        centre=centre,
        resampled=_bootstrap(problem, points, theta, spread, options, rng),
        covariance=np.full((len(theta),) * 2, np.nan) if spread is None else spread.covariance,
    )


def _downhill(problem: Problem, starts: Array) -> tuple[Array, Array]:
    """Every start to its minimum; of Huber's loss first some way down the squares, which is faster far from it."""
    if problem.delta is not None:
        starts = minimise(replace(problem, delta=None), starts, tolerance=1e-4, steps=8)[0]
    return minimise(problem, starts, tolerance=1e-8)


def spread_around(problem: Problem, points: Points, theta: Array) -> Spread | None:
    """The noise around a fit: of the runs, and of the queries where they were resampled."""
    spread = spread_of(problem, theta, clusters(points))
    if spread is None or points.draws is None or points.draws.shape[1] < 2 or spread.exact:
        return spread
    return with_queries(spread, problem, theta, points.draws)


def _cost_of_mean(problem: Problem, y: Array) -> float:
    mean = np.log(y.mean()) if problem.logarithmic else y.mean()
    return float(problem.cost(((mean - problem.target) * problem.root)[None])[0])


def _cells(logs: Array) -> NDArray[np.int64]:
    """The number of the distinct point that each point belongs to."""
    return np.unique(logs.round(12), axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _parameters(
    problem: Problem, theta: Array, centre: Array, spread: Spread | None, options: Options
) -> tuple[Parameter, ...]:
    form = problem.form
    values = form.public(theta, centre)
    if spread is None or not options.intervals:
        return tuple(
            Parameter(name=name, value=float(value), lo=None, hi=None)
            for name, value in zip(form.parameters, values, strict=True)
        )
    ends = find_ends(problem, theta, lambda each: form.reported(each, centre), spread, options.interval)
    lows, highs = form.unscaled(ends.values.T)
    return tuple(
        Parameter(
            name=name,
            value=float(values[index]),
            lo=float(lows[index]),
            hi=float(highs[index]),
            open_below=bool(ends.open[index, 0] or lows[index] == 0),  # an end may be beyond what numbers hold
            open_above=bool(ends.open[index, 1] or np.isinf(highs[index])),
        )
        for index, name in enumerate(form.parameters)
    )


def _bootstrap(
    problem: Problem, points: Points, theta: Array, spread: Spread | None, options: Options, rng: np.random.Generator
) -> Array:
    """Refits (bootstraps, p)."""
    if spread is None or not options.bootstraps:
        return np.empty((0, len(theta)))
    noise = resampling.noise(problem, theta, spread, clusters(points), options.bootstraps, rng)
    return resampling.refit(problem, theta, spread, noise)
