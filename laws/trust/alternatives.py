"""Ways in which a law may be wrong: each bends an axis or adds to the loss, by a size that is zero in the law.

A bent axis is a change of pace: `u + size * max(0, u - level)` in place of u multiplies the exponents after the level
by 1 + size, so that -1 is a plateau. It says so of any form, whatever its parameters are.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from laws.fitting import Law
from laws.forms import SYMBOLS, Array, Axis
from laws.points import Points, short
from laws.trust.residuals import Residuals, at

_SLIGHT = 1e-6
_BENDS = 6
"""Values of the loss, and of N times D, at which a bend is looked for."""
_LEVELS = 12
"""Places on an axis at which breaks, and steps, are looked for."""
SIZES = {False: -0.6, True: 0.8}
"""From which the size of an alternative is sought when the law is fitted again with it, by whether it is positive."""


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """One way to be wrong."""

    name: str
    """`a break in N after 29k`."""
    bent: tuple[int, ...]
    """Columns of the axes that are bent; empty where it adds to the loss."""
    shape: Array
    """(points,): what is added to the log axes, or to the loss, at size one."""

    def value(self, law: Law, theta: Array, size: float, u: Array) -> tuple[Array, Array]:
        """Values (points,) and their gradient (points, p) by the law's own coordinates."""
        if not self.bent:
            value, gradient = law.form.evaluate(theta, u)
            return value + size * self.shape, gradient
        warped = u.copy()
        for column in self.bent:
            warped[:, column] += size * self.shape
        return law.form.evaluate(theta, warped)

    def direction(self, law: Law, u: Array) -> Array:
        """(points,): the derivative of the values by the size, where it is zero."""
        if not self.bent:
            return self.shape
        ends = [self.value(law, law.theta, size, u)[0] for size in (_SLIGHT, -_SLIGHT)]
        return (ends[0] - ends[1]) / (2 * _SLIGHT)


def alternatives(law: Law, points: Points) -> list[Alternative]:
    """Breaks and steps along each axis, interactions of two, bends in compute and below a loss."""
    axes: list[Axis] = [axis for axis in law.form.axes if axis != "family"]
    logs = {axis: points.logs((axis,))[:, 0] for axis in axes}
    column = {axis: law.form.axes.index(axis) for axis in axes}
    value = at(law, points)
    floor = law[law.form.floor]
    falls = value - floor if floor < value.min() else value
    heights = (np.full(len(value), np.ptp(points.y)), value)[: len(axes)]
    found = [one for axis in axes for one in _along(axis, column[axis], logs[axis], heights)]
    for first, second in ((one, other) for i, one in enumerate(axes) for other in axes[i + 1 :]):
        product = (logs[first] - logs[first].mean()) * (logs[second] - logs[second].mean())
        name = f"an interaction of {SYMBOLS[first]} and {SYMBOLS[second]}"
        found.append(Alternative(name=name, bent=(), shape=product * falls))
    if len(axes) > 1:
        for level in _inner(value):
            found.append(Alternative(name=f"a bend below {level:.4g}", bent=(), shape=np.maximum(level - value, 0)))
    if "n" in logs and "d" in logs:
        compute = logs["n"] + logs["d"]
        for level in _inner(compute):
            name = f"a break in N D after {short(float(np.exp(level)))}"
            shape = np.maximum(compute - level, 0) / 2
            found.append(Alternative(name=name, bent=(column["n"], column["d"]), shape=shape))
    return found


def _along(axis: Axis, column: int, logs: Array, heights: Sequence[Array]) -> Iterator[Alternative]:
    """Steps of these heights (points,) after a value, breaks at a value and half-way between two.

    None of them leaves less than two values on a side: looking at the ends too would cost more power than it gives,
    and the last value is what a hold-out looks at.
    """
    levels = np.unique(logs.round(12))
    for level in _some(levels[1:-2]):
        name = f"a step in {SYMBOLS[axis]} after {short(float(np.exp(level)))}"
        for height in heights:
            yield Alternative(name=name, bent=(), shape=height * (logs > level + 1e-9))
    for level in _some(np.sort(np.concatenate([levels[2:-2], (levels[1:] + levels[:-1])[1:-1] / 2]))):
        name = f"a break in {SYMBOLS[axis]} at {short(float(np.exp(level)))}"
        yield Alternative(name=name, bent=(column,), shape=np.maximum(logs - level, 0))


def _some(levels: Array) -> Array:
    """All, or where there are many, evenly spread ones."""
    if len(levels) <= _LEVELS:
        return levels
    return levels[np.linspace(0, len(levels) - 1, _LEVELS).round().astype(int)]


def _inner(values: Array) -> Array:
    """A few values between the ends."""
    quantiles: Array = np.quantile(values, np.linspace(0, 1, _BENDS + 2)[1:-1])
    return quantiles


def refitted(law: Law, found: Residuals, alternative: Alternative) -> float:
    """The sum of squared residuals, in the fit's units, of the law fitted again with the alternative."""
    problem = found.problem
    best = float((found.values**2).sum())
    weights = problem.root / np.sqrt(best / len(found.values))

    def linearise(at: Array) -> tuple[Array, Array]:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            value, gradient = alternative.value(law, at[:-1], at[-1], problem.u)
            if problem.logarithmic:
                value, gradient = np.log(value), gradient / value[:, None]
        return _bounded((value - problem.target) * weights), _bounded(gradient * weights[:, None])

    def slopes(at: Array) -> Array:
        after, before = (linearise(np.append(at[:-1], at[-1] + step))[0] for step in (_SLIGHT, -_SLIGHT))
        return _bounded(np.column_stack([linearise(at)[1], (after - before) / (2 * _SLIGHT)]))

    # what takes the residuals away lies against them
    start = np.append(law.theta, SIZES[bool(found.values @ (alternative.direction(law, problem.u) * found.scale) < 0)])
    method = "lm" if len(found.values) > len(start) else "trf"
    solution = least_squares(lambda at: linearise(at)[0], start, jac=slopes, method=method, max_nfev=60)
    return min(best, 2 * float(solution.cost) * best / len(found.values))


def _bounded(values: Array) -> Array:
    """Without infinities, which the solver refuses: a step too far is only a very bad one."""
    return np.clip(np.nan_to_num(values, nan=1e100, posinf=1e100, neginf=-1e100), -1e100, 1e100)
