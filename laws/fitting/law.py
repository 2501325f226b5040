"""Fitting a form to points: `fit(form, points) -> Law`.

Unweighted least squares on the values themselves in float64, as R^2 and the source paper mean it. Many
seeded starts run as one batch of Levenberg-Marquardt (Marquardt 1963) with analytic gradients; the best are
polished by `scipy.optimize.least_squares`. Left-out points and bootstraps are batches of the same.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from laws.forms import Array, Form, Role, log_axes
from laws.points import Points

INTERVAL = 0.90
"""Coverage of the intervals of parameters and predictions."""
AGREE = 1e-6
"""A start agrees where its sum of squares is within this share of the best, or of the total sum of squares."""


Loss = Literal["squared", "relative"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How hard to try."""

    loss: Loss = "squared"
    """What is minimised: squares of residuals, or of relative ones."""
    starts: int = 48
    bootstraps: int = 400
    seed: int = 0
    interval: float = INTERVAL
    """Coverage of the intervals of parameters and predictions."""


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One public parameter; `lo`, `hi` are None where no residual degree of freedom is left."""

    name: str
    value: float
    lo: float | None
    hi: float | None
    open_below: bool = False
    """No lower end was found: as far down as the form goes, the points do not say no."""
    open_above: bool = False

    @property
    def identified(self) -> bool:
        """Whether the points bound it from both sides."""
        return self.lo is not None and not (self.open_below or self.open_above)


@dataclass(frozen=True, kw_only=True)
class LeaveOut:
    """Each distinct point (all its seeds) predicted by the law fitted to the others."""

    rmse: float
    null_rmse: float
    """The same of the mean of the other points."""

    @property
    def skill(self) -> float:
        """1 is perfect, 0 no better than the mean."""
        return 1 - (self.rmse / self.null_rmse) ** 2 if self.null_rmse > 0 else 0.0


@dataclass(frozen=True, kw_only=True)
class Law:
    """A fitted form."""

    form: Form
    parameters: tuple[Parameter, ...]
    r2: float
    """Of the values themselves, unweighted, whatever was minimised."""
    rmse: float
    objective: float
    """What was minimised: the sum over points of squared (relative) residuals."""
    noise: float
    """Standard deviation of a residual, in the residuals' units (relative ones are shares); NaN without freedom."""
    aicc: float
    """Akaike's criterion for few points; infinite where there are too few for it."""
    n_points: int
    n_distinct: int
    leave_out: LeaveOut | None
    """None where a distinct point fewer would leave fewer points than parameters."""
    starts: int
    agree: float
    """Share of the starts that reach the best objective."""
    limits: tuple[str, ...]
    """Coordinates that ran to the edge of what can be told from nothing: `floor to zero`, `alpha to zero`."""
    options: Options
    theta: Array = field(repr=False)
    """Internal coordinates (p,)."""
    centre: Array = field(repr=False)
    resampled: Array = field(repr=False)
    """Internal coordinates of the bootstraps (bootstraps, p); empty where there are none."""
    covariance: Array = field(repr=False)
    """(p, p) of the internal coordinates; NaN where no degree of freedom is left."""

    def __getitem__(self, name: str) -> float:
        """A parameter's value by its name."""
        return next(parameter.value for parameter in self.parameters if parameter.name == name)

    def predict(self, axes: Sequence[Array]) -> Array:
        """Values at the axes of the form, given as arrays of one shape (m,)."""
        return self.form.value(self.theta, self._centred(axes))

    def band(self, axes: Sequence[Array]) -> tuple[Array, Array] | None:
        """Lower and upper ends (m,) of the interval of the curve; None where there is none."""
        if not len(self.resampled):
            return None
        lo, hi = np.quantile(self.draws(axes), ends(self.options.interval), axis=0)
        return lo, hi

    def draws(self, axes: Sequence[Array]) -> Array:
        """(bootstraps, m): what each bootstrap says of the curve there."""
        return self.form.value(self.resampled, self._centred(axes))

    def _centred(self, axes: Sequence[Array]) -> Array:
        return log_axes(self.form.axes, axes) - self.centre


def ends(interval: float) -> tuple[float, float]:
    """The two quantiles between which a share `interval` lies."""
    return 0.5 - interval / 2, 0.5 + interval / 2


def fit(form: Form, points: Points, options: Options | None = None) -> Law:
    """The best fit of `form` to the points, lower values being better.

    Raises ValueError where a value is not finite, an axis is not positive, or there are fewer than two
    distinct points. Fewer points than parameters do fit - exactly, and mean nothing: see `laws.trust.verdict`.
    """
    options = options or Options()
    _check(form, points)
    logs = points.logs(form.axes)
    centre = np.where([axis == "family" for axis in form.axes], 0.0, logs.mean(axis=0))
    u = logs - centre
    relative = options.loss == "relative"
    if relative and not (points.y > 0).all():
        raise ValueError("relative residuals need positive values")
    weights = 1 / points.y**2 if relative else np.ones(len(points))
    problem = _Problem(form=form, u=u, spread=1.0 if relative else _spread(points.y))
    rng = np.random.default_rng(options.seed)
    lower, upper = _bounds(form, points.y)
    first = _starts(form, points.y, options.starts, rng)
    reached, cost = _minimise(problem, first, points.y, weights, (lower, upper))
    order = np.argsort(cost)
    theta, best = _polish(problem, reached[order[:3]], points.y, weights, (lower, upper))
    residuals = points.y - form.value(theta, u)
    total = float(((points.y - points.y.mean()) ** 2).sum())
    squares = float((residuals**2).sum())
    objective = float((weights * residuals**2).sum())
    slack = AGREE * (best + 1e-3 * float((weights * (points.y - points.y.mean()) ** 2).sum()) / problem.spread**2)
    cells = _cells(logs)
    noise, covariance = _uncertainty(problem, theta, weights, objective)
    resampled = _bootstrap(problem, theta, objective, weights, (lower, upper), options, rng)
    return Law(
        form=form,
        parameters=_parameters(form, theta, resampled, centre, options.interval),
        r2=1 - squares / total if total > 0 else 0.0,
        rmse=float(np.sqrt(squares / len(points))),
        objective=objective,
        noise=noise,
        aicc=_aicc(len(points), len(theta), objective),
        n_points=len(points),
        n_distinct=len(np.unique(cells)),
        leave_out=_leave_out(problem, reached[order[:4]], theta, points.y, weights, cells, (lower, upper)),
        starts=options.starts,
        agree=float(np.mean(cost <= best + slack)),
        limits=_limits(form, theta, points.y, (lower, upper)),
        options=options,
        theta=theta,
        centre=centre,
        resampled=resampled,
        covariance=covariance,
    )


def _aicc(count: int, parameters: int, objective: float) -> float:
    """Akaike's criterion of Gaussian residuals; their variance is a parameter too."""
    size = parameters + 1
    if count - size - 1 <= 0:
        return np.inf
    variance = max(objective / count, np.finfo(float).tiny)
    return float(count * (np.log(2 * np.pi * variance) + 1) + 2 * size + 2 * size * (size + 1) / (count - size - 1))


def _uncertainty(problem: "_Problem", theta: Array, weights: Array, objective: float) -> tuple[float, Array]:
    size, freedom = len(theta), len(weights) - len(theta)
    if freedom < 1:
        return np.nan, np.full((size, size), np.nan)
    slopes = problem.form.evaluate(theta, problem.u)[1] * np.sqrt(weights)[:, None]
    noise = float(np.sqrt(objective / freedom))
    return noise, np.asarray(noise**2 * np.linalg.pinv(slopes.T @ slopes, hermitian=True), dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class _Problem:
    form: Form
    u: Array
    spread: float
    """Residuals are divided by it, so that tolerances mean the same for every metric."""


def _check(form: Form, points: Points) -> None:
    for axis in form.axes:
        values = points.axis(axis)
        if not (np.isfinite(values) & (values > 0)).all():
            raise ValueError(f"axis {axis!r} holds a value that is not a positive number")
    if not np.isfinite(points.y).all():
        raise ValueError(f"{points.metric} holds a value that is not finite")
    if points.distinct(form.axes) < 2:
        raise ValueError("a law needs at least two distinct points")


def _spread(y: Array) -> float:
    return float(y.std()) or float(np.abs(y).max()) or 1.0


def _starts(form: Form, y: Array, count: int, rng: np.random.Generator) -> Array:
    """(count, p): amplitudes about the range of y, exponents over decades, floors from nothing to the smallest y."""
    spread = max(float(np.ptp(y)), 1e-6 * float(np.abs(y).max()), 1e-300)
    smallest = max(float(y.min()), 1e-3 * spread)
    draw = {
        "amplitude": lambda: np.log(spread) + rng.uniform(np.log(0.03), np.log(3), count),
        "exponent": lambda: rng.uniform(np.log(0.03), np.log(4), count),
        "floor": lambda: np.log(smallest * rng.choice([0.02, 0.3, 0.7, 0.95, 0.999], count)),
        "weight": lambda: rng.uniform(-4, 4, count),
        "signed": lambda: rng.uniform(-1, 1, count),
        "turn": lambda: rng.uniform(-2, 2, count),
        "odds": lambda: rng.uniform(-4, 4, count),
        "ceiling": lambda: np.log(np.abs(y).max()) + rng.uniform(0, 2, count),
    }
    return np.stack([draw[role]() for role in form.roles], axis=1)


_EXPONENT = (np.log(1e-3), np.log(50.0))


def _bounds(form: Form, y: Array) -> tuple[Array, Array]:
    """Bounds of the internal coordinates: wide enough that a parameter at one of them is a finding."""
    largest = np.log(max(float(np.abs(y).max()), 1e-300))
    ranges: dict[Role, tuple[float, float]] = {
        "amplitude": (largest - 30, largest + 9),
        "exponent": _EXPONENT,
        "floor": (largest - 30, largest + 1),
        "weight": (-25.0, 25.0),
        "signed": (-5.0, 5.0),
        "turn": (-15.0, 15.0),
        "odds": (-25.0, 25.0),
        "ceiling": (largest - 3, largest + 5),
    }
    pairs = np.array([ranges[role] for role in form.roles])
    return pairs[:, 0], pairs[:, 1]


def _minimise(
    problem: _Problem, theta: Array, y: Array, weights: Array, bounds: tuple[Array, Array], steps: int = 150
) -> tuple[Array, Array]:
    """Levenberg-Marquardt on a batch: theta (batch, p); y, weights (points,) or (batch, points).

    Returns coordinates (batch, p) and sums of weighted squares (batch,) in units of `spread`.
    """
    lower, upper = bounds
    theta = np.clip(theta, lower, upper)
    batch, size = theta.shape
    y = np.broadcast_to(y, (batch, len(problem.u)))
    root = np.broadcast_to(np.sqrt(weights), y.shape) / problem.spread
    residual, jacobian = _linearise(problem, theta, y, root)
    cost = (residual**2).sum(axis=1)
    damping = np.full(batch, 1e-2)
    still = np.zeros(batch, dtype=int)  # steps in a row without progress
    floor = 1e-30
    diagonal = np.arange(size)
    for _ in range(steps):
        active = np.flatnonzero((still < 3) & (cost > floor))
        if not len(active):
            break
        j, r = jacobian[active], residual[active]
        normal = j.transpose(0, 2, 1) @ j
        slope = (j.transpose(0, 2, 1) @ r[..., None])[..., 0]
        scale = normal[:, diagonal, diagonal]
        ridge = 1e-12 * scale.max(axis=1, keepdims=True) + 1e-30  # a coordinate may have no effect at all
        normal[:, diagonal, diagonal] += damping[active, None] * scale + ridge
        step = np.linalg.solve(normal, -slope[..., None])[..., 0]
        trial = np.clip(theta[active] + np.clip(step, -3, 3), lower, upper)
        new_residual, new_jacobian = _linearise(problem, trial, y[active], root[active])
        with np.errstate(over="ignore"):
            new_cost = (new_residual**2).sum(axis=1)
        better = new_cost < cost[active]
        gain = np.where(better, cost[active] - new_cost, 0.0)
        still[active] = np.where(gain <= 1e-10 * cost[active], still[active] + (better | (damping[active] > 1e6)), 0)
        damping[active] = np.clip(np.where(better, damping[active] / 5, damping[active] * 4), 1e-12, 1e8)
        moved = active[better]
        theta[moved], cost[moved] = trial[better], new_cost[better]
        residual[moved], jacobian[moved] = new_residual[better], new_jacobian[better]
    return theta, cost


def _linearise(problem: _Problem, theta: Array, y: Array, root: Array) -> tuple[Array, Array]:
    with np.errstate(over="ignore", invalid="ignore"):  # a step too far gives infinity, and is refused for it
        value, gradient = problem.form.evaluate(theta, problem.u)
        return (value - y) * root, gradient * root[..., None]


def _polish(
    problem: _Problem, thetas: Array, y: Array, weights: Array, bounds: tuple[Array, Array]
) -> tuple[Array, float]:
    """The best of a few candidates after scipy's trust-region solver; with its sum of squares in units of spread."""
    root = np.sqrt(weights) / problem.spread
    lower, upper = bounds
    best, cost = thetas[0], np.inf
    for theta in thetas:
        inside = np.clip(theta, lower + 1e-9, upper - 1e-9)
        solution = least_squares(
            lambda point: _linearise(problem, point, y, root)[0],
            inside,
            jac=lambda point: _linearise(problem, point, y, root)[1],
            bounds=(lower, upper),
            ftol=1e-14,
            xtol=1e-14,
            gtol=1e-14,
            max_nfev=60,
        )
        for candidate in (theta, solution.x):
            squares = float((_linearise(problem, candidate, y, root)[0] ** 2).sum())
            if squares < cost:
                best, cost = candidate, squares
    return best, cost


def _cells(logs: Array) -> NDArray[np.int64]:
    """The number of the distinct point that each point belongs to."""
    return np.unique(logs.round(12), axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _leave_out(
    problem: _Problem,
    candidates: Array,
    theta: Array,
    y: Array,
    weights: Array,
    cells: NDArray[np.int64],
    bounds: tuple[Array, Array],
) -> LeaveOut | None:
    """Leave each distinct point out in turn; every fit starts from the best few of the full fit."""
    count = int(cells.max()) + 1
    if count - 1 < len(theta):
        return None
    starts = np.concatenate([candidates, theta[None]])
    kept = (cells[None, :] != np.arange(count)[:, None]).astype(float)
    reached, cost = _minimise(
        problem,
        np.repeat(starts[None], count, axis=0).reshape(-1, len(theta)),
        y,
        (kept * weights).repeat(len(starts), 0),
        bounds,
    )
    best = cost.reshape(count, -1).argmin(axis=1)
    thetas = reached.reshape(count, len(starts), -1)[np.arange(count), best]
    predicted = problem.form.value(thetas, problem.u)[cells, np.arange(len(y))]
    means = (kept @ y / kept.sum(axis=1))[cells]
    return LeaveOut(
        rmse=float(np.sqrt(np.mean((y - predicted) ** 2))), null_rmse=float(np.sqrt(np.mean((y - means) ** 2)))
    )


def _bootstrap(
    problem: _Problem,
    theta: Array,
    squares: float,
    weights: Array,
    bounds: tuple[Array, Array],
    options: Options,
    rng: np.random.Generator,
) -> Array:
    """Refits (bootstraps, p) of the fitted values with Gaussian noise of the residuals' size.

    That size is itself drawn from its chi-square distribution: with few points over, it is hardly known,
    and resampling the residuals would give intervals that are far too narrow.
    """
    freedom = len(weights) - len(theta)
    if freedom < 1 or not options.bootstraps:
        return np.empty((0, len(theta)))
    sigma = np.sqrt(squares / rng.chisquare(freedom, options.bootstraps))
    noise = sigma[:, None] * rng.standard_normal((options.bootstraps, len(weights))) / np.sqrt(weights)
    values = problem.form.value(theta, problem.u) + noise
    start = np.repeat(theta[None], options.bootstraps, axis=0)
    return _minimise(problem, start, values, weights, bounds, steps=60)[0]


def _parameters(form: Form, theta: Array, resampled: Array, centre: Array, interval: float) -> tuple[Parameter, ...]:
    values = form.public(theta, centre)
    if not len(resampled):
        return tuple(
            Parameter(name=name, value=float(value), lo=None, hi=None)
            for name, value in zip(form.parameters, values, strict=True)
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # quantiles between infinities; shown as unbounded
        lows, highs = np.quantile(form.public(resampled, centre), ends(interval), axis=0, method="nearest")
    return tuple(
        Parameter(name=name, value=float(value), lo=float(lo), hi=float(hi))
        for name, value, lo, hi in zip(form.parameters, values, lows, highs, strict=True)
    )


def _limits(form: Form, theta: Array, y: Array, bounds: tuple[Array, Array]) -> tuple[str, ...]:
    """What ran to its edge, in words."""
    lower, upper = bounds
    scale = {"amplitude": np.ptp(y), "floor": np.abs(y).max()}
    found = []
    for index, role in enumerate(form.roles):
        name = form.words[index]
        at_zero = theta[index] <= lower[index] + 1e-3
        if role in scale:
            at_zero = at_zero or np.exp(theta[index]) < 1e-4 * scale[role]
        if at_zero:
            found.append(f"{name} runs to zero")
        elif theta[index] >= upper[index] - 1e-3:
            found.append(f"{name} runs to infinity")
    return tuple(found)
