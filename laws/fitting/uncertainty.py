"""How far a fit is known: the size of the noise, and the covariance of the coordinates.

Points of one training run share what that run had of luck: it is runs, not points, that are independent. Where a run
has several points the covariance is a sandwich over runs, each with its residuals as they are when it is left out (the
jackknife, or CR3, of Bell and McCaffrey 2002); otherwise it is that of independent residuals of one size. With no more
runs than coordinates nothing can be said of their luck, and residuals count as independent.

All points are measured on the same queries, whose luck no residual shows: where points come with resampled queries
(`Points.draws`), what those move is added, less what of it the residuals do show.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import f as f_distribution
from scipy.stats import norm

from laws.fitting.objective import Problem
from laws.forms import Array
from laws.points import Points

_ROUNDING = 8 * np.finfo(float).eps
"""Residuals below this share of the values are not told from zero."""
_NOTHING = 1e-15
"""A second derivative below this share of the largest is one of zero."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """What is known of the noise around a fit, in the problem's units."""

    noise: float
    """Standard deviation of a residual."""
    freedom: float
    """Degrees of freedom behind it."""
    plain: Array
    """(p, p) inverse of half the second derivative of the cost: the covariance at noise 1."""
    covariance: Array
    """(p, p) of the coordinates."""
    influence: Array
    """(p, points) by how much the coordinates move with each residual."""
    rounding: float
    """Cost that rounding alone accounts for."""
    cost: float
    run_share: float = 1.0
    """Share of the residuals' variance that is not the queries'."""
    queries: Array | None = None
    """(resamples, points) residuals that other queries would have added."""

    @property
    def exact(self) -> bool:
        """Whether the points lie on the curve as far as numbers can tell."""
        return self.cost <= self.rounding

    def allowed(self, gradient: Array, interval: float) -> Array:
        """(batch,) by how much the cost may rise along functions with these gradients (batch, p) within the interval.

        F's quantile, times how much larger the function's variance is than that of independent residuals.
        """
        quantile = float(f_distribution.ppf(interval, 1, self.freedom))
        ours = np.einsum("bi,ij,bj->b", gradient, self.covariance, gradient)
        plain = np.einsum("bi,ij,bj->b", gradient, self.plain, gradient)
        return np.asarray(quantile * ours / np.maximum(plain, 1e-300))


def clusters(points: Points) -> NDArray[np.int64]:
    """(points,) the number of the training run of each point; every point its own where runs are not told."""
    if not points.run:
        return np.arange(len(points))
    return np.unique(np.array(points.run), return_inverse=True)[1].reshape(-1).astype(np.int64)


def spread_of(problem: Problem, theta: Array, runs: NDArray[np.int64]) -> Spread | None:
    """The noise around a fit; None where no degree of freedom is left, but to repeats that are equal."""
    size, count, groups = len(theta), len(problem.u), len(np.unique(runs))
    if count <= size:
        return None
    residuals, slopes = problem.linearise(theta[None], slice(None))
    r, j = residuals[0], slopes[:, 0].T
    cost = float(problem.cost(residuals)[0])
    rounding = _rounding(problem)
    if cost <= rounding and len(np.unique(problem.u.round(12), axis=0)) <= size:
        return None
    if problem.delta is None:
        bend, scores, noise = 1.0, r, float(np.sqrt(max(cost, rounding) / (count - size)))
        variance = noise**2
    else:
        noise = max(_middle(r, size), float(np.sqrt(rounding / count)))
        bend = float(norm.cdf(problem.delta / noise) - norm.cdf(-problem.delta / noise))
        scores = np.clip(r, -problem.delta, problem.delta)
        variance = float((scores**2).sum() / (count - size)) / bend
    plain = inverse(bend * (j.T @ j))
    covariance, freedom = np.asarray(variance * plain, dtype=np.float64), float(count - size)
    if size < groups < count and cost > rounding:
        covariance, freedom = _sandwich(j, scores, plain, bend, runs)
    return Spread(
        noise=noise,
        freedom=freedom,
        plain=plain,
        covariance=covariance,
        influence=plain @ j.T * bend,
        rounding=rounding,
        cost=cost,
    )


def with_queries(spread: Spread, problem: Problem, theta: Array, draws: Array) -> Spread:
    """The same with the luck of the queries; `draws` (points, resamples) are the values over resampled ones."""
    moved = (draws - draws.mean(axis=1, keepdims=True)).T
    scale = np.exp(problem.target) if problem.logarithmic else 1.0
    queries = moved / scale * problem.root
    moves = queries @ spread.influence.T
    slopes = problem.linearise(theta[None], slice(None))[1][:, 0].T
    shown = ((queries - moves @ slopes.T) ** 2).sum(axis=1).mean() / spread.freedom
    share = float(np.clip(1 - shown / spread.noise**2, 0, 1))
    covariance = share * spread.covariance + moves.T @ moves / max(len(moves) - 1, 1)
    return replace(spread, covariance=covariance, run_share=share, queries=queries)


def _rounding(problem: Problem) -> float:
    size = np.ones(len(problem.u)) if problem.logarithmic else problem.target
    return float(((_ROUNDING * size * problem.root) ** 2).sum())


def _middle(r: Array, size: int) -> float:
    """Standard deviation of residuals from the middle of their sizes, as Huber's loss does not mind the far ones.

    As many of them as there are coordinates are next to zero because the curve was bent to them: they do not count.
    """
    return float(np.median(np.sort(np.abs(r))[size:]) / norm.ppf(0.75))


def inverse(normal: Array) -> Array:
    """(p, p) inverse of a matrix of second derivatives; enormous along what the points say nothing of."""
    scale = np.sqrt(np.diagonal(normal))
    scale = np.maximum(scale, _NOTHING * scale.max() + 1e-100)
    sizes, directions = np.linalg.eigh(normal / np.outer(scale, scale))
    inverted = directions / np.maximum(sizes, _NOTHING) @ directions.T
    return np.asarray(inverted / np.outer(scale, scale), dtype=np.float64)


def left_out(residuals: Array, j: Array, influence: Array, runs: NDArray[np.int64]) -> Array:
    """(points,) residuals as they would be of a fit without the point's own run.

    `j` (points, p) are slopes, `influence` (p, points) how the coordinates move with the residuals.
    """
    own = np.einsum("np,pn->n", j, influence)
    found = residuals / np.maximum(1 - own, 1e-9)  # which is all there is to runs of one point
    for run in np.flatnonzero(np.bincount(runs) > 1):
        mine = np.flatnonzero(runs == run)
        kept = np.eye(len(mine)) - j[mine] @ influence[:, mine]
        found[mine] = np.linalg.lstsq(kept, residuals[mine], rcond=1e-9)[0]
    return found


def _sandwich(j: Array, scores: Array, plain: Array, bend: float, runs: NDArray[np.int64]) -> tuple[Array, float]:
    """Covariance over runs, each left out in turn, and its degrees of freedom."""
    count = int(runs.max()) + 1
    alone = left_out(scores, j, bend * plain @ j.T, runs)
    moves = np.zeros((count, j.shape[1]))
    np.add.at(moves, runs, alone[:, None] * (j @ plain))
    return (count - 1) / count * moves.T @ moves, float(count - 1)
