"""Profiles of a fitted law's parameters, and intervals of its predictions: for reports."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from laws.fitting.descent import Pull, minimise
from laws.fitting.fitter import spread_around
from laws.fitting.law import Law
from laws.fitting.objective import Problem, Rows, objective, problem_of
from laws.fitting.profiles import find_ends
from laws.fitting.uncertainty import Spread
from laws.forms import Array, log_axes
from laws.points import Points

_VALUES = 41
_MARGIN = 1.3
"""A profile is drawn this many times as wide as the interval."""
_OPEN = 3.0
"""An open side is drawn up to this many times the other, or this far in logarithms."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The best objective at each value of one parameter, all others fitted again."""

    name: str
    values: Array
    """(m,) ascending."""
    objective: Array
    """(m,) as `Law.objective`."""
    lo: float
    hi: float
    open_below: bool
    open_above: bool


def profile(law: Law, points: Points, name: str) -> Profile | None:
    """The profile of one public parameter of a law of these points; None where no residual freedom is left.

    Raises ValueError where the law has no such parameter.
    """
    form = law.form
    if name not in form.parameters:
        raise ValueError(f"the {form.name} form has no parameter {name!r}; it has {', '.join(form.parameters)}")
    index = form.parameters.index(name)
    problem, spread = _again(law, points)
    if spread is None:
        return None

    def one(theta: Array) -> tuple[Array, Array]:
        values, gradients = form.reported(theta, law.centre)
        return values[:, index : index + 1], gradients[:, index : index + 1]

    ends = find_ends(problem, law.theta, one, spread, law.options.interval)
    best = float(one(law.theta[None])[0][0, 0])
    grid = _grid(best, ends.values[0])

    def pulled(theta: Array, rows: Rows) -> tuple[Array, Array]:
        values, gradients = one(theta)
        return values[:, 0], gradients[:, 0]

    gradient = one(law.theta[None])[1][0, 0]
    along = spread.plain @ gradient
    width2 = max(float(gradient @ along), 1e-300)
    pull = Pull(function=pulled, target=grid, strength=np.full(len(grid), np.sqrt(1e4 / width2)))
    starts = law.theta + (grid - best)[:, None] * along / width2
    reached = minimise(problem, starts, pull=pull, tolerance=1e-10, damping=1e-3)[0]
    costs = problem.cost(problem.linearise(reached, slice(None))[0])
    values = one(reached)[0][:, 0]
    order = np.argsort(values)
    lo, hi = (float(end[index]) for end in form.unscaled(np.repeat(ends.values[0][:, None], len(form.parameters), 1)))
    return Profile(
        name=name,
        values=form.unscaled(np.repeat(values[order, None], len(form.parameters), 1))[:, index],
        objective=np.array([objective(problem, float(cost)) for cost in costs[order]]),
        lo=lo,
        hi=hi,
        open_below=bool(ends.open[0, 0]),
        open_above=bool(ends.open[0, 1]),
    )


def prediction_intervals(law: Law, points: Points, axes: Sequence[Array]) -> tuple[Array, Array] | None:
    """Lower and upper ends (m,) of profile intervals of the curve at the axes; None without residual freedom.

    Slower than `Law.band` and better where the curve is far outside of the points.
    """
    problem, spread = _again(law, points)
    if spread is None:
        return None
    u = log_axes(law.form.axes, axes) - law.centre

    def predicted(theta: Array) -> tuple[Array, Array]:
        values, gradients = law.form.evaluate(theta, u)
        return np.log(values), gradients / values[..., None]

    ends = find_ends(problem, law.theta, predicted, spread, law.options.interval)
    lo, hi = np.exp(ends.values.T)
    return lo, hi


def _again(law: Law, points: Points) -> tuple[Problem, Spread | None]:
    problem, centre = problem_of(law.form, points, law.options)
    if len(points) != law.n_points or not np.allclose(centre, law.centre):
        raise ValueError("these are not the points that the law was fitted to")
    return problem, spread_around(problem, points, law.theta)


def _grid(best: float, ends: Array) -> Array:
    """(_VALUES,) from beyond one end to beyond the other, the best among them."""
    below, above = best - ends[0], ends[1] - best
    known = [side for side in (below, above) if np.isfinite(side)]
    widest = _OPEN * max(known) if known else _OPEN
    below, above = (_MARGIN * side if np.isfinite(side) else widest for side in (below, above))
    half = _VALUES // 2
    return np.concatenate([best - below * np.linspace(1, 0, half + 1)[:-1], best + above * np.linspace(0, 1, half + 1)])
