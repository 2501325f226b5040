"""Which configurations are allowed: ranges, fixed values and choices of N, D and the inference budget, and a latency.

Written as `--where "N<=7e9, D=588800, beams=1|4|16, latency_ms<=50"`; `N=measured` allows only sizes that the points
have.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from laws.forms import SYMBOLS, Array, Axis
from laws.planning.costs import Costs
from laws.points import Points

NAMES: dict[str, Axis] = {"n": "n", "d": "d", "beams": "beams", "c": "c"}
"""How axes are written on the command line, in small letters."""
LATENCY = "latency_ms"
MEASURED = "measured"
SMALLER, LARGER = 1e-3, 1e6
"""N is looked for from this share of the smallest measured to this multiple of the largest."""
WIDER = 10.0
"""The inference budget is looked for up to this multiple of the largest measured."""


class BadQuestion(ValueError):
    """What the command line asks cannot be asked. One line."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """Values that an axis may have: all from `lo` to `hi`, or only `choices`."""

    lo: float
    hi: float
    choices: tuple[float, ...] = ()

    @property
    def is_free(self) -> bool:
        """Whether it is more than a list of values."""
        return not self.choices

    def grid(self, count: int) -> Array:
        """The choices, or so many values evenly spaced in the logarithm."""
        if self.choices:
            return np.array(self.choices)
        return np.geomspace(self.lo, self.hi, count) if self.hi > self.lo else np.array([self.lo])


@dataclass(frozen=True, kw_only=True)
class Where:
    """What the user asks of configurations. Axes that are not named are free."""

    least: Mapping[Axis, float] = field(default_factory=dict)
    most: Mapping[Axis, float] = field(default_factory=dict)
    choices: Mapping[Axis, tuple[float, ...]] = field(default_factory=dict)
    measured: tuple[Axis, ...] = ()
    latency_ms: float = math.inf

    def fixed(self, axis: Axis, value: float) -> "Where":
        """The same with one value of an axis, where nothing is asked of it yet."""
        asked = {*self.least, *self.most, *self.choices, *self.measured}
        return self if axis in asked else replace(self, choices={**self.choices, axis: (value,)})


@dataclass(frozen=True, kw_only=True)
class Space:
    """Ranges of a law's axes, and what a query may take."""

    ranges: Mapping[Axis, Range]
    latency_ms: float = math.inf

    @property
    def gain(self) -> Axis | None:
        """The axis of the inference budget, where the law has one."""
        axes: tuple[Axis, ...] = ("beams", "c")
        return next((axis for axis in axes if axis in self.ranges), None)

    def within(self, bounds: Mapping[Axis, tuple[float, float]], budgets: int) -> "Space":
        """The part with N and the inference budget between bounds, and at most so many choices of the budget."""
        ranges = dict(self.ranges)
        for axis in bounds.keys() & {"n", self.gain}:
            width, (lo, hi) = self.ranges[axis], bounds[axis]
            lo, hi = max(width.lo, lo), min(width.hi, hi)
            choices = tuple(value for value in width.choices if lo <= value <= hi)
            if axis == self.gain:
                values = np.array(choices) if choices else np.geomspace(lo, hi, budgets)
                kept = np.unique(np.linspace(0, len(values) - 1, budgets).round().astype(int))
                choices = tuple(float(value) for value in values[kept])
            ranges[axis] = Range(lo=lo, hi=hi, choices=choices)
        return replace(self, ranges=ranges)

    def allows(self, costs: Costs, values: Mapping[Axis, Array]) -> NDArray[np.bool_]:
        """Whether the latency is allowed, of the shape of the configurations."""
        shape = np.broadcast_shapes(*(np.shape(value) for value in values.values()))
        if math.isinf(self.latency_ms):
            return np.ones(shape, dtype=bool)
        assert costs.latency is not None
        return np.broadcast_to(costs.latency.at(values) <= self.latency_ms, shape)


def make_space(where: Where, points: Points, axes: Sequence[Axis], costs: Costs) -> Space:
    """The space of a law's axes about its points.

    Raises:
        BadQuestion: nothing is left, or there is no latency to hold to.
    """
    if math.isfinite(where.latency_ms) and costs.latency is None:
        raise BadQuestion(f"--where {LATENCY}: no latency was measured, so none can be promised")
    asked = {*where.least, *where.most, *where.choices, *where.measured} - set(axes)
    if asked:
        names = ", ".join(sorted(SYMBOLS.get(axis, axis) for axis in asked))
        raise BadQuestion(f"--where {names}: the law does not have that axis")
    return Space(ranges={axis: _range(where, points, axis) for axis in axes}, latency_ms=where.latency_ms)


def _range(where: Where, points: Points, axis: Axis) -> Range:
    values = np.unique(points.axis(axis))
    name = SYMBOLS.get(axis, axis)
    lo, hi = where.least.get(axis, 0.0), where.most.get(axis, math.inf)
    choices = where.choices.get(axis, ())
    if axis in where.measured:
        choices = tuple(float(value) for value in values)
    if choices:
        choices = tuple(value for value in choices if lo <= value <= hi)
        if not choices:
            raise BadQuestion(f"--where {name}: no value is left")
        return Range(lo=min(choices), hi=max(choices), choices=choices)
    wide = {"n": (SMALLER, LARGER), "d": (0.0, math.inf), "beams": (0.0, WIDER), "c": (SMALLER, WIDER)}[axis]
    lo = lo or (1.0 if axis in ("d", "beams") else float(values[0]) * wide[0])
    hi = hi if math.isfinite(hi) else float(values[-1]) * wide[1]
    if lo > hi:
        raise BadQuestion(f"--where {name}: no value is left between {lo:g} and {hi:g}")
    if axis == "beams":
        return Range(lo=lo, hi=hi, choices=tuple(_whole(lo, hi)))
    return Range(lo=lo, hi=hi)


def _whole(lo: float, hi: float) -> list[float]:
    """Whole numbers from lo to hi: all the small ones, then about 3% apart."""
    first, last = math.ceil(lo), math.floor(hi)
    if first > last:
        raise BadQuestion(f"--where beams: no whole number is left between {lo:g} and {hi:g}")
    found = [float(first)]
    while found[-1] < last:
        found.append(float(min(last, max(found[-1] + 1, round(found[-1] * 1.03)))))
    return found


# ---------------------------------------------------------------- what the command line says

_CONDITION = re.compile(r"^\s*([A-Za-z_]+)\s*(<=|>=|=)\s*(.+?)\s*$")


def read_where(text: str) -> Where:
    """`N<=7e9, D=588800, beams=1|4|16, latency_ms<=50`.

    Raises:
        BadQuestion: one line that names the part.
    """
    where = Where()
    for part in filter(str.strip, text.split(",")):
        found = _CONDITION.match(part)
        if not found:
            raise BadQuestion(f"--where {part.strip()}: write it as N<=7e9, D=588800 or beams=1|4|16")
        name, sign, value = found.groups()
        if name.lower() == LATENCY:
            if sign != "<=":
                raise BadQuestion(f"--where {part.strip()}: write it as {LATENCY}<=50")
            where = replace(where, latency_ms=_number("--where", LATENCY, value))
            continue
        axis = _axis("--where", name)
        if value.lower() == MEASURED and sign == "=":
            where = replace(where, measured=(*where.measured, axis))
        elif sign == "=":
            choices = tuple(sorted({_number("--where", name, one) for one in value.split("|")}))
            where = replace(where, choices={**where.choices, axis: choices})
        elif sign == "<=":
            where = replace(where, most={**where.most, axis: _number("--where", name, value)})
        else:
            where = replace(where, least={**where.least, axis: _number("--where", name, value)})
    return where


def read_point(option: str, text: str) -> dict[Axis, float]:
    """`N=7e9,D=588800,beams=100` as axis -> value.

    Raises:
        BadQuestion: one line that names the option and the part.
    """
    point: dict[Axis, float] = {}
    for part in filter(str.strip, text.split(",")):
        found = _CONDITION.match(part)
        if not found or found[2] != "=":
            raise BadQuestion(f"{option} {part.strip()}: write it as N=7e9,D=588800,beams=100")
        axis = _axis(option, found[1])
        if axis in point:
            raise BadQuestion(f"{option} {found[1]}: stands there twice")
        point[axis] = _number(option, found[1], found[3])
    if not point:
        raise BadQuestion(f"{option}: names no point; write it as N=7e9,D=588800,beams=100")
    return point


def _axis(option: str, name: str) -> Axis:
    axis = NAMES.get(name.lower())
    if axis is None:
        raise BadQuestion(
            f"{option} {name}: unknown; there are N, D, beams, C" + (f" and {LATENCY}" if option == "--where" else "")
        )
    return axis


def _number(option: str, name: str, text: str) -> float:
    try:
        value = float(text.replace("_", ""))
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise BadQuestion(f"{option} {name}: {text!r} is not a positive number")
    return value
