"""Profile intervals: how far a parameter, or a prediction, can go before the points say no.

Everything else is fitted again at every value, so the interval does not depend on how the form is written down, needs
no straight lines, and says so where there is no end: up to any value, or down to nothing, the points do not say no.

The value is drawn along by a row of residuals more. That row need not be met exactly: the point that is reached is the
best of all that share its value, whatever that value is, and the row's pull there is the slope of the profile.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from laws.fitting.descent import Pull, minimise
from laws.fitting.objective import Problem, Rows
from laws.fitting.uncertainty import Spread
from laws.forms import Array

Function = Callable[[Array], tuple[Array, Array]]
"""From coordinates (batch, p): values (batch, q) of q functions and their gradients (batch, q, p)."""

_FIRM = 1e4
"""How much stiffer the pull is than the profile itself."""
_ROUNDS = 24
_CLOSE = 2e-3
"""An end is found where the root of the cost's rise is within this share of what is allowed."""
_JUMP = 2.0
"""No coordinate starts further than this from the best fit."""
_FAR = 5.0
"""The first guess is not further than this, in logarithms."""
_SLIGHT = 1e-6
_GROW = 3.0
"""No guess goes further than this many times the distance of the last."""


@dataclass(frozen=True, kw_only=True)
class Ends:
    """Both ends (q, 2) of the intervals of q functions, and which of them are open."""

    values: Array
    open: Array


def find_ends(problem: Problem, theta: Array, function: Function, spread: Spread, interval: float) -> Ends:
    """The ends of the intervals of all functions at once, by Newton's method on the root of the cost's rise."""
    best, gradient = (each[0] for each in function(theta[None]))
    count = len(best)
    along = np.einsum("ij,qj->qi", spread.plain, gradient)
    width2 = np.maximum(np.einsum("qi,qi->q", along, gradient), 1e-300)
    allowed = spread.allowed(gradient, interval)
    half = np.sqrt(allowed * width2)
    if spread.exact:
        half = np.where(half < _FAR, half, np.inf)
        return Ends(values=best[:, None] + half[:, None] * [-1, 1], open=np.isinf(half)[:, None].repeat(2, axis=1))
    which, side = np.repeat(np.arange(count), 2), np.tile([-1.0, 1.0], count)
    center, limit = best[which], np.maximum(allowed[which], 1e-300)
    strength2 = _FIRM * limit / np.minimum(half[which], _FAR) ** 2
    pulled = _Pulled(function=function, which=which)
    inner, outer = np.zeros(2 * count), np.full(2 * count, np.inf)  # distances within, and beyond, what is allowed
    distance, reached = np.minimum(half[which], _FAR), np.zeros(2 * count)
    thetas = theta + np.clip((along / width2[:, None])[which] * (side * distance)[:, None], -_JUMP, _JUMP)
    found = np.zeros(2 * count, dtype=bool)
    for _ in range(_ROUNDS):
        rows = np.flatnonzero(~found)
        if not len(rows):
            break
        target = center[rows] + side[rows] * distance[rows]
        pull = Pull(function=pulled.at(rows), target=target, strength=np.sqrt(strength2[rows]))
        thetas[rows], cost = minimise(problem, thetas[rows], pull=pull, tolerance=1e-9, damping=1e-3, steps=60)
        values = pulled.values(thetas[rows], rows)
        miss = target - values
        rise = np.maximum(cost - strength2[rows] * miss**2 - spread.cost, 0)
        root = np.sqrt(rise / limit[rows])
        gone = side[rows] * (values - center[rows])
        steep = side[rows] * strength2[rows] * miss / (np.maximum(root, 1e-9) * limit[rows])
        reached[rows] = gone
        found[rows] = np.abs(root - 1) <= _CLOSE
        inner[rows] = np.where(root < 1, np.maximum(inner[rows], gone), inner[rows])
        outer[rows] = np.where(root >= 1, np.minimum(outer[rows], gone), outer[rows])
        distance[rows] = _next(gone, root, steep, inner[rows], outer[rows], distance[rows])
    closed = (found | np.isfinite(outer)) & ~_held(problem, thetas, pulled)
    distance = np.where(found, reached, outer)  # where no value costs just that, the first one found beyond
    values = np.where(closed, center + side * distance, side * np.inf)
    return Ends(values=values.reshape(count, 2), open=~closed.reshape(count, 2))


def _held(problem: Problem, thetas: Array, pulled: "_Pulled") -> NDArray[np.bool_]:
    """(rows,) whether a function cannot get out of the box: then it is not the points that end the interval."""
    gradient = np.abs(pulled.at(np.arange(len(thetas)))(thetas, np.arange(len(thetas)))[1])
    matters = gradient > _SLIGHT * gradient.max(axis=1, keepdims=True)
    at_edge = (thetas <= problem.lower + _SLIGHT) | (thetas >= problem.upper - _SLIGHT)
    return np.asarray((matters & at_edge).any(axis=1))


def _next(gone: Array, root: Array, steep: Array, inner: Array, outer: Array, distance: Array) -> Array:
    """The next distance to try: Newton's, between what is known to be within and beyond."""
    with np.errstate(divide="ignore", invalid="ignore"):
        newton = gone + (1 - root) / steep
    most = np.where(np.isfinite(outer), outer, _GROW * np.maximum(distance, inner))
    wild = ~np.isfinite(newton) | (newton <= inner) | (newton >= most)
    between = np.where(np.isfinite(outer), (inner + outer) / 2, most)
    return np.asarray(np.where(wild, between, newton))


@dataclass(frozen=True, kw_only=True)
class _Pulled:
    """Of all functions the one that each row is about."""

    function: Function
    which: Rows

    def at(self, rows: Rows) -> Callable[[Array, Rows], tuple[Array, Array]]:
        which = self.which[rows]

        def one_each(theta: Array, part: Rows) -> tuple[Array, Array]:
            values, gradients = self.function(theta)
            each = np.arange(len(theta))
            return values[each, which[part]], gradients[each, which[part]]

        return one_each

    def values(self, theta: Array, rows: Rows) -> Array:
        return self.at(rows)(theta, np.arange(len(rows)))[0]
