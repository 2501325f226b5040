"""What the laws of a report say of spending: the best N and D for each budget, and training against inference."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from laws.forms import Array, Axis
from laws.planning.choosing import Answering, for_planning
from laws.planning.costs import Costs
from laws.planning.curves import curve_of, meet
from laws.planning.planner import Optimum
from laws.planning.quality import frontier, trade_off
from laws.planning.space import Space, Where
from laws.points import Group
from laws.reporting.charts import rounds
from laws.study import Finding

WORDS = ("supported", "weak")
"""Verdicts of laws that are planned with; what the others say of spending would be made up."""
BUDGETS = 7
BEYOND = 100.0
"""The largest budget is so many times that of the largest training."""
LIFETIMES = 6
TARGETS = 8
SIZES, WIDTHS = 48, 24
"""Values of N and of the inference budget among which trade-offs are looked for."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """Configurations of equal quality that nothing beats in both training and inference; inference rising."""

    target: float
    """In the units that the law is fitted to."""
    train_flops: Array
    infer_flops: Array
    """A query."""
    n: Array
    d: Array
    gain: Array
    """The inference budget."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one law says."""

    name: str
    """Of its group."""
    by: Answering
    costs: Costs
    space: Space
    frontier: tuple[Optimum, ...]
    """The best for each budget of training."""
    levels: tuple[Level, ...]
    """Training against inference; empty where the law is over N and D alone, or inference has no price."""
    lifetimes: tuple[Optimum, ...]
    """The best split of one budget for each number of queries."""

    @property
    def group(self) -> Group:
        """Whose law it is."""
        return self.by.finding.group

    @property
    def lifetime_budget(self) -> float:
        """FLOPs that training and queries have together in `lifetimes`."""
        first = self.lifetimes[0]
        return first.best.train_flops / first.training_share


def plans(findings: Sequence[Finding], name: Callable[[Group], str]) -> list[Plan]:
    """By every law over N and D, or those and an inference budget, that is at least weak."""
    usable = [one for one in findings if one.verdict.word in WORDS]
    chosen = {id(by.finding): by for queries in (0.0, 1.0) for by in for_planning(usable, queries)}
    return [plan for by in chosen.values() if (plan := _plan(by, name(by.finding.group))) is not None]


def gain_of(by: Answering) -> Axis | None:
    """The axis of the law's inference budget."""
    axes: tuple[Axis, ...] = ("beams", "c")
    return next((axis for axis in axes if axis in by.law.form.axes), None)


def train_flops(by: Answering, costs: Costs) -> Array:
    """(points,) what the training of each point costs by the fitted costs."""
    return costs.training.at({"n": by.points.n, "d": by.points.d})


def _plan(by: Answering, name: str) -> Plan | None:
    costs = by.costs()
    spent = train_flops(by, costs)
    budgets = np.geomspace(float(spent.min()), float(spent.max()) * BEYOND, BUDGETS)
    space = by.space(Where(), costs, 0.0)
    best = frontier(by.law, costs, space, [float(budget) for budget in budgets])
    if not best:
        return None
    levels: tuple[Level, ...] = ()
    lifetimes: tuple[Optimum, ...] = ()
    if gain_of(by) is not None and costs.inference is not None:
        free = by.space(Where(), costs, 1.0)
        levels = tuple(_levels(by, costs, free))
        lifetimes = tuple(_lifetimes(by, costs, free, float(spent.max()) * math.sqrt(BEYOND)))
    return Plan(name=name, by=by, costs=costs, space=space, frontier=tuple(best), levels=levels, lifetimes=lifetimes)


def _lifetimes(by: Answering, costs: Costs, space: Space, budget: float) -> list[Optimum]:
    """From queries that cost next to nothing beside the training to those that cost as much and more."""
    assert costs.inference is not None
    gain = gain_of(by)
    assert gain is not None
    values: dict[Axis, Array] = {"n": by.points.n, gain: by.points.axis(gain)}
    a_query = float(np.median(costs.inference.at(values)))
    even = budget / a_query
    return trade_off(by.law, costs, space, budget, [float(even * 10.0**step) for step in range(-LIFETIMES + 2, 2)])


def _levels(by: Answering, costs: Costs, space: Space) -> Iterator[Level]:
    """Lines of equal quality at round values, from that of the median point to somewhat beyond the best."""
    gain = gain_of(by)
    assert gain is not None
    n, measured = by.points.n, by.points.axis(gain)
    sizes = np.geomspace(n.min() / 10, n.max() * 100, SIZES)
    width = space.ranges[gain]
    gains = np.geomspace(measured.min(), min(width.hi, measured.max() * 10), WIDTHS)
    if gain == "beams":
        gains = np.unique(gains.round())
    for target in _targets(by):
        level = _level(by, costs, target, sizes, gains, gain)
        if len(level.n) > 1:
            yield level


def _targets(by: Answering) -> list[float]:
    """Fitted values of round values of the metric."""
    y = by.law.predict([by.points.axis(axis) for axis in by.law.form.axes])
    middle, best, floor = float(np.median(y)), float(y.min()), by.law[by.law.form.floor]
    beyond = best - 0.25 * (best - floor) if floor < best else 0.95 * best
    ends = sorted(by.scale.metric_of(value) for value in (middle, beyond))
    return [by.scale.fitted_of(value) for value in rounds(ends[0], ends[1], TARGETS)]


def _level(by: Answering, costs: Costs, target: float, n: Array, gains: Array, gain: Axis) -> Level:
    assert costs.inference is not None
    sizes, widths = (each.ravel() for each in np.meshgrid(n, gains))
    d = meet(curve_of(by.law), target, {"n": sizes, gain: widths}, 1.0, 1e15)
    known = np.isfinite(d)
    sizes, widths, d = sizes[known], widths[known], d[known]
    values: dict[Axis, Array] = {"n": sizes, "d": d, gain: widths}
    training, inference = costs.training.at(values), costs.inference.at(values)
    order = np.lexsort((training, inference))
    kept = order[_falling(training[order])]
    return Level(
        target=target,
        train_flops=training[kept],
        infer_flops=inference[kept],
        n=sizes[kept],
        d=d[kept],
        gain=widths[kept],
    )


def _falling(values: Array) -> NDArray[np.intp]:
    """Positions of values that are below all before them."""
    if not len(values):
        return np.zeros(0, dtype=int)
    before = np.concatenate([[np.inf], np.minimum.accumulate(values)[:-1]])
    return np.flatnonzero(values < before)
