"""How much a law's value at a target is still unknown, and how much less it would be after more points.

The law is linearised at its fit (c-optimal design, Elfving 1952): a point with gradient j and noise s adds j j'/s^2 to
the information on the coordinates, and the variance at the target with gradient g is g' M^-1 g. Points of one training
run share part of their noise; a further point of a run is worth what it says beyond the others.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from laws.fitting import Law
from laws.forms import Array, log_axes
from laws.points import Points

FREEDOM = 10.0
"""Standard deviation of each coordinate (a logarithm, or close to one) before any point: as good as nothing known."""
MOST_SHARED = 0.95


@dataclass(frozen=True, kw_only=True)
class Design:
    """What is known of a law's value at a target. Frozen: `after` gives the next one."""

    target: Array
    """(p,) gradient there."""
    covariance: Array
    """(p, p) of the coordinates."""
    noise: float
    """Standard deviation of a new point's residual."""
    shared: float
    """Share of its variance that the points of one run have in common."""
    sums: dict[str, Array]
    """Run -> the sum of its points' gradients."""
    counts: dict[str, int]

    @property
    def variance(self) -> float:
        """Of the value at the target."""
        return float(self.target @ self.covariance @ self.target)

    def reductions(self, rows: Array, runs: Sequence[str]) -> Array:
        """(m,): by how much the variance falls with each of m points alone; `rows` (m, p) are their gradients."""
        new, noise = self.beyond(rows, runs)
        spread = new @ self.covariance
        told = spread @ self.target
        return told**2 / (noise + np.einsum("mp,mp->m", spread, new))

    def after(self, row: Array, run: str) -> "Design":
        """With one point (p,) more."""
        new, noise = self.beyond(row[None], [run])
        spread = self.covariance @ new[0]
        covariance = self.covariance - np.outer(spread, spread) / (noise[0] + new[0] @ spread)
        return replace(
            self,
            covariance=(covariance + covariance.T) / 2,
            sums={**self.sums, run: self.sums.get(run, np.zeros_like(row)) + row},
            counts={**self.counts, run: self.counts.get(run, 0) + 1},
        )

    def beyond(self, rows: Array, runs: Sequence[str]) -> tuple[Array, Array]:
        """Gradients and noise variances of what points say beyond those of their runs that are there."""
        count = np.array([self.counts.get(run, 0) for run in runs], dtype=float)
        known = np.stack([self.sums.get(run, np.zeros(rows.shape[1])) for run in runs])
        weight = self.shared / (1 + (count - 1) * self.shared) if self.shared else np.zeros(len(runs))
        weight = np.where(count > 0, weight, 0.0)
        return rows - weight[:, None] * known, self.noise**2 * (1 - count * self.shared * weight)


def design_of(law: Law, points: Points, target: Sequence[float]) -> Design:
    """What the points tell of the law at a target, the values of its axes."""
    rows = sensitivities(law, [points.axis(axis) for axis in law.form.axes])
    runs = points.run or tuple(str(number) for number in range(len(points)))
    (goal,) = sensitivities(law, [np.array([value]) for value in target])
    nothing = Design(
        target=goal,
        covariance=np.eye(rows.shape[1]) * FREEDOM**2,
        noise=law.noise,
        shared=shared_noise(law, points, runs),
        sums={},
        counts={},
    )
    information = np.linalg.inv(nothing.covariance)
    for row, run in zip(rows, runs, strict=True):
        (new,), (noise,) = nothing.beyond(row[None], [run])
        information += np.outer(new, new) / noise
        nothing.sums[run] = nothing.sums.get(run, np.zeros_like(row)) + row
        nothing.counts[run] = nothing.counts.get(run, 0) + 1
    return replace(nothing, covariance=np.linalg.inv(information))


def sensitivities(law: Law, axes: Sequence[Array]) -> Array:
    """(m, p): gradients of the residual that is fitted, at axes (m,) each."""
    value, gradient = law.form.evaluate(law.theta, log_axes(law.form.axes, axes) - law.centre)
    return np.asarray(gradient if law.options.loss == "squared" else gradient / value[:, None])


def shared_noise(law: Law, points: Points, runs: Sequence[str]) -> float:
    """The intraclass correlation of the residuals: 0 where every run has one point."""
    fitted = law.predict([points.axis(axis) for axis in law.form.axes])
    residuals = points.y - fitted if law.options.loss == "squared" else np.log(points.y / fitted)
    sums: dict[str, float] = {}
    for run, residual in zip(runs, residuals, strict=True):
        sums[run] = sums.get(run, 0.0) + float(residual)
    squares = float((residuals**2).sum())
    pairs = sum(count * (count - 1) for count in Counter(runs).values())
    if not pairs or not squares:
        return 0.0
    together = sum(total**2 for total in sums.values()) - squares
    return float(np.clip(together / pairs / (squares / len(residuals)), 0.0, MOST_SHARED))
