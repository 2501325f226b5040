"""Figures as plain data: what is drawn, not how. `drawn` makes SVG and PNG of a chart, `interactive` makes a page's.

Colours are names of `palette`. Arrays of a mark have equal length; NaN ends of an interval are not drawn.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Dash = Literal["solid", "dash", "dot"]
Writer = Callable[[float], str]
"""How a tick is written."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """One axis of a chart."""

    title: str
    limits: tuple[float, float]
    ticks: tuple[tuple[float, str], ...]
    """Where, and what is written there."""
    is_log: bool = True


@dataclass(frozen=True, kw_only=True)
class Dots:
    """Points, with intervals where both ends are given."""

    x: Array
    y: Array
    lo: Array | None = None
    hi: Array | None = None
    colour: str = "c0"
    shades: Array | None = None
    """In place of one colour: values on the chart's colour scale."""
    symbol: str = "circle"
    """circle, square, diamond, triangle or star."""
    is_hollow: bool = False
    size: float = 5.0
    name: str = ""
    """In the legend; empty: not there."""
    hover: tuple[str, ...] = ()
    """What is told of each point, lines separated by <br>; its coordinates where empty."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A curve, drawn in the order given."""

    x: Array
    y: Array
    colour: str = "c1"
    dash: Dash = "solid"
    width: float = 1.6
    name: str = ""
    belongs_to: str = ""
    """The entry of the legend that shows and hides it too; its own name where empty."""
    hover: str = ""
    """What it is called where one points at it; its name where empty."""


@dataclass(frozen=True, kw_only=True)
class Band:
    """What lies between two curves."""

    x: Array
    lo: Array
    hi: Array
    colour: str = "c1"
    belongs_to: str = ""
    """The entry of the legend that shows and hides it too."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A straight line across the chart at one value of an axis, with its name at the end."""

    at: float
    axis: Literal["x", "y"] = "y"
    text: str = ""
    colour: str = "muted"
    dash: Dash = "dot"


@dataclass(frozen=True, kw_only=True)
class Contours:
    """Lines of equal value of a surface, filled below: x (columns,), y (rows,), z (rows, columns)."""

    x: Array
    y: Array
    z: Array
    levels: tuple[float, ...]
    """Evenly spaced."""
    name: str
    """Of the value."""


Mark = Dots | Line | Band | Rule | Contours


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One figure."""

    name: str
    """Of its files: letters, digits and dashes."""
    title: str
    alt: str
    """What it shows, for those who cannot see it."""
    x: Scale
    y: Scale
    marks: tuple[Mark, ...]
    shades: tuple[float, float] | None = None
    """Ends of the colour scale of contours and of dots with shades."""

    @property
    def legend(self) -> tuple[str, ...]:
        """Names in the legend, in the order of the marks."""
        found = (mark.name for mark in self.marks if isinstance(mark, Dots | Line) and mark.name)
        return tuple(dict.fromkeys(found))


def value_scale(title: str, values: Iterable[float], write: Writer, margin: float = 1.35, most: int = 7) -> Scale:
    """A logarithmic axis with ticks at the values themselves, thinned where they would touch.

    Args:
        margin: factor of room beyond the values at both ends.
        most: ticks that have room.
    """
    known = np.unique([value for value in values if math.isfinite(value) and value > 0])
    if not len(known):
        known = np.array([1.0])
    lo, hi = float(known[0]) / margin, float(known[-1]) * margin
    least = math.log(hi / lo) / most
    kept: list[float] = []
    for value in known[::-1]:
        if not kept or math.log(kept[-1] / value) > least:
            kept.append(float(value))
    return Scale(title=title, limits=(lo, hi), ticks=tuple((value, write(value)) for value in reversed(kept)))


def plain_scale(title: str, limits: tuple[float, float], factor: float = 1.0, is_log: bool = True) -> Scale:
    """Few round numbers, on a logarithmic axis that may span less than a decade, or on a linear one.

    Args:
        factor: what values are multiplied by where they are written.
    """
    lo, hi = limits
    if is_log and lo > 0 and hi / lo > 30:
        ticks = [(tick, f"{tick * factor:.5g}") for tick in decades(lo, hi)]
    else:
        found = rounds(lo, hi)
        step = (found[1] - found[0]) * factor if len(found) > 1 else 1.0
        places = next(count for count in range(16) if abs(round(step, count) - step) < 1e-3 * step)
        ticks = [(tick, f"{tick * factor + 0.0:.{places}f}") for tick in found]
    written = tuple((tick, text.replace("-", "−")) for tick, text in ticks)
    return Scale(title=title, limits=limits, ticks=written, is_log=is_log)


def decade_scale(title: str, limits: tuple[float, float], write: Writer) -> Scale:
    """A logarithmic axis over decades: at most eight powers of ten."""
    ticks = tuple((tick, write(tick)) for tick in decades(*limits))
    return Scale(title=title, limits=limits, ticks=ticks)


def ratio_scale(title: str, limits: tuple[float, float]) -> Scale:
    """A logarithmic axis of ratios about one: ticks at 1, and at round ratios below and above."""
    width = limits[1]
    steps = next(step for most, step in ((1.5, 1.1), (2.2, 1.25), (5.0, 2.0), (math.inf, 10.0)) if width <= most)
    powers = range(-5, 6)
    ticks = [steps**power for power in powers if limits[0] < steps**power < limits[1]]
    return Scale(title=title, limits=limits, ticks=tuple((tick, f"{tick:.3g}") for tick in ticks))


def rounds(lo: float, hi: float, most: int = 6) -> list[float]:
    """Round numbers within the range, about `most` of them."""
    raw = (hi - lo) / most or 1.0
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * unit for unit in (1, 2, 2.5, 5, 10) if power * unit >= raw * (1 - 1e-9))
    first, last = math.ceil(lo / step - 1e-9), math.floor(hi / step + 1e-9)
    return [round(index * step, 12 - math.floor(math.log10(step))) for index in range(first, last + 1)]


def levels(lo: float, hi: float, most: int = 7) -> tuple[float, ...]:
    """Evenly spaced round values of contours, from just below the range to just above it; two or more."""
    found = rounds(lo, hi, most) or [lo]
    step = found[1] - found[0] if len(found) > 1 else max(hi - lo, 0.1 * abs(lo), 1e-9)
    return (found[0] - step, *found, found[-1] + step)


def decades(lo: float, hi: float, most: int = 8) -> list[float]:
    """Powers of ten within the range, with 2 and 5 of each where few fit."""
    first, last = math.ceil(math.log10(lo) - 1e-9), math.floor(math.log10(hi) + 1e-9)
    step = max(1, math.ceil((last - first + 1) / most))
    powers = [10.0**exponent for exponent in range(first, last + 1, step)]
    if len(powers) >= 3:
        return powers
    fine = [unit * 10.0**exponent for exponent in range(first - 1, last + 1) for unit in (1, 2, 5)]
    return [value for value in fine if lo * (1 - 1e-9) <= value <= hi * (1 + 1e-9)]


def power_of_ten(value: float) -> str:
    """A tick over decades: 10⁻³, 2·10⁹."""
    exponent = math.floor(math.log10(value) + 1e-9)
    unit = round(value / 10.0**exponent)
    raised = "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return raised if unit == 1 else f"{unit}·{raised}"


def arms(mark: Dots) -> Array | None:
    """Lengths (2, points) of the intervals' arms below and above: none where an end is unknown."""
    if mark.lo is None or mark.hi is None:
        return None
    ends = np.stack([mark.y - mark.lo, mark.hi - mark.y])
    return np.nan_to_num(np.clip(ends, 0, None))


def spread(values: Sequence[float] | Array, room: float = 0.08) -> tuple[float, float]:
    """A linear range around the values with a margin of `room` of it."""
    known = np.asarray(values, dtype=float)
    known = known[np.isfinite(known)]
    if not len(known):
        return (-1.0, 1.0)
    lo, hi = float(known.min()), float(known.max())
    margin = room * (hi - lo) or 0.05 * abs(hi) or 1.0
    return lo - margin, hi + margin


def log_spread(values: Sequence[float] | Array) -> tuple[float, float]:
    """A range for a logarithmic axis around the positive values; a linear one where they hardly differ."""
    known = np.asarray(values, dtype=float)
    known = known[np.isfinite(known) & (known > 0)]
    if not len(known):
        return (0.1, 1.0)
    lo, hi = float(known.min()), float(known.max())
    if hi / lo > 1.05:
        return lo / (hi / lo) ** 0.06, hi * (hi / lo) ** 0.08
    lower, upper = spread(known)
    return max(lower, lo / 2), upper
