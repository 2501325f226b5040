"""How well a law fits for the number of its parameters, and how well it predicts what it has not seen."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import erf

from laws.fitting.descent import minimise
from laws.fitting.law import LeaveOut
from laws.fitting.objective import Problem
from laws.fitting.uncertainty import inverse, left_out
from laws.forms import Array
from laws.points import Points

_FEW_CELLS = 40
"""Up to that many distinct points every fit without one of them starts from several places."""
_MOST_FITS = 500
_ENOUGH = 1e-7
"""Share of the cost below which a left-out fit need not be better."""


def aicc(problem: Problem, cost: float, parameters: int) -> float:
    """Akaike's criterion for few points (Hurvich and Tsai 1989), constants kept; infinite with too few of them.

    The size of the residuals is a parameter too, at its most likely value. Comparable between forms that are fitted to
    the same points with the same loss.
    """
    count, size = len(problem.u), parameters + 1
    if count - size - 1 <= 0:
        return np.inf
    cost = max(cost, count * np.finfo(float).tiny)
    if problem.delta is None:
        unlikely = count * (np.log(2 * np.pi * problem.unit**2 * cost / count) + 1)
    else:
        unlikely = _huber_unlikely(cost, count, problem.delta)
    jacobian = -2 * float(np.log(np.abs(problem.root) * problem.unit).sum())  # weights scale each residual's density
    return float(unlikely + jacobian + 2 * size + 2 * size * (size + 1) / (count - size - 1))


def _huber_unlikely(cost: float, count: int, delta: float) -> float:
    """-2 ln of the likelihood of residuals with density exp(-h/(2s))/Z(s), h being a residual's cost, at its best s."""

    def at(log_s: float) -> float:
        s = np.exp(log_s)
        inside = np.sqrt(2 * np.pi * s) * erf(delta / np.sqrt(2 * s))
        outside = 2 * s / delta * np.exp(-(delta**2) / (2 * s))
        return float(2 * count * np.log(inside + outside) + cost / s)

    middle = np.log(cost / count)
    return float(minimize_scalar(at, bounds=(middle - 12, middle + 6), method="bounded").fun)


def leave_out(
    problem: Problem, points: Points, candidates: Array, theta: Array, cells: NDArray[np.int64]
) -> LeaveOut | None:
    """Leave each distinct point out in turn; every fit starts where the full one should go without it.

    With few points also where the full one ended, from other starts too: there a point may decide between valleys. With
    very many of them several are left out at once.
    """
    cells = cells % _MOST_FITS
    count = int(cells.max()) + 1
    if count - 1 < len(theta):
        return None
    starts = _without(problem, theta, cells)[:, None]
    if count <= _FEW_CELLS:
        others = np.concatenate([theta[None], candidates])
        starts = np.concatenate([starts, np.broadcast_to(others, (count, *others.shape))], axis=1)
    kept = (cells[None, :] != np.arange(count)[:, None]).astype(float)
    root = (kept * problem.root).repeat(starts.shape[1], axis=0)
    reached, cost = minimise(
        problem.of(root=root), starts.reshape(-1, len(theta)), tolerance=_ENOUGH, damping=1e-4, steps=60
    )
    best = cost.reshape(count, -1).argmin(axis=1)
    thetas = reached.reshape(starts.shape)[np.arange(count), best]
    predicted = problem.form.value(thetas, problem.u)[cells, np.arange(len(cells))]
    means = (kept @ points.y / kept.sum(axis=1))[cells]
    return LeaveOut(
        rmse=float(np.sqrt(np.mean((points.y - predicted) ** 2))),
        null_rmse=float(np.sqrt(np.mean((points.y - means) ** 2))),
        predicted=predicted,
        null=means,
    )


def _without(problem: Problem, theta: Array, cells: NDArray[np.int64]) -> Array:
    """(cells, p) where Newton's step goes from `theta` when a cell's points are left out."""
    residuals, slopes = problem.linearise(theta[None], slice(None))
    j = slopes[:, 0].T
    influence = inverse(j.T @ j) @ j.T
    moves = np.zeros((int(cells.max()) + 1, len(theta)))
    np.add.at(moves, cells, left_out(residuals[0], j, influence, cells)[:, None] * influence.T)
    return np.asarray(theta + np.clip(moves, -1, 1))


def limits(problem: Problem, theta: Array, y: Array) -> tuple[str, ...]:
    """What ran to its edge, in words."""
    scale = {"amplitude": np.ptp(y), "floor": np.abs(y).max()}
    found = []
    for index, (role, word) in enumerate(zip(problem.form.roles, problem.form.words, strict=True)):
        at_zero = theta[index] <= problem.lower[index] + 1e-3
        if role in scale:
            at_zero = at_zero or np.exp(theta[index]) < 1e-4 * scale[role]
        if at_zero:
            found.append(f"{word} runs to {'its lower limit' if role in ('signed', 'turn') else 'zero'}")
        elif theta[index] >= problem.upper[index] - 1e-3:
            found.append(f"{word} runs to {'its upper limit' if role in ('signed', 'turn') else 'infinity'}")
    return tuple(found)
