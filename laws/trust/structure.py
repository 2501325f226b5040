"""Whether the residuals of a law are noise, or show another law: a break, a plateau, a step.

Each alternative is a direction in the space of residuals; what the law's own parameters could take up is projected out
of it (a score test, Rao 1948). The statistic is the largest share of the residual sum of squares that one direction
explains; what noise alone gives is drawn, so that looking in many directions costs its price. A gross alternative is
no small step from the law, so where the directions show nothing the law is fitted again with each of them. Where points
are repeated (seeds), the classical test of lack of fit against their scatter stands beside it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import f as f_distribution

from laws.fitting import Law
from laws.forms import Array
from laws.points import Points
from laws.trust.alternatives import Alternative, alternatives, refitted
from laws.trust.residuals import NEGLIGIBLE, Residuals, at, residuals_of

DRAWS = 2000
CLEAR = 0.01
"""Above this p the directions alone are not clear, and the law is fitted again with each alternative."""


@dataclass(frozen=True, kw_only=True)
class Structure:
    """What the residuals say."""

    p: float
    """Chance that noise alone follows one of the directions as closely."""
    share: float
    """Of the residual sum of squares that the closest direction explains."""
    what: str
    """That direction: `a break in N after 29k`."""
    lack_of_fit: float | None
    """p of the F test of lack of fit against the scatter of repeated points; None where there are none."""


def structure(law: Law, points: Points, seed: int = 0) -> Structure | None:
    """The structure of a law's residuals; None where fewer than two degrees of freedom are left to show one."""
    found = residuals_of(law, points)
    residual, scale, u = found.values, found.scale, found.problem.u
    cells = _Cells.of(law, points)
    basis = _basis(cells.sums(found.slopes))
    if cells.count - basis.shape[1] < 2:
        return None
    if np.sqrt(np.mean((points.y - at(law, points)) ** 2)) <= NEGLIGIBLE * np.ptp(points.y):
        return Structure(p=1.0, share=0.0, what="nothing", lack_of_fit=None)
    others = alternatives(law, points)
    columns = np.stack([other.direction(law, u) for other in others], axis=1)
    directions, kept = _orthogonal(cells.sums(columns * scale[:, None]), basis)
    if not len(kept):
        return None
    noise = cells.noise(residual, np.random.default_rng(seed))
    drawn = [_largest_shares(noise * cells.means(size), basis, directions) for size in _sizes(scale, at(law, points))]
    observed = cells.sums(residual)
    shares = (directions.T @ observed) ** 2 / float(observed @ observed)
    if _p(drawn, shares.max()) > CLEAR:
        shares = np.array([_refitted_share(law, found, others[index], cells) for index in kept])
    best = int(shares.argmax())
    return Structure(
        p=_p(drawn, shares[best]),
        share=float(shares[best]),
        what=others[kept[best]].name,
        lack_of_fit=_lack_of_fit(cells, residual, basis.shape[1]),
    )


def _sizes(scale: Array, fitted: Array) -> list[Array]:
    """(points,) how large noise may be in the fit's units: as the fit has it, even in y, or in proportion to it.

    Which it is, few points do not tell, and a fit that assumes the wrong one shows structure that is none.
    """
    found = [np.ones(len(scale))]
    for size in (scale, scale * fitted):
        if all(np.ptp(size / known) > 0.1 * np.mean(size / known) for known in found):
            found.append(size / np.sqrt(np.mean(size**2)))
    return found


def _largest_shares(noise: Array, basis: Array, directions: Array) -> Array:
    """(draws,): the largest share of a direction in noise (draws, cells) without what the basis takes up."""
    noise = noise - (noise @ basis) @ basis.T
    shares: Array = ((noise @ directions) ** 2).max(axis=1) / (noise**2).sum(axis=1)
    return shares


def _p(drawn: list[Array], share: float) -> float:
    """Chance of as large a share, of the sizes that noise may have that which explains it best."""
    return max(float((1 + (shares >= share).sum()) / (1 + len(shares))) for shares in drawn)


def _refitted_share(law: Law, found: Residuals, other: Alternative, cells: "_Cells") -> float:
    """Of what the residuals leave between cells, the share that the law loses when it is fitted again."""
    between = float((cells.sums(found.values) ** 2).sum())
    return (float((found.values**2).sum()) - refitted(law, found, other)) / between


@dataclass(frozen=True, kw_only=True)
class _Cells:
    """Distinct points, each with all its repetitions; those of one training share its luck."""

    of_point: NDArray[np.int64]
    counts: NDArray[np.int64]
    training: NDArray[np.int64]
    """(cells,): the training, or the cell of N and D, that a cell belongs to."""

    @classmethod
    def of(cls, law: Law, points: Points) -> "_Cells":
        logs = points.logs(law.form.axes).round(12)
        _, first, of_point, counts = np.unique(logs, axis=0, return_index=True, return_inverse=True, return_counts=True)
        trained = [axis for axis in law.form.axes if axis not in ("beams", "c")] or list(law.form.axes)
        _, training = np.unique(points.logs(trained).round(12)[first], axis=0, return_inverse=True)
        return cls(of_point=of_point.reshape(-1), counts=counts, training=training.reshape(-1))

    @property
    def count(self) -> int:
        return len(self.counts)

    def sums(self, values: Array) -> Array:
        """(cells, ...) from (points, ...): sums over a cell's points over the root of their number.

        Independent noise of one size in the points stays independent noise of that size in the cells.
        """
        added = np.zeros((self.count, *values.shape[1:]))
        np.add.at(added, self.of_point, values)
        return added / np.sqrt(self.counts).reshape(-1, *[1] * (values.ndim - 1))

    def means(self, values: Array) -> Array:
        """(cells,) of values (points,)."""
        return np.bincount(self.of_point, values) / self.counts

    def noise(self, residual: Array, rng: np.random.Generator) -> Array:
        """(draws, cells): noise with as much of it in common to the cells of a training as the residuals have."""
        own = rng.standard_normal((DRAWS, self.count))
        rho = self._in_common(self.sums(residual))
        if rho == 0:
            return own
        shared = rng.standard_normal((DRAWS, int(self.training.max()) + 1))[:, self.training]
        return np.sqrt(rho) * shared + np.sqrt(1 - rho) * own

    def _in_common(self, values: Array) -> float:
        """Intraclass correlation of the cells of a training (Fisher 1925)."""
        sizes = np.bincount(self.training)
        groups, total = len(sizes), len(values)
        if groups == total or groups < 2:
            return 0.0
        means = np.bincount(self.training, values) / sizes
        between = (sizes * (means - values.mean()) ** 2).sum() / (groups - 1)
        within = ((values - means[self.training]) ** 2).sum() / (total - groups)
        size = (total - (sizes**2).sum() / total) / (groups - 1)
        whole = between + (size - 1) * within
        return float(np.clip((between - within) / whole, 0, 0.99)) if whole > 0 else 0.0


def _basis(jacobian: Array) -> Array:
    """(cells, rank): an orthonormal basis of what the parameters can take up; columns without effect are left out."""
    norms = np.sqrt((jacobian**2).sum(axis=0))
    kept = norms > max(1e-9 * float(norms.max()), 1e-150)
    if not kept.any():
        return np.empty((len(jacobian), 0))
    left, sizes, _ = np.linalg.svd(jacobian[:, kept] / norms[kept], full_matrices=False)
    basis: Array = left[:, sizes > 1e-7 * sizes[0]]
    return basis


def _orthogonal(columns: Array, basis: Array) -> tuple[Array, NDArray[np.int64]]:
    """Unit directions (cells, k) without what the basis takes up, and which of the columns they are."""
    norms = np.sqrt((columns**2).sum(axis=0))
    rest = columns - basis @ (basis.T @ columns)
    left = np.sqrt((rest**2).sum(axis=0))
    kept = np.flatnonzero(left > 1e-4 * np.where(norms > 0, norms, 1))
    return rest[:, kept] / left[kept], kept


def _lack_of_fit(cells: _Cells, residual: Array, parameters: int) -> float | None:
    """F test: the scatter of the cells' means about the law against that of the points about their cell's mean."""
    pure = len(residual) - cells.count
    lack = cells.count - parameters
    if pure < 1 or lack < 1 or len(set(cells.training)) < cells.count:
        return None
    means = np.bincount(cells.of_point, residual) / cells.counts
    within = float(((residual - means[cells.of_point]) ** 2).sum()) / pure
    between = float((cells.counts * means**2).sum()) / lack
    # repeats without any scatter are one measurement that was written down twice
    return float(f_distribution.sf(between / within, lack, pure)) if within > 0 else None
