"""Residuals of a law in the units in which it was fitted, and what its parameters could change in them."""

import numpy as np

from laws.fitting import Law, Loss
from laws.forms import Array
from laws.points import Points

NEGLIGIBLE = 1e-6
"""Residuals below this share of the spread of y are rounding, whatever their structure."""


def at(law: Law, points: Points) -> Array:
    """(points,): what the law says there."""
    return law.predict(columns(law, points))


def columns(law: Law, points: Points) -> list[Array]:
    """The axes of the law's form, as `Law.predict` takes them."""
    return [points.axis(axis) for axis in law.form.axes]


def scale(loss: Loss, points: Points, fitted: Array) -> Array:
    """(points,): by what a residual y - f is multiplied in the fit; one over the noise is in proportion to it."""
    if loss == "squared":
        return np.ones(len(points))
    return 1 / points.y if loss == "relative" else 1 / fitted


def linearised(law: Law, points: Points) -> tuple[Array, Array, Array]:
    """Scaled residuals (points,), the scaled values' gradient (points, p), and the scale (points,)."""
    u = points.logs(law.form.axes) - law.centre
    value, gradient = law.form.evaluate(law.theta, u)
    by = scale(law.options.loss, points, value)
    return (points.y - value) * by, gradient * by[:, None], by


def null_objective(law: Law, points: Points) -> float:
    """The sum of squared scaled residuals of the best constant."""
    weights = scale(law.options.loss, points, at(law, points)) ** 2
    mean = np.average(points.y, weights=weights)
    return float((weights * (points.y - mean) ** 2).sum())


def explained(law: Law, points: Points) -> float:
    """R² in the units in which the law was fitted; 0 where all values are equal."""
    whole = null_objective(law, points)
    residual, _, _ = linearised(law, points)
    return 1 - float((residual**2).sum()) / whole if whole > 0 else 0.0


def independent(law: Law, points: Points) -> int:
    """How many values have luck of their own.

    The budgets of one training share its luck, so over N, D and a budget it is the trainings that count.
    """
    budgets = [axis for axis in law.form.axes if axis in ("beams", "c")]
    trained = [axis for axis in law.form.axes if axis not in ("beams", "c")]
    if not budgets or not trained:
        return len(points)
    return len(set(points.run)) or points.distinct(trained)
