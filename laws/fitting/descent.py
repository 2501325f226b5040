"""Levenberg-Marquardt (Marquardt 1963) on a batch of problems at once, in a box, with analytic gradients.

Far from zero the second derivative of Huber's loss vanishes. In a step that is much damped the weights of iterated
least squares stand in for it, with which the cost never rises; where the model is trusted it is used itself, which ends
fast.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from laws.fitting.objective import Problem, Rows
from laws.forms import Array

_ELEMENTS = 40_000
"""Rows times points of one turn: the working set stays in the cache."""
_STRIDE = 3.0
"""The longest step of a coordinate."""
_DAMPING = (1e-12, 1e10)
_STILL = 3
"""Steps in a row without progress that end a descent."""


@dataclass(frozen=True, kw_only=True)
class Pull:
    """A row of residuals more: strength * (g(theta) - target), which draws some function of the coordinates along."""

    function: Callable[[Array, Rows], tuple[Array, Array]]
    """Values (batch,) and gradient (batch, p) of the rows asked for."""
    target: Array
    strength: Array
    """(batch,)"""


@dataclass(kw_only=True)
class _State:
    """Where each row of a batch stands."""

    theta: Array
    cost: Array
    slope: Array
    """Half the gradient of the cost (batch, p)."""
    sharp: Array
    """Half its second derivative without the form's own curvature (batch, p, p)."""
    safe: Array
    """The same with the weights of iterated least squares; `sharp` itself where squares are minimised."""

    def take(self, rows: NDArray[np.bool_], places: Rows, other: "_State") -> None:
        """Copy what `other` has at `rows` to `places`."""
        self.theta[places], self.cost[places] = other.theta[rows], other.cost[rows]
        self.slope[places], self.sharp[places] = other.slope[rows], other.sharp[rows]
        if self.safe is not self.sharp:
            self.safe[places] = other.safe[rows]


def minimise(
    problem: Problem,
    theta: Array,
    *,
    pull: Pull | None = None,
    steps: int = 100,
    tolerance: float = 1e-10,
    damping: float = 1e-2,
) -> tuple[Array, Array]:
    """From coordinates (batch, p) downhill: coordinates (batch, p) and costs (batch,) with the pull's row in them.

    A row ends when a step promises less than a share `tolerance` of its cost.
    """
    reached, costs = np.empty_like(theta), np.empty(len(theta))
    size = max(1, _ELEMENTS // len(problem.u))
    for first in range(0, len(theta), size):
        rows = np.arange(first, min(first + size, len(theta)))
        reached[rows], costs[rows] = _descend(problem, theta[rows], rows, pull, steps, tolerance, damping)
    return reached, costs


def _descend(
    problem: Problem, theta: Array, rows: Rows, pull: Pull | None, steps: int, tolerance: float, damping: float
) -> tuple[Array, Array]:
    state = _look(problem, np.clip(theta, problem.lower, problem.upper), rows, pull)
    damped = np.full(len(theta), damping)
    still = np.zeros(len(theta), dtype=int)
    running = np.flatnonzero(np.isfinite(state.cost))
    for _ in range(steps):
        if not len(running):
            break
        step, promised = _step(problem, state, running, damped[running])
        cost = state.cost[running]
        trial = np.clip(state.theta[running] + step, problem.lower, problem.upper)
        seen = _look(problem, trial, rows[running], pull)
        better = seen.cost < cost
        gain = np.where(better, cost - seen.cost, 0.0)
        before = damped[running]
        state.take(better, running[better], seen)
        told = [~better, gain > 0.75 * promised, gain > 0.25 * promised]
        factor = np.select(told, [6.0, 0.1, 0.5], default=2.0)
        damped[running] = np.clip(before * factor, *_DAMPING)
        small = gain <= tolerance * cost
        still[running] = np.where(small, still[running] + 1, 0)
        sure = (np.abs(promised) <= tolerance * cost) & (before <= 1) & (np.abs(step).max(axis=1) < _STRIDE)
        ended = (small & sure) | ((still[running] >= _STILL) & (better | (before > 1e6)))
        running = running[~(ended | (state.cost[running] <= 0))]
    return state.theta, state.cost


def _step(problem: Problem, state: _State, rows: Rows, damped: Array) -> tuple[Array, Array]:
    """The damped step (batch, p), and the fall of the cost that it promises (batch,)."""
    slope, normal = state.slope[rows], state.sharp[rows]
    if state.safe is not state.sharp:
        share = np.minimum(damped, 1.0)[:, None, None]
        normal += share * (state.safe[rows] - normal)
    at = state.theta[rows]
    # a coordinate at its bound that would leave the box stays where it is
    held = ((at <= problem.lower) & (slope > 0)) | ((at >= problem.upper) & (slope < 0))
    diagonal = np.einsum("ijj->ij", normal).copy()
    scale = np.sqrt(np.maximum(diagonal, 1e-14 * diagonal.max(axis=1, keepdims=True) + 1e-300))
    freed = np.where(held, 0.0, 1 / scale)
    scaled = normal * freed[:, :, None] * freed[:, None, :]
    places = np.arange(at.shape[1])
    scaled[:, places, places] += damped[:, None] + 1e-14 + held
    step = -np.linalg.solve(scaled, (slope * freed)[..., None])[..., 0] * freed
    step = np.clip(step, -_STRIDE, _STRIDE)
    bent = np.einsum("ijk,ik->ij", normal, step)
    promised = -np.einsum("ij,ij->i", step, 2 * slope + bent)
    return step, promised


def _look(problem: Problem, theta: Array, rows: Rows, pull: Pull | None) -> _State:
    """Cost and derivatives at `theta`."""
    residuals, slopes = problem.linearise(theta, rows)
    cost = problem.cost(residuals)
    across = slopes.transpose(1, 0, 2)
    with np.errstate(over="ignore", invalid="ignore"):
        if problem.delta is None:
            sharp = across @ across.transpose(0, 2, 1)
            safe = sharp
            slope = (across @ residuals[..., None])[..., 0]
        else:
            weight = problem.delta / np.maximum(np.abs(residuals), problem.delta)
            slope = (across @ (weight * residuals)[..., None])[..., 0]
            safe = (across * weight[:, None, :]) @ across.transpose(0, 2, 1)
            sharp = (across * (weight == 1)[:, None, :]) @ across.transpose(0, 2, 1)
    if pull is not None:
        value, gradient = pull.function(theta, rows)
        squared, miss = pull.strength[rows] ** 2, value - pull.target[rows]
        added = squared[:, None, None] * gradient[:, :, None] * gradient[:, None, :]
        cost = cost + squared * miss**2
        slope = slope + (squared * miss)[:, None] * gradient
        same = safe is sharp
        sharp = sharp + added
        safe = sharp if same else safe + added
    cost = np.where(np.isfinite(cost), cost, np.inf)
    return _State(theta=theta, cost=cost, slope=slope, sharp=sharp, safe=safe)
