"""Bootstraps: what else the points could have been, all fitted again as one batch."""

import numpy as np
from numpy.typing import NDArray

from laws.fitting.descent import minimise
from laws.fitting.objective import Problem
from laws.fitting.uncertainty import Spread, left_out
from laws.forms import Array

_STEPS, _TOLERANCE = 60, 1e-7


def noise(
    problem: Problem, theta: Array, spread: Spread, runs: NDArray[np.int64], count: int, rng: np.random.Generator
) -> Array:
    """(count, points) residuals as they could have been: of the runs, and of the queries where those were resampled."""
    if len(theta) < len(np.unique(runs)) < len(runs):
        drawn = wild(problem, theta, spread, runs, count, rng)
    else:
        drawn = parametric(spread, count, len(runs), rng)
    if spread.queries is None:
        return drawn
    return np.sqrt(spread.run_share) * drawn + spread.queries[rng.integers(len(spread.queries), size=count)]


def parametric(spread: Spread, count: int, points: int, rng: np.random.Generator) -> Array:
    """(count, points) Gaussian residuals whose size is itself drawn: with few points over, it is hardly known."""
    sigma = spread.noise * np.sqrt(spread.freedom / rng.chisquare(spread.freedom, count))
    return np.asarray(sigma[:, None] * rng.standard_normal((count, points)))


def wild(
    problem: Problem, theta: Array, spread: Spread, runs: NDArray[np.int64], count: int, rng: np.random.Generator
) -> Array:
    """(count, points) the residuals of every run as they are without it, each run with a sign of its own.

    Signs by run keep what the points of a run have in common (Cameron, Gelbach and Miller 2008). Residuals as they are
    would be too small, the more so the fewer runs there are: the curve was bent to them.
    """
    residuals, slopes = problem.linearise(theta[None], slice(None))
    alone = left_out(residuals[0], slopes[:, 0].T, spread.influence, runs)
    of_runs = int(runs.max()) + 1
    signs = rng.choice([-1.0, 1.0], (count, of_runs))[:, runs]
    size = np.sqrt((of_runs - 1) / of_runs * spread.freedom / rng.chisquare(spread.freedom, count))
    return np.asarray(signs * alone * size[:, None])


def refit(problem: Problem, theta: Array, spread: Spread, noise: Array) -> Array:
    """(count, p): the curve with other residuals (count, points) on it, fitted again."""
    value = problem.form.value(theta, problem.u)
    fitted = np.log(value) if problem.logarithmic else value
    batch = problem.of(target=fitted + noise / problem.root)
    start = theta + np.clip(noise @ spread.influence.T, -2, 2)
    return minimise(batch, start, steps=_STEPS, tolerance=_TOLERANCE, damping=1e-4)[0]
