"""Charts of plans: where equal FLOPs and equal quality lie, what is best for a budget, training against inference."""

from collections.abc import Iterator

import numpy as np

from laws.forms import SYMBOLS, Axis
from laws.planning.planner import Optimum
from laws.points import describe, short
from laws.reporting.answers import value_name
from laws.reporting.charts import (
    Array,
    Band,
    Chart,
    Contours,
    Dots,
    Line,
    Mark,
    Scale,
    decade_scale,
    levels,
    log_spread,
    plain_scale,
    power_of_ten,
)
from laws.reporting.law_charts import AXIS_NAMES, told, unit_of
from laws.reporting.palette import LAW, ordered
from laws.reporting.plans import Level, Plan, gain_of, train_flops
from laws.reporting.words import number

GRID = 40
CURVES = 5
"""Budgets of which a line is drawn."""
TRAINING = "training FLOPs"
ROOM = 1.5


def allocation(plan: Plan, name: str) -> Chart:
    """Lines of equal loss and of equal training FLOPs over N and D, and the best of each budget."""
    points, best = plan.by.points, plan.frontier
    ends = {axis: _ends([*points.axis(axis), *_values(best, axis)]) for axis in ("n", "d")}
    n, d = (np.geomspace(*ends[axis], GRID) for axis in ("n", "d"))
    columns, rows = np.meshgrid(n, d)
    z = _predict(plan, columns.ravel(), rows.ravel()).reshape(columns.shape)
    factor, unit = unit_of((0.0, float(points.y.max())))
    lines = levels(float(z.min()) * factor, float(np.quantile(z, 0.97)) * factor, 9)
    marks: list[Mark] = [
        Contours(x=n, y=d, z=z * factor, levels=lines, name=_label(plan)),
        *_budget_lines(plan, n, ends["d"]),
        _trained(plan),
        Line(x=_values(best, "n"), y=_values(best, "d"), colour=LAW, width=2.0, name="best for a budget"),
        Dots(
            x=_values(best, "n"),
            y=_values(best, "d"),
            colour=LAW,
            size=4.5,
            symbol="diamond",
            hover=tuple(_told(plan, one) for one in best),
        ),
    ]
    return Chart(
        name=name,
        title=f"{_about(plan)}: {_label(plan)}{unit}",
        alt=f"Lines of equal {_label(plan)} and of equal training FLOPs over N and D, with the best N and D for "
        f"budgets from {_flops(best[0])} to {_flops(best[-1])} FLOPs.",
        x=decade_scale(AXIS_NAMES["n"], ends["n"], short),
        y=decade_scale(AXIS_NAMES["d"], ends["d"], short),
        marks=tuple(marks),
        shades=(lines[0], lines[-1]),
    )


def _trained(plan: Plan) -> Dots:
    """Each N and D once, whatever the seeds and budgets."""
    n, d = np.unique(np.stack([plan.by.points.n, plan.by.points.d]), axis=1)
    hover = tuple(f"trained: N {short(size)}, D {short(scale)}" for size, scale in zip(n, d, strict=True))
    return Dots(x=n, y=d, colour="ink", size=3.2, name="trained", hover=hover)


def _budget_lines(plan: Plan, n: Array, ends: tuple[float, float]) -> Iterator[Line]:
    """D over N at equal training FLOPs, where it lies within the chart."""
    for one in _some(plan):
        d = one.best.train_flops / plan.costs.per_pair(n)
        inside = (d >= ends[0]) & (d <= ends[1])
        if inside.sum() > 1:
            yield Line(
                x=n[inside], y=d[inside], colour="muted", dash="dash", width=0.9, hover=f"{_flops(one)} FLOPs, D for N",
            )  # fmt: skip


def equal_flops(plan: Plan, name: str) -> Chart:
    """The loss over N where D takes what is left of a budget, a curve a budget; the least of each is marked."""
    some = _some(plan)
    reach = [float(one.best.values["n"]) for one in some]
    n = np.geomspace(min(reach) / 30, max(reach) * 30, 120)
    marks: list[Mark] = []
    for one, colour in zip(some, ordered(len(some)), strict=True):
        d = one.best.train_flops / plan.costs.per_pair(n)
        near = (n > one.best.values["n"] / 30) & (n < one.best.values["n"] * 30) & (d >= 1)
        title = _flops(one)
        values = _predict(plan, n[near], d[near])
        marks.append(Line(x=n[near], y=values, colour=colour, name=title, hover=f"{title} FLOPs, loss at N"))
    best = Dots(
        x=_values(tuple(some), "n"),
        y=np.array([one.best.value for one in some]),
        colour=LAW,
        symbol="star",
        size=5.5,
        name="best",
        hover=tuple(_told(plan, one) for one in some),
    )
    y = np.concatenate([mark.y for mark in marks if isinstance(mark, Line)])
    limits = log_spread(y[y <= np.quantile(y, 0.9)])
    factor, unit = unit_of(limits)
    return Chart(
        name=name,
        title=f"{_about(plan)}: equal training FLOPs",
        alt=f"{_label(plan)} over N at equal training FLOPs, a curve for each of {len(some)} budgets, the least of "
        "each marked.",
        x=decade_scale(AXIS_NAMES["n"], (float(n[0]), float(n[-1])), short),
        y=plain_scale(_label(plan) + unit, limits, factor),
        marks=(*marks, best),
    )


def frontier(plan: Plan, name: str) -> Chart:
    """The best loss over training FLOPs with its band, beside what was trained."""
    best, points = plan.frontier, plan.by.points
    flops = np.array([one.best.train_flops for one in best])
    value, lo, hi = (np.array([getattr(one.best, end) for one in best]) for end in ("value", "lo", "hi"))
    spent = train_flops(plan.by, plan.costs)
    marks: list[Mark] = [Band(x=flops, lo=lo, hi=hi, belongs_to="best")] if np.isfinite(lo).all() else []
    marks += [
        Dots(
            x=spent, y=points.y, lo=points.lo, hi=points.hi, size=3.6, name="trained",
            hover=told(points, plan.by.finding),
        ),
        Line(x=flops, y=value, name="best"),
        Dots(
            x=flops, y=value, colour=LAW, symbol="diamond", size=4, hover=tuple(_told(plan, one) for one in best)
        ),
    ]  # fmt: skip
    limits = log_spread([*value, *points.y, *lo, *hi])
    factor, unit = unit_of(limits)
    return Chart(
        name=name,
        title=f"{_about(plan)}: frontier",
        alt=f"The least {_label(plan)} that the law gives for each budget of training FLOPs, from {number(value[0])} "
        f"at {_flops(best[0])} to {number(value[-1])} at {_flops(best[-1])}, with the points that were trained.",
        x=_flops_scale(TRAINING, [*flops, *spent]),
        y=plain_scale(_label(plan) + unit, limits, factor),
        marks=tuple(marks),
    )


def trade_off(plan: Plan, name: str) -> Chart:
    """Lines of equal quality over inference FLOPs a query and training FLOPs."""
    gain = gain_of(plan.by)
    assert gain is not None
    shown = plan.levels
    marks: list[Mark] = []
    for level, colour in zip(shown, ordered(len(shown)), strict=True):
        title = f"{plan.by.scale.name} {number(plan.by.scale.metric_of(level.target), 3)}"
        marks.append(Line(x=level.infer_flops, y=level.train_flops, colour=colour, width=1.5, belongs_to=title))
        marks.append(
            Dots(
                x=level.infer_flops, y=level.train_flops, colour=colour, size=3, name=title,
                hover=tuple(_level_lines(level, title, gain)),
            )
        )  # fmt: skip
    every = [np.concatenate([getattr(level, side) for level in shown]) for side in ("infer_flops", "train_flops")]
    return Chart(
        name=name,
        title=f"{_about(plan)}: training against inference",
        alt=f"Lines of equal {plan.by.scale.name}: how many training FLOPs are needed for how many inference FLOPs a "
        "query; below each line nothing reaches it.",
        x=_flops_scale("inference FLOPs a query", every[0]),
        y=_flops_scale(TRAINING, every[1]),
        marks=tuple(marks),
    )


def _level_lines(level: Level, title: str, gain: Axis) -> Iterator[str]:
    for n, d, width, train, infer in zip(
        level.n, level.d, level.gain, level.train_flops, level.infer_flops, strict=True
    ):
        yield (
            f"{title}<br>N {short(n)}, D {short(d)}, {SYMBOLS[gain]} {short(width)}<br>"
            f"training {number(train, 3)} FLOPs<br>a query {number(infer, 3)} FLOPs"
        )


def _told(plan: Plan, one: Optimum) -> str:
    values = one.best.values
    where = ", ".join(f"{SYMBOLS[axis]} {short(value)}" for axis, value in values.items())
    return f"{_flops(one)} FLOPs: {where}<br>{_label(plan)} {number(one.best.value)}"


def _some(plan: Plan) -> list[Optimum]:
    kept = np.unique(np.linspace(0, len(plan.frontier) - 1, CURVES).round().astype(int))
    return [plan.frontier[index] for index in kept]


def _predict(plan: Plan, n: Array, d: Array) -> Array:
    """The law over N and D, its budget where the frontier has it."""
    held = plan.frontier[-1].best.values
    known: dict[Axis, Array] = {"n": n, "d": d}
    return plan.by.law.predict([known.get(axis, np.full(len(n), held[axis])) for axis in plan.by.law.form.axes])


def _values(best: tuple[Optimum, ...], axis: Axis) -> Array:
    return np.array([one.best.values[axis] for one in best])


def _ends(values: list[float]) -> tuple[float, float]:
    return min(values) / ROOM, max(values) * ROOM


def _flops_scale(title: str, values: list[float] | Array) -> Scale:
    return decade_scale(title, _ends([float(value) for value in values]), power_of_ten)


def _flops(one: Optimum) -> str:
    return number(one.best.train_flops, 2)


def _label(plan: Plan) -> str:
    return value_name(plan.by.finding)


def _about(plan: Plan) -> str:
    """`T5, at beams = 16`."""
    return ", ".join(filter(None, (plan.name, describe(plan.by.finding.held))))
