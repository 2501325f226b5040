"""scipy's L-BFGS-B from random starts, on the same cost with the same gradient and bounds."""

import numpy as np
from scipy.optimize import minimize

from laws.fitting.objective import Problem
from laws.fitting.starts import RANGES
from laws.forms import Array, Role

_SCREENED, _FINISHED = 100, 40
"""Iterations of every start, and how many of the best then go on until they end."""


def cost_and_slope(problem: Problem, theta: Array) -> tuple[float, Array]:
    """The cost and its gradient at one point."""
    residuals, slopes = problem.linearise(theta[None], slice(None))
    slopes = np.clip(slopes, -1e100, 1e100)  # L-BFGS-B tries steps far outside of where values are numbers
    scores = residuals[0] if problem.delta is None else np.clip(residuals[0], -problem.delta, problem.delta)
    return float(problem.cost(residuals)[0]), 2 * slopes[:, 0] @ np.clip(scores, -1e100, 1e100)


def random_starts(problem: Problem, y: Array, count: int, seed: int) -> Array:
    """(count, p): linear coordinates about the range of y, the others as far as the fitter's grid goes."""
    spread, least, largest = np.log(np.ptp(y)), np.log(y.min()), np.log(y.max())
    ranges: dict[Role, tuple[float, float]] = RANGES | {
        "amplitude": (spread - 3.5, spread + 1.1),
        "floor": (least - 4, least),
        "ceiling": (largest, largest + 2),
        "turn": (-2.5, 2.5),
    }
    lows, highs = np.array([ranges[role] for role in problem.form.roles]).T
    return np.random.default_rng(seed).uniform(lows, highs, (count, len(lows)))


def descend(problem: Problem, start: Array, steps: int) -> tuple[Array, float]:
    """One start downhill: where it ends, and the cost there."""
    found = minimize(
        lambda theta: cost_and_slope(problem, theta),
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(problem.lower, problem.upper, strict=True)),
        options={"maxiter": steps, "maxfun": 2 * steps, "ftol": 1e-15, "gtol": 1e-11},
    )
    return found.x, float(found.fun)


def best_of(problem: Problem, y: Array, count: int, seed: int = 0) -> float:
    """The lowest cost of `count` random starts."""
    ended = [descend(problem, start, _SCREENED) for start in random_starts(problem, y, count, seed)]
    ended.sort(key=lambda each: each[1])
    return min(descend(problem, theta, 20_000)[1] for theta, _ in ended[:_FINISHED])
