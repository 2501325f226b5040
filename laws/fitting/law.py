"""A fitted form: its parameters, how well it fits, and what it predicts."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from laws.fitting.options import Options
from laws.forms import Array, Form, log_axes


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
    predicted: Array = field(repr=False)
    """(points,): each point by the law that was fitted without it."""
    null: Array = field(repr=False)
    """(points,): the mean of the others."""

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
    """What was minimised: the sum over points of squared residuals, of relative ones, or of Huber's loss."""
    noise: float
    """Standard deviation of a residual in its own units (relative and logarithmic ones are shares); NaN if unknown."""
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
    """Coordinates that ran to the edge of what can be told from nothing: `the floor E runs to zero`."""
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
        lo, hi = between(self.draws(axes), self.options.interval)
        return lo, hi

    def draws(self, axes: Sequence[Array]) -> Array:
        """(bootstraps, m): what each bootstrap says of the curve there."""
        return self.form.value(self.resampled, self._centred(axes))

    def _centred(self, axes: Sequence[Array]) -> Array:
        return log_axes(self.form.axes, axes) - self.centre


def ends(interval: float) -> tuple[float, float]:
    """The quantiles between which a share `interval` lies."""
    return 0.5 - interval / 2, 0.5 + interval / 2


def between(draws: Array, interval: float) -> Array:
    """(2, ...) the ends between which a share `interval` of further draws is to be expected, from (draws, ...)."""
    quantiles = np.quantile(draws, ends(interval), axis=0, method="weibull")
    return np.asarray(quantiles, dtype=np.float64)
