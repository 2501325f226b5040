"""Do several families of models share their exponents? Both answers are fitted, and AICc decides."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from laws.fitting.fitter import fit
from laws.fitting.law import Law
from laws.fitting.options import Options
from laws.forms import Families, Form
from laws.points import Points


@dataclass(frozen=True, kw_only=True)
class FamilyComparison:
    """Two laws of the same points."""

    shared: Law
    """Exponents in common, all else each family's own."""
    separate: Law
    """Nothing in common."""

    @property
    def gap(self) -> float:
        """AICc of separate exponents less that of shared ones: positive where sharing is better. NaN: too few."""
        if not (np.isfinite(self.shared.aicc) or np.isfinite(self.separate.aicc)):
            return np.nan
        return self.separate.aicc - self.shared.aicc

    @property
    def best(self) -> Law | None:
        """The better of them; None where there are too few points to say."""
        if np.isnan(self.gap):
            return None
        return self.shared if self.gap >= 0 else self.separate


_COLUMNS = ("n", "d", "y", "beams", "lo", "hi", "c", "train_flops", "infer_flops")


def together(families: Sequence[Points]) -> Points:
    """The points of several families as one, coded in their order. What one of them lacks is left out.

    Raises ValueError where they are not of one metric: their values would not be comparable.
    """
    if len({(points.metric, points.quantity) for points in families}) != 1:
        raise ValueError("families are compared on one metric")
    columns = {name: [getattr(points, name) for points in families] for name in _COLUMNS}
    known: dict[str, Any] = {
        name: np.concatenate(parts) if all(part is not None for part in parts) else None
        for name, parts in columns.items()
    }
    runs = tuple(f"{code} {run}" for code, points in enumerate(families) for run in points.run)
    return replace(
        families[0],
        **known,
        run=runs if all(points.run for points in families) else (),
        family=np.repeat(np.arange(len(families)), [len(points) for points in families]),
        draws=None,
    )


def compare_families(base: Form, points: Points, options: Options | None = None) -> FamilyComparison:
    """Fit `base` to the families of `points.family` together, with exponents in common and without.

    Raises ValueError where the points are not of two families or more, coded from 0 on.
    """
    codes = [] if points.family is None else sorted(set(points.family.tolist()))
    if len(codes) < 2 or codes != list(range(len(codes))):
        raise ValueError("families are compared from two on, with codes 0, 1, ...")
    shared = Families(base=base, count=len(codes), shared="exponents")
    separate = Families(base=base, count=len(codes), shared="none")
    return FamilyComparison(shared=fit(shared, points, options), separate=fit(separate, points, options))
