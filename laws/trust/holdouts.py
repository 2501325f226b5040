"""Hold-outs: a law fitted without the largest N, D, budget or compute, asked to predict what was measured there.

This is what a scaling law is for, and the test that a curve through all points cannot be given.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from scipy.stats import t as t_distribution

from laws.fitting import Law, Options, fit
from laws.fitting.law import between
from laws.forms import SYMBOLS, Array, Axis, Form
from laws.points import Points, short
from laws.trust.residuals import NEGLIGIBLE, at, columns, noise_at

LEAST_VALUES = 3
"""Values that each axis of the form must keep."""
_AXES: dict[str, Axis] = {"N": "n", "D": "d", "beams": "beams", "C": "c"}
STARTS, DRAWS = 16, 100
"""Of the law of the rest: fewer than of the law itself, which says what is reported."""
TOP = 0.2
"""Share of the distinct (N, D) that the hold-out of the largest compute takes."""


@dataclass(frozen=True, kw_only=True)
class HoldOut:
    """What a law fitted to the rest says about the points that were held out."""

    axis: str
    """`N`, `D`, `beams`, `C`, or `compute`."""
    held: tuple[float, ...]
    """The value that was held out; of compute the least and the largest, in FLOPs or in N D where they are unknown."""
    n_train: int
    n_held: int
    predicted: float
    """Mean over the points held out, in the units of the fitted quantity."""
    measured: float
    error: float
    """(predicted - measured) / measured."""
    lo: float | None
    """Of the interval of such a mean: the uncertainty of the curve and the noise of the points; None where unknown."""
    hi: float | None
    p: float | None
    """Chance of an error at least as large, were the law true."""

    @property
    def inside(self) -> bool | None:
        """Whether the measured mean lies in the interval; None where there is none."""
        return None if self.lo is None or self.hi is None else bool(self.lo <= self.measured <= self.hi)

    @property
    def what(self) -> str:
        """`the largest N (460k)`."""
        if self.axis == "compute":
            return f"the largest compute (from {self.held[0]:.3g})"
        return f"the largest {self.axis} ({short(self.held[0])})"


def hold_outs(form: Form, points: Points, options: Options) -> tuple[HoldOut, ...]:
    """One hold-out an axis of the form, and one of compute over N and D; those that leave too little are not there."""
    return tuple(
        _held_out(form, points, axis, held, options)
        for axis, held in _masks(form, points)
        if _leaves_enough(form, points.where(~held))
    )


def compute(points: Points) -> Array:
    """(points,): FLOPs of the training, or N D where they are not known of every point."""
    flops = points.train_flops
    return flops if flops is not None and np.isfinite(flops).all() else points.n * points.d


def _masks(form: Form, points: Points) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    for axis in form.axes:
        if axis != "family":
            values = points.axis(axis)
            yield SYMBOLS[axis], values >= values.max() * (1 - 1e-12)
    if "n" in form.axes and "d" in form.axes:
        flops = compute(points)
        levels = np.unique(flops)
        yield "compute", flops >= levels[-max(1, round(TOP * len(levels)))]


def _leaves_enough(form: Form, rest: Points) -> bool:
    return rest.distinct(form.axes) >= len(form.parameters) and all(
        len(np.unique(rest.axis(axis))) >= LEAST_VALUES for axis in form.axes if axis != "family"
    )


def _held_out(form: Form, points: Points, axis: str, held: NDArray[np.bool_], options: Options) -> HoldOut:
    rest, asked = points.where(~held), points.where(held)
    starts, bootstraps = min(options.starts, STARTS), min(options.bootstraps, DRAWS)
    quick = replace(options, starts=starts, bootstraps=bootstraps, intervals=False)
    law = fit(form, rest, quick)
    predicted, measured = float(at(law, asked).mean()), float(asked.y.mean())
    values = asked.axis(_AXES[axis]) if axis in _AXES else compute(asked)
    spread = _interval(law, asked, predicted, NEGLIGIBLE * float(np.ptp(points.y)))
    lo, hi = spread.ends(predicted, options.interval) if spread else (None, None)
    return HoldOut(
        axis=axis,
        held=tuple(sorted({float(values.min()), float(values.max())})),
        n_train=len(rest),
        n_held=len(asked),
        predicted=predicted,
        measured=measured,
        error=(predicted - measured) / measured if measured else math.inf,
        lo=lo,
        hi=hi,
        p=spread.p(predicted - measured) if spread else None,
    )


def _interval(law: Law, asked: Points, predicted: float, rounding: float) -> "_Spread | None":
    """How far the measured mean may lie from the predicted one; None where the fit leaves no noise to go by."""
    freedom = law.n_points - len(law.parameters)
    if freedom < 1 or not len(law.resampled):
        return None
    at_points = columns(law, asked)
    curve = law.draws(at_points).mean(axis=1)
    noise = noise_at(law, law.predict(at_points))
    # the points of one training share its luck, so only trainings average it out
    own = float(np.sqrt(np.mean(noise**2) / (len(set(asked.run)) or len(asked))))
    low, high = between(curve, law.options.interval)
    width = float(norm.ppf(0.5 + law.options.interval / 2))
    return _Spread(
        below=math.hypot(max(predicted - low, 0) / width, own, rounding),
        above=math.hypot(max(high - predicted, 0) / width, own, rounding),
        freedom=freedom,
    )


@dataclass(frozen=True, kw_only=True)
class _Spread:
    """Standard deviations below and above the prediction, and the degrees of freedom that they come from."""

    below: float
    above: float
    freedom: int

    def ends(self, predicted: float, interval: float) -> tuple[float, float]:
        """Of the interval about the prediction."""
        width = float(t_distribution.ppf(0.5 + interval / 2, self.freedom))
        return predicted - width * self.below, predicted + width * self.above

    def p(self, error: float) -> float:
        """Chance of a measured mean at least as far off, on either side; `error` is predicted - measured."""
        sd = self.below if error > 0 else self.above
        return 2 * float(t_distribution.sf(abs(error) / sd, self.freedom)) if sd > 0 else float(error == 0)
