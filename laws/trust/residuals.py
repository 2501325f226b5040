"""Residuals of a law in the units in which it was fitted, and what its parameters could change in them."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from laws.fitting import Law
from laws.fitting.criteria import aicc
from laws.fitting.objective import Problem, objective, problem_of
from laws.forms import Array
from laws.points import Points

NEGLIGIBLE = 1e-6
"""Residuals below this share of the spread of y are rounding, whatever their structure."""


@dataclass(frozen=True, kw_only=True)
class Residuals:
    """Of a law at the points that it was fitted to."""

    values: Array
    """(points,) fitted less measured, weighted, in the fit's own units."""
    slopes: Array
    """(points, p): their gradient by the law's coordinates."""
    scale: Array
    """(points,): what a small change of the fitted value is multiplied with."""
    problem: Problem


def residuals_of(law: Law, points: Points) -> Residuals:
    """The residuals of a law at its points."""
    problem, _ = problem_of(law.form, points, law.options)
    values, slopes = problem.linearise(law.theta[None], slice(None))
    fitted = law.form.value(law.theta, problem.u)
    scale = problem.root / fitted if problem.logarithmic else problem.root
    return Residuals(values=values[0], slopes=np.array(slopes[:, 0].T), scale=scale, problem=problem)


def at(law: Law, points: Points) -> Array:
    """(points,): what the law says there."""
    return law.predict(columns(law, points))


def columns(law: Law, points: Points) -> list[Array]:
    """The axes of the law's form, as `Law.predict` takes them."""
    return [points.axis(axis) for axis in law.form.axes]


def noise_at(law: Law, fitted: Array) -> Array:
    """(points,): standard deviation of a measured value about fitted ones, in their units."""
    return law.noise * (np.ones_like(fitted) if law.options.loss == "squared" else fitted)


@dataclass(frozen=True, kw_only=True)
class Null:
    """The null model: the best constant."""

    objective: float
    """As `Law.objective`."""
    aicc: float
    explained: float
    """Share of its cost that the law does without: R² in the units of the fit."""


def null_model(law: Law, points: Points) -> Null:
    """The null model of a law's points, with its loss and weights."""
    found = residuals_of(law, points)
    problem = found.problem

    def cost(constant: float) -> float:
        return float(problem.cost(((constant - problem.target) * problem.root)[None])[0])

    middle = float(np.average(problem.target, weights=problem.root**2))
    least = cost(middle)
    if problem.delta is not None and np.ptp(problem.target) > 0:
        ends = (float(problem.target.min()), float(problem.target.max()))
        least = min(least, float(minimize_scalar(cost, bounds=ends, method="bounded").fun))
    own = float(problem.cost(found.values[None])[0])
    return Null(
        objective=objective(problem, least),
        aicc=aicc(problem, least, 1),
        explained=1 - own / least if least > 0 else 0.0,
    )


def independent(law: Law, points: Points) -> int:
    """How many values have luck of their own.

    The budgets of one training share its luck, so over N, D and a budget it is the trainings that count.
    """
    budgets = [axis for axis in law.form.axes if axis in ("beams", "c")]
    trained = [axis for axis in law.form.axes if axis not in ("beams", "c")]
    if not budgets or not trained:
        return len(points)
    return len(set(points.run)) or points.distinct(trained)
