"""Profile intervals: how far a parameter, or a prediction, can go before the points say no.

Everything else is fitted again at every value, so the interval does not depend on how the form is written down, needs
no straight lines, and says so where there is no end: up to any value, or down to nothing, the points do not say no.

The cost may rise by F's quantile. Percentiles of parametric bootstraps hold the truth as often where noise is Gaussian
and every run has one point; profiles cost less, are open where they should be, and stay right where runs have several
points. Wild bootstraps with residuals as they are hold it far too seldom (`python -m benchmarks laws --part recovery`).

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
_ENDLESS = 60.0
"""What may go that far in logarithms may go anywhere."""
_STEPS = 40
_SLIGHT = 1e-6
"""Of a gradient's largest part what does not matter, and the distance from a bound that is none."""
_GROW = 3.0
"""No guess goes further than this many times the distance of the last."""


@dataclass(frozen=True, kw_only=True)
class Ends:
    """Both ends (q, 2) of the intervals of q functions, and which of them are open."""

    values: Array
    open: NDArray[np.bool_]


def find_ends(problem: Problem, theta: Array, function: Function, spread: Spread, interval: float) -> Ends:
    """The ends of the intervals of all functions at once, by Newton's method on the root of the cost's rise."""
    best, gradient = (each[0] for each in function(theta[None]))
    along = np.einsum("ij,qj->qi", spread.plain, gradient)
    width2 = np.maximum(np.einsum("qi,qi->q", along, gradient), 1e-300)
    allowed = spread.allowed(gradient, interval)
    half = np.sqrt(allowed * width2)
    if spread.exact:
        half = np.where(half < _FAR, half, np.inf)
        return Ends(values=best[:, None] + half[:, None] * [-1, 1], open=np.isinf(half)[:, None].repeat(2, axis=1))
    which, side = np.repeat(np.arange(len(best)), 2), np.tile([-1.0, 1.0], len(best))
    distance, limit = np.minimum(half[which], _FAR), np.maximum(allowed[which], 1e-300)
    jumps = (along / width2[:, None])[which] * (side * distance)[:, None]
    search = _Search(
        problem=problem,
        cost=spread.cost,
        pulled=_Pulled(function=function, which=which),
        centre=best[which],
        side=side,
        limit=limit,
        strength2=_FIRM * limit / distance**2,
        thetas=theta + np.clip(jumps, -_JUMP, _JUMP),
        distance=distance,
        inner=np.zeros(len(which)),
        outer=np.full(len(which), np.inf),
        found=np.zeros(len(which), dtype=bool),
        given_up=np.zeros(len(which), dtype=bool),
    )
    for _ in range(_ROUNDS):
        if (search.found | search.given_up).all():
            break
        search.go_on()
    return search.ends()


@dataclass(kw_only=True)
class _Search:
    """Both sides of every function, a row each: how far from the best (`centre`) each has looked."""

    problem: Problem
    cost: float
    """Of the best fit."""
    pulled: "_Pulled"
    centre: Array
    side: Array
    limit: Array
    """By how much the cost may rise."""
    strength2: Array
    thetas: Array
    distance: Array
    """To be tried next; where `found`, the end's."""
    inner: Array
    """The furthest that is known to be within the limit."""
    outer: Array
    """The nearest that is known to be beyond it."""
    found: NDArray[np.bool_]
    given_up: NDArray[np.bool_]
    """Nothing costs enough, however far."""

    def go_on(self) -> None:
        """One round: pull every row that is not done to its distance, and see what that costs."""
        rows = np.flatnonzero(~(self.found | self.given_up))
        side, strength2, limit = self.side[rows], self.strength2[rows], self.limit[rows]
        target = self.centre[rows] + side * self.distance[rows]
        pull = Pull(function=self.pulled.at(rows), target=target, strength=np.sqrt(strength2))
        thetas, cost = minimise(self.problem, self.thetas[rows], pull=pull, tolerance=1e-9, damping=1e-3, steps=_STEPS)
        values = self.pulled.values(thetas, rows)
        miss = target - values
        root = np.sqrt(np.maximum(cost - strength2 * miss**2 - self.cost, 0) / limit)
        gone = side * (values - self.centre[rows])
        steep = side * strength2 * miss / (np.maximum(root, 1e-9) * limit)
        inner, outer = self.inner[rows], self.outer[rows]
        stuck = (gone <= (1 + _CLOSE) * inner) & (inner > 0)  # the box, or the form itself, lets it no further
        self.given_up[rows] = np.isinf(outer) & (root < 1) & (stuck | (gone > _ENDLESS))
        inner = np.where(root < 1, np.maximum(inner, gone), inner)
        outer = np.where(root >= 1, np.minimum(outer, gone), outer)
        done = np.abs(root - 1) <= _CLOSE
        following = _next(gone, root, steep, inner, outer, self.distance[rows])
        self.thetas[rows], self.inner[rows], self.outer[rows], self.found[rows] = thetas, inner, outer, done
        self.distance[rows] = np.where(done, gone, following)

    def ends(self) -> Ends:
        """What was found; where no value costs just the limit, the first one beyond."""
        closed = (self.found | np.isfinite(self.outer)) & ~self._held()
        distance = np.where(self.found, self.distance, self.outer)
        values = np.where(closed, self.centre + self.side * distance, self.side * np.inf)
        return Ends(values=values.reshape(-1, 2), open=~closed.reshape(-1, 2))

    def _held(self) -> NDArray[np.bool_]:
        """(rows,) whether a function cannot get out of the box: then it is not the points that end the interval."""
        rows = np.arange(len(self.thetas))
        gradient = np.abs(self.pulled.at(rows)(self.thetas, rows)[1])
        matters = gradient > _SLIGHT * gradient.max(axis=1, keepdims=True)
        at_edge = (self.thetas <= self.problem.lower + _SLIGHT) | (self.thetas >= self.problem.upper - _SLIGHT)
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
