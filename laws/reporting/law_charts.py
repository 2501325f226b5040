"""Charts of one law: points and curve, slices, contours, residuals."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from laws.forms import SYMBOLS, Axis
from laws.points import Points, describe, fix, short
from laws.reporting.answers import Answer, value_name
from laws.reporting.charts import (
    Array,
    Band,
    Chart,
    Contours,
    Dash,
    Dots,
    Line,
    Mark,
    Rule,
    Scale,
    levels,
    log_spread,
    plain_scale,
    value_scale,
)
from laws.reporting.palette import LAW, POINT, ordered
from laws.reporting.words import family_name, number, percent
from laws.study import Finding

AXIS_NAMES: dict[str, str] = {
    "n": "N, parameters",
    "d": "D, training pairs",
    "beams": "beams",
    "c": "C, inference FLOPs a query",
}
CHANCE_NAMES = {"cgl_published": "chance of one identifier"}
"""What the line of chance is called, where it is not chance itself."""
MOST_SLICES = 8
SMALL = 1e-3
"""A law below this share of the typical value all but vanishes."""
GRID = 90
"""Points of a curve."""


def common_range(findings: Iterable[Finding]) -> tuple[float, float]:
    """One range of y for charts that stand side by side, chance included where it is near."""
    return log_spread([value for finding in findings for value in _extent(finding.points)])


def value_range(findings: Iterable[Finding]) -> tuple[float, float]:
    """The values themselves, for the colours of surfaces that stand side by side."""
    values = np.concatenate([finding.points.y for finding in findings])
    return float(values.min()), float(values.max())


def curve(answer: Answer, name: str, limits: tuple[float, float]) -> Chart:
    """Points with intervals, and the fitted curve with its band, along one axis; rival forms as thin lines."""
    finding = answer.best
    points, axis = finding.points, finding.form.axes[0]
    x = points.axis(axis)
    grid = np.geomspace(x.min() / 1.25, x.max() * 1.25, GRID)
    marks: list[Mark] = []
    rivals = [one for one in answer.rivals if one.points.quantity == points.quantity]
    for one, width in ((finding, 1.7), *((rival, 0.9) for rival in rivals)):
        marks += _curves(one, grid, width, several=len(rivals) > 0)
    marks += [_measured(points, finding, x, name="measured" if rivals else "")]
    marks += _chance(points)
    about = ", ".join(filter(None, (family_name(finding.group.family), answer.held)))
    return Chart(
        name=name,
        title=about,
        alt=f"{answer.title}, {about}: {len(points)} points and the fitted curve. {finding.verdict.word}: "
        f"{finding.verdict.reason}.",
        x=value_scale(AXIS_NAMES[axis], x, short),
        y=loss_scale(finding, limits),
        marks=tuple(marks),
    )


def _curves(finding: Finding, grid: Array, width: float, several: bool) -> Iterable[Mark]:
    law = finding.law
    if law is None:
        return
    is_rival = width < 1
    name = finding.form.name if several else ""
    if not is_rival and (band := law.band([grid])) is not None:
        yield Band(x=grid, lo=band[0], hi=band[1], colour=LAW, belongs_to=name)
    yield Line(
        x=grid,
        y=law.predict([grid]),
        colour="c2" if is_rival else LAW,
        dash=dash_of(finding),
        width=width,
        name=name,
        hover=f"{finding.form.name} law",
    )


def slices(finding: Finding, name: str, limits: tuple[float, float]) -> Chart:
    """Points and the law along one axis of several, a curve for each value of a second, the others held."""
    assert finding.law is not None
    law, axes = finding.law, finding.form.axes
    along, by = _directions(finding)
    points, held = _cut(finding, (along, by))
    x, of = points.axis(along), points.axis(by)
    values = _thinned(np.unique(of))
    grid = np.geomspace(x.min() / 1.25, x.max() * 1.25, GRID)
    marks: list[Mark] = []
    for value, colour in zip(values, ordered(len(values)), strict=True):
        title = f"{SYMBOLS[by]} {short(value)}"
        columns = [grid if axis == along else np.full(GRID, value if axis == by else held[axis]) for axis in axes]
        if (band := law.band(columns)) is not None:
            marks.append(Band(x=grid, lo=band[0], hi=band[1], colour=colour, belongs_to=title))
        marks.append(
            Line(
                x=grid,
                y=law.predict(columns),
                colour=colour,
                dash=dash_of(finding),
                width=1.2,
                belongs_to=title,
                hover=f"law, {title}",
            )
        )
        mine = points.where(of == value)
        marks.append(_measured(mine, finding, mine.axis(along), colour=colour, name=title, size=4.2))
    marks += _chance(points)
    about = ", ".join(filter(None, (family_name(finding.group.family), describe({**finding.held, **held}))))
    return Chart(
        name=name,
        title=about,
        alt=f"{finding.title}: {value_name(finding)} along {SYMBOLS[along]}, a curve for each of {len(values)} "
        f"values of {SYMBOLS[by]}, with the measured points.",
        x=value_scale(AXIS_NAMES[along], x, short),
        y=loss_scale(finding, limits),
        marks=tuple(marks),
    )


def contours(finding: Finding, name: str, limits: tuple[float, float]) -> Chart:
    """Lines of equal loss of a fitted law over N and D, and the points coloured by their values on the same scale."""
    assert finding.law is not None
    points, held = _cut(finding, ("n", "d"))
    n = np.geomspace(points.n.min() / 1.6, points.n.max() * 1.6, 36)
    d = np.geomspace(points.d.min() / 1.6, points.d.max() * 1.6, 36)
    columns, rows = np.meshgrid(n, d)
    flat = {"n": columns.ravel(), "d": rows.ravel()}
    given = [flat.get(axis, np.full(columns.size, held.get(axis, 0.0))) for axis in finding.form.axes]
    factor, unit = unit_of(limits)
    z = finding.law.predict(given).reshape(columns.shape) * factor
    lines = levels(float(points.y.min()) * factor, float(points.y.max()) * factor)
    about = ", ".join(filter(None, (family_name(finding.group.family), describe({**finding.held, **held}))))
    return Chart(
        name=name,
        title=f"{about}, {value_name(finding)}{unit}",
        alt=f"{finding.title}: lines of equal {value_name(finding)} over N and D, and the {len(points)} points.",
        x=value_scale(AXIS_NAMES["n"], [*points.n, n[0], n[-1]][: len(points)], short, margin=1.6),
        y=value_scale(AXIS_NAMES["d"], points.d, short, margin=1.6),
        marks=(
            Contours(x=n, y=d, z=z, levels=lines, name=value_name(finding)),
            Dots(x=points.n, y=points.d, shades=points.y * factor, size=7, hover=told(points, finding)),
        ),
        shades=(limits[0] * factor, limits[1] * factor),
    )


def residuals(finding: Finding, name: str) -> Chart | None:
    """How far each point lies from its law, in per cent, along the first axis; coloured by the second.

    None where all values are zero.
    """
    law, points, axes = finding.law, finding.points, finding.form.axes
    assert law is not None
    curve = law.predict([points.axis(axis) for axis in axes])
    typical = float(np.abs(points.y).mean())
    if typical == 0:
        return None
    # of the law itself, unless that all but vanishes somewhere: then of the mean
    whole = curve if curve.min() > SMALL * typical else np.full(len(points), typical)
    off = 100 * (points.y - curve) / whole
    scatter = 100 * float(np.sqrt(np.mean(((points.y - curve) / whole) ** 2)))
    along, x = axes[0], points.axis(axes[0])
    reach = off
    across = np.array([x.min() / 1.6, x.max() * 1.6])
    marks: list[Mark] = [
        Band(x=across, lo=np.full(2, -scatter), hi=np.full(2, scatter), colour="muted"),
        Rule(at=0.0, colour="ink", dash="solid"),
    ]
    if len(axes) == 1:
        lo, hi = (None if end is None else 100 * (end - curve) / whole for end in (points.lo, points.hi))
        marks.append(Dots(x=x, y=off, lo=lo, hi=hi, colour=POINT, hover=told(points, finding)))
        reach = np.concatenate([off, *(end for end in (lo, hi) if end is not None)])
    else:
        marks += _by_second_axis(finding, off)
    return Chart(
        name=name,
        title=f"Residuals, {family_name(finding.group.family)}",
        alt=f"{finding.title}: residuals in per cent along {SYMBOLS[along]}; the root of their mean square is "
        f"{scatter:.2g}%.",
        x=value_scale(AXIS_NAMES[along], x, short),
        y=plain_scale("measured − law, %", _around_zero(reach, scatter), is_log=False),
        marks=tuple(marks),
    )


def _by_second_axis(finding: Finding, off: Array) -> Iterable[Dots]:
    points, (along, by) = finding.points, finding.form.axes[:2]
    of = points.axis(by)
    values = np.unique(of)
    hover = told(points, finding)
    # side by side: seeds and budgets of one size stand on one spot
    shift = np.linspace(-1, 1, len(values)) * 0.035 * math.log(points.axis(along).max() / points.axis(along).min())
    colours = ordered(min(len(values), MOST_SLICES))
    for index, value in enumerate(values):
        mine = of == value
        yield Dots(
            x=points.axis(along)[mine] * math.exp(shift[index]),
            y=off[mine],
            colour=colours[index * len(colours) // len(values)],
            size=4.2,
            name=f"{SYMBOLS[by]} {short(value)}" if len(values) <= MOST_SLICES else "",
            hover=tuple(line for line, stays in zip(hover, mine, strict=True) if stays),
        )


def _around_zero(off: Array, scatter: float) -> tuple[float, float]:
    most = max(float(np.abs(off[np.isfinite(off)]).max()), scatter, 0.1) * 1.12
    return -most, most


def told(points: Points, finding: Finding) -> tuple[str, ...]:
    """What is said of each point where one points at it."""
    law = finding.law.predict([points.axis(axis) for axis in finding.form.axes]) if finding.law else None
    columns = {SYMBOLS[axis]: getattr(points, axis) for axis in ("n", "d", "beams", "c")}
    lines = []
    for index in range(len(points)):
        where = (
            f"{name} {short(column[index])}"
            for name, column in columns.items()
            if column is not None and math.isfinite(column[index])
        )
        line = ", ".join(where) + f"<br>{value_name(finding)} {number(float(points.y[index]))}"
        if points.lo is not None and points.hi is not None and math.isfinite(points.lo[index]):
            line += f" ({number(float(points.lo[index]), 3)} to {number(float(points.hi[index]), 3)})"
        if law is not None:
            line += f"<br>law {number(float(law[index]))}"
            line += f", {percent(float(points.y[index] / law[index] - 1), 2)}" if law[index] > 0 else ""
        lines.append(line)
    return tuple(lines)


def dash_of(finding: Finding) -> Dash:
    """How its curve is drawn: solid where the verdict is at least `weak`."""
    return "solid" if finding.verdict.word in ("supported", "weak") else "dash"


def loss_scale(finding: Finding, limits: tuple[float, float]) -> Scale:
    """The axis of a fitted value; small losses are written in thousandths."""
    factor, unit = unit_of(limits)
    return plain_scale(value_name(finding) + unit, limits, factor)


def unit_of(limits: tuple[float, float]) -> tuple[float, str]:
    """What values are multiplied by on the figure, and how that is written: small losses are shown in thousandths."""
    return (1000.0, " × 1000") if 0 < limits[1] < 0.05 else (1.0, "")


def _measured(
    points: Points, finding: Finding, x: Array, *, colour: str = POINT, name: str = "", size: float = 5.0
) -> Dots:
    hover = told(points, finding)
    return Dots(x=x, y=points.y, lo=points.lo, hi=points.hi, colour=colour, name=name, size=size, hover=hover)


def _chance(points: Points) -> list[Mark]:
    if math.isfinite(points.chance) and points.chance < 2 * points.y.max():
        return [Rule(at=points.chance, text=CHANCE_NAMES.get(points.metric, "chance"))]
    return []


def _extent(points: Points) -> list[float]:
    sides = [points.y] + [end for end in (points.lo, points.hi) if end is not None]
    values = [float(value) for side in sides for value in side if math.isfinite(value) and value > 0]
    if math.isfinite(points.chance) and points.chance < 2 * max(values, default=0.0):
        values.append(points.chance)
    return values or [0.1, 1.0]


def _directions(finding: Finding) -> tuple[Axis, Axis]:
    """The axis to draw along, and the one with a curve a value."""
    axes = finding.form.axes
    along = next((axis for axis in axes if axis in ("beams", "c")), axes[0])
    return along, next(axis for axis in axes if axis != along)


def _cut(finding: Finding, free: Sequence[Axis]) -> tuple[Points, dict[Axis, float]]:
    """The points where all axes but two are held, and at what those of the form are."""
    points, held = fix(finding.points, free)
    return points, {axis: value for axis, value in held.items() if axis in finding.form.axes}


def _thinned(values: Array) -> Array:
    if len(values) <= MOST_SLICES:
        return values
    return values[np.linspace(0, len(values) - 1, MOST_SLICES).round().astype(int)]
