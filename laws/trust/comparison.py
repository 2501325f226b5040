"""Rival forms of one question side by side, and the null model, which knows only the mean."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from laws.fitting import Law
from laws.forms import Form
from laws.points import Points
from laws.trust.residuals import null_model

NULL = "mean"
"""What the null model is called."""
ALIKE = 2.0
"""Forms whose AICc are within this of the best are told apart by how they predict left-out points."""


@dataclass(frozen=True, kw_only=True)
class Rival:
    """One form of a comparison."""

    form: Form | None
    """None: the null model."""
    quantity: str
    """What it was fitted to: `loss`, `error`, `-log`."""
    k: int
    """Parameters."""
    n_points: int
    n_distinct: int
    objective: float
    """In the units of its own quantity; comparable among forms of one quantity only."""
    aicc: float
    """Of the metric's own values, whatever the quantity; infinite where there are too few points for it."""
    leave_out_rmse: float | None
    """In the metric's own units; None where a point fewer would leave fewer points than parameters."""
    skill: float | None
    """Share of the variance of left-out points that is predicted: 1 is perfect, 0 no better than the mean."""
    behind: float = math.nan
    """AICc above the best; NaN where it is infinite."""

    @property
    def name(self) -> str:
        """`joint`; `joint, -log` where the fitted quantity is another than the default."""
        if self.form is None:
            return NULL
        return self.form.name + (", -log" if self.quantity == "-log" else "")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All rivals, the best first; the null model among them."""

    rivals: tuple[Rival, ...]

    @property
    def best(self) -> Rival:
        """The best form; the null model is none."""
        return next(rival for rival in self.rivals if rival.form is not None)

    def of(self, form: Form, quantity: str) -> Rival:
        """The row of a form."""
        return next(rival for rival in self.rivals if (rival.form, rival.quantity) == (form, quantity))


def compare(fits: Sequence[tuple[Law, Points]]) -> Comparison:
    """Laws fitted to the same points, of which each has its own quantity. Raises ValueError where there is none."""
    if not fits:
        raise ValueError("nothing to compare")
    rows = [_rival(law, points) for law, points in fits]
    rows.append(_null(*min(fits, key=lambda fitted: fitted[1].quantity == "-log")))
    least = min(row.aicc for row in rows)
    rows = [replace(row, behind=row.aicc - least if math.isfinite(row.aicc) else math.nan) for row in rows]
    return Comparison(rivals=_ordered(rows))


def _ordered(rows: Sequence[Rival]) -> tuple[Rival, ...]:
    """By AICc; of those within `ALIKE` of the best form by the error of left-out points."""
    forms = [row for row in rows if row.form is not None]
    least = min(row.aicc for row in forms)

    def key(row: Rival) -> tuple[bool, float, float]:
        close = row.form is not None and (row.aicc <= least + ALIKE or math.isinf(least))
        missed = math.inf if row.leave_out_rmse is None else row.leave_out_rmse
        return not close, missed if close else row.aicc, row.aicc if math.isfinite(row.aicc) else row.objective

    return tuple(sorted(rows, key=key))


def _rival(law: Law, points: Points) -> Rival:
    left_out = law.leave_out
    missed, null = (None, None) if left_out is None else _own_units(law, points)
    return Rival(
        form=law.form,
        quantity=points.quantity,
        k=len(law.parameters),
        n_points=law.n_points,
        n_distinct=law.n_distinct,
        objective=law.objective,
        aicc=law.aicc + _jacobian(points),
        leave_out_rmse=missed,
        skill=None if missed is None or null is None else 1 - (missed / null) ** 2 if null > 0 else 0.0,
    )


def _null(law: Law, points: Points) -> Rival:
    null = null_model(law, points)
    return Rival(
        form=None,
        quantity=points.quantity,
        k=1,
        n_points=law.n_points,
        n_distinct=law.n_distinct,
        objective=null.objective,
        aicc=null.aicc + _jacobian(points),
        leave_out_rmse=None if law.leave_out is None else _own_units(law, points)[1],
        skill=None if law.leave_out is None else 0.0,
    )


def _jacobian(points: Points) -> float:
    """What turns a criterion of y = -log m into one of m: minus twice the sum of ln |dy/dm|, and dy/dm = -1/m."""
    return -2 * float(points.y.sum()) if points.quantity == "-log" else 0.0


def _own_units(law: Law, points: Points) -> tuple[float, float]:
    """RMSE of left-out points of the law and of the null model, in the metric's own units."""
    left_out = law.leave_out
    assert left_out is not None
    if points.quantity != "-log":
        return left_out.rmse, left_out.null_rmse
    measured, predicted, null = (np.exp(-values) for values in (points.y, left_out.predicted, left_out.null))
    return tuple(float(np.sqrt(np.mean((measured - other) ** 2))) for other in (predicted, null))  # type: ignore
