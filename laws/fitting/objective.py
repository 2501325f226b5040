"""What is minimised: residuals of a form at points, their loss, and the box the coordinates stay in.

A residual is y - f, or ln y - ln f, times the root of its weight. The cost is the sum of their squares, or of twice
Huber's loss, so that both are one near zero.

Relative residuals are taken as logarithms because squares of (y - f)/y favour curves that lie too low, by twice the
noise squared, which soon is more than the interval of a parameter; squares of (y - f)/f favour those that lie too high.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from laws.fitting.options import Options
from laws.forms import Array, Form, Role
from laws.points import Points

Rows = NDArray[np.int64]
_EXPONENT = (np.log(1e-3), np.log(50.0))
_WEIGHTS = 10.0
"""Weights stay within this factor of their median: an interval over few queries may have no width at all."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A batch of least-squares problems that differ in what is measured and how it is weighted."""

    form: Form
    u: Array
    """(points, axes) centred log axes."""
    target: Array
    """(points,) or (batch, points): y, or ln y."""
    root: Array
    """(points,) or (batch, points): what a residual is multiplied with."""
    logarithmic: bool
    """Whether residuals are of logarithms."""
    delta: float | None
    """Huber's; None: squares."""
    lower: Array
    upper: Array
    """(p,) the box."""
    unit: float
    """Costs are in units of its square, so that tolerances mean the same for every metric."""

    def of(self, target: Array | None = None, root: Array | None = None) -> "Problem":
        """The same with other measurements, or with other weights."""
        return replace(self, target=self.target if target is None else target, root=self.root if root is None else root)

    def linearise(self, theta: Array, rows: Rows | slice) -> tuple[Array, Array]:
        """Residuals (batch, points) and their slopes (p, batch, points); `rows` says which of the batch `theta` is."""
        target = self.target if self.target.ndim == 1 else self.target[rows]
        root = self.root if self.root.ndim == 1 else self.root[rows]
        # a step too far gives infinity, and is refused for it
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            value, gradient = self.form.evaluate(theta, self.u)
            slopes = np.moveaxis(gradient, -1, 0)
            if self.logarithmic:
                slopes *= root / value
                residuals = np.log(value)
            else:
                slopes *= root
                residuals = value
            residuals -= target
            residuals *= root
        return residuals, slopes

    def cost(self, residuals: Array) -> Array:
        """(batch,) from residuals (batch, points)."""
        with np.errstate(over="ignore", invalid="ignore"):
            if self.delta is None:
                return np.asarray(np.einsum("ij,ij->i", residuals, residuals))
            size = np.abs(residuals)
            inside = np.minimum(size, self.delta)
            return np.asarray(np.einsum("ij,ij->i", inside, 2 * size - inside))

    def cost_at(self, theta: Array) -> float:
        """The cost of one point of the space."""
        return float(self.cost(self.linearise(theta[None], slice(None))[0])[0])


def problem_of(form: Form, points: Points, options: Options) -> tuple[Problem, Array]:
    """The problem, and the means of the log axes that its coordinates are centred on.

    Raises ValueError where a value is not finite, an axis is not positive, there are fewer than two distinct points,
    or relative residuals are asked of values that are not positive.
    """
    _check(form, points, options)
    logs = points.logs(form.axes)
    centre = np.where([axis == "family" for axis in form.axes], 0.0, logs.mean(axis=0))
    root = _weights(points, options)
    y = np.asarray(points.y, dtype=float)
    unit = _spread(y) if options.loss == "squared" else 1.0
    lower, upper = _box(form.roles, y)
    problem = Problem(
        form=form,
        u=logs - centre,
        target=y if options.loss == "squared" else np.log(y),
        root=root / unit,
        logarithmic=options.loss != "squared",
        delta=options.delta if options.loss == "huber-log" else None,
        lower=lower,
        upper=upper,
        unit=unit,
    )
    return problem, centre


def objective(problem: Problem, cost: float) -> float:
    """What the user asked to be minimised: a sum of squares, or of Huber's loss."""
    return cost * problem.unit**2 / (1 if problem.delta is None else 2)


def _check(form: Form, points: Points, options: Options) -> None:
    for axis in form.axes:
        values = points.axis(axis)
        if not (np.isfinite(values) & ((values > 0) | (axis == "family"))).all():
            raise ValueError(f"axis {axis!r} holds a value that is not a positive number")
    if not np.isfinite(points.y).all():
        raise ValueError(f"{points.metric} holds a value that is not finite")
    if points.distinct(form.axes) < 2:
        raise ValueError("a law needs at least two distinct points")
    if options.loss != "squared" and not (points.y > 0).all():
        raise ValueError(f"{points.metric} holds a value that is not positive: it has no relative residuals")


def _weights(points: Points, options: Options) -> Array:
    """(points,) what residuals are multiplied with: 1 over the metric's own error, about one in the middle."""
    even = np.ones(len(points))
    if options.weights == "equal" or points.lo is None or points.hi is None:
        return even
    error = (points.hi - points.lo) / (2 * norm.ppf(0.975))
    if options.loss != "squared":
        error = error / points.y
    known = np.isfinite(error) & (error > 0)
    if not known.any():
        return even
    share = np.where(known, error, 0) / np.median(error[known])
    clipped = np.clip(share, 1 / _WEIGHTS, _WEIGHTS)
    # a point without an interval counts as the middle one does
    return np.asarray(1 / np.where(np.isfinite(error), clipped, 1.0))


def _spread(y: Array) -> float:
    return float(y.std()) or float(np.abs(y).max()) or 1.0


def _box(roles: Sequence[Role], y: Array) -> tuple[Array, Array]:
    """Bounds of the internal coordinates: wide enough that a parameter at one of them is a finding."""
    largest = np.log(max(float(np.abs(y).max()), 1e-300))
    ranges: dict[Role, tuple[float, float]] = {
        "amplitude": (largest - 30, largest + 9),
        "exponent": _EXPONENT,
        "floor": (largest - 30, largest + 1),
        "ceiling": (largest - 30, largest + 9),
        "weight": (-25.0, 25.0),
        "signed": (-5.0, 5.0),
        "turn": (-25.0, 25.0),
        "odds": (-25.0, 25.0),
    }
    pairs = np.array([ranges[role] for role in roles])
    return pairs[:, 0], pairs[:, 1]
