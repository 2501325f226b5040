"""A law as a function of a configuration, axis -> value: its curve, its quantiles over bootstraps, and where it meets
a target."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from laws.fitting import Law
from laws.forms import Array, Axis

Configurations = Mapping[Axis, Array]
"""Axis -> values, of shapes that broadcast together."""
Curve = Callable[[Configurations], Array]
DRAWS = 400
"""Bootstraps that plans are made with at most."""
CHUNK = 2_000_000
"""Values of draws at a time, which bounds the memory."""
HALVINGS = 60


def curve_of(law: Law) -> Curve:
    """The law's own values."""
    return lambda values: _on(law, values, law.predict)


def quantile_of(law: Law, share: float) -> Curve:
    """The value that this share of the bootstraps lies below, at each configuration by itself."""
    few = thinned(law)
    return lambda values: _on(few, values, lambda axes: np.quantile(draws(few, axes), share, axis=0, method="weibull"))


def ends(interval: float) -> tuple[float, float]:
    """The two shares between which an interval of that coverage lies."""
    return 0.5 - interval / 2, 0.5 + interval / 2


def thinned(law: Law, count: int = DRAWS) -> Law:
    """The law with at most so many of its bootstraps."""
    return replace(law, resampled=law.resampled[:count])


def draws(law: Law, axes: list[Array]) -> Array:
    """(bootstraps, m) values at axes of one shape (m,)."""
    step = max(1, CHUNK // max(1, len(law.resampled) * len(law.theta)))
    parts = [law.draws([axis[at : at + step] for axis in axes]) for at in range(0, len(axes[0]), step)]
    return np.concatenate(parts, axis=1)


def _on(law: Law, values: Configurations, function: Callable[[list[Array]], Array]) -> Array:
    """The function of the law's axes, on broadcast configurations of any shape."""
    columns = np.broadcast_arrays(*(np.asarray(values[axis], dtype=float) for axis in law.form.axes))
    return function([column.ravel() for column in columns]).reshape(columns[0].shape)


def meet(curve: Curve, target: float, others: Configurations, lo: float, hi: float, tolerance: float = 1e-10) -> Array:
    """The least D from `lo` to `hi` at which the curve, which falls with D, is at the target or below, by bisection.

    NaN where none is. `tolerance`: the relative width at which the bisection ends.
    """
    shape = np.broadcast_shapes(*(np.shape(value) for value in others.values()))
    below, above = np.full(shape, np.log(lo)), np.full(shape, np.log(hi))
    reaches = curve({**others, "d": np.exp(above)}) <= target
    for _ in range(HALVINGS):
        middle = (below + above) / 2
        enough = curve({**others, "d": np.exp(middle)}) <= target
        above, below = np.where(enough, middle, above), np.where(enough, below, middle)
        if (above - below).max(initial=0.0) < tolerance:
            break
    at_once = curve({**others, "d": np.full(shape, lo)}) <= target
    return np.where(at_once, lo, np.where(reaches, np.exp(above), np.nan))
