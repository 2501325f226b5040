"""Which law answers a question: of each group and metric the one whose axes fit it, the best of its rivals."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

from laws.fitting import Law
from laws.forms import SYMBOLS, Axis
from laws.planning.costs import Costs, compute_itself, fit_costs
from laws.planning.scales import Scale, scale_of
from laws.planning.space import Range, Space, Where, make_space
from laws.points import Group, Points, describe, short
from laws.study import Finding

TRUST = ("supported", "weak", "under-determined")
"""Verdicts that are answered with, the best first; `no law` is refused."""
AXES: tuple[Axis, ...] = ("n", "d", "beams", "c")
SAME = 1e-6
"""Two values of an axis are one within this share."""


@dataclass(frozen=True, kw_only=True)
class Answering:
    """A law that answers, with what it needs."""

    name: str
    """Of its group."""
    finding: Finding
    law: Law

    @property
    def points(self) -> Points:
        """What it was fitted to."""
        return self.finding.points

    @property
    def scale(self) -> Scale:
        """Of its metric."""
        return scale_of(self.points)

    @property
    def title(self) -> str:
        """`t5 ngram, Hit@10 over N, D and beams (additive + gain, -log)`."""
        held = f" {describe(self.finding.held)}" if self.finding.held else ""
        form = self.law.form.name + (", -log" if self.scale.quantity == "-log" else "")
        return f"{self.name}, {self.scale.name} over {self.finding.axes} ({form}){held}".removeprefix(", ")

    @property
    def warning(self) -> str:
        """Nothing for a supported law, else its verdict."""
        verdict = self.finding.verdict
        return "" if verdict.word == "supported" else f"{verdict.word}: {verdict.reason}"

    def costs(self, per_nd: float | None = None) -> Costs:
        """From the columns of its points."""
        points = self.points
        if "c" in self.law.form.axes:
            training = fit_costs(points.n, points.d, None, points.train_flops, per_nd=per_nd).training
            return Costs(training=training, inference=compute_itself())
        return fit_costs(
            points.n, points.d, points.beams, points.train_flops, points.infer_flops, points.latency_ms, per_nd
        )

    def space(self, where: Where, costs: Costs, queries: float) -> Space:
        """Where configurations are looked for. Without queries the budget of a query is the largest measured."""
        gain = next((axis for axis in self.law.form.axes if axis in ("beams", "c")), None)
        if gain is not None and not queries:
            where = where.fixed(gain, float(self.points.axis(gain).max()))
        free = make_space(where, self.points, self.law.form.axes, costs)
        held = {axis: Range(lo=value, hi=value, choices=(value,)) for axis, value in self.finding.held.items()}
        return Space(ranges={**free.ranges, **held}, latency_ms=free.latency_ms)

    def beyond(self, values: Mapping[Axis, float]) -> dict[Axis, float]:
        """By which factor a configuration lies outside the points: above 1 beyond the largest, below 1 under the
        smallest; axes inside are left out."""
        found: dict[Axis, float] = {}
        for axis in self.law.form.axes:
            measured = self.points.axis(axis)
            low, high, value = float(measured.min()), float(measured.max()), values[axis]
            if value > high * (1 + SAME):
                found[axis] = value / high
            elif value < low / (1 + SAME):
                found[axis] = value / low
        return found


def far(beyond: Mapping[Axis, float]) -> str:
    """`N 10x larger, D 3x smaller` than the points; `no` inside them."""
    words = (
        f"{SYMBOLS[axis]} {max(factor, 1 / factor):.3g}x {'larger' if factor > 1 else 'smaller'}"
        for axis, factor in beyond.items()
    )
    return ", ".join(words) or "no"


def at_point(findings: Sequence[Finding], point: Mapping[Axis, float]) -> list[Answering]:
    """The laws that speak of a point: of each group and metric those over most of its axes, the best first.

    A law that holds an axis elsewhere says nothing of it.
    """
    found = []
    for mine in _by_question(findings):
        speaking = [one for one in mine if one.law is not None and _speaks_of(one, point)]
        most = max((len(one.form.axes) for one in speaking), default=0)
        found += sorted((one for one in speaking if len(one.form.axes) == most), key=_order)
    return _answering(found, findings)


def _speaks_of(finding: Finding, point: Mapping[Axis, float]) -> bool:
    if not set(finding.form.axes) <= point.keys():
        return False
    return all(abs(math.log(point[axis] / value)) < SAME for axis, value in finding.held.items() if axis in point)


def for_planning(findings: Sequence[Finding], queries: float) -> list[Answering]:
    """Of each group and metric the law to plan with: over N and D, and with queries over an inference budget too."""
    found = []
    for mine in _by_question(findings):
        fit_for_it = [one for one in mine if one.law is not None and _plans(one, queries)]
        if fit_for_it:
            found.append(min(fit_for_it, key=lambda one: (_trust(one), -len(one.form.axes), _order(one))))
    return _answering(found, findings)


def _plans(finding: Finding, queries: float) -> bool:
    axes = set(finding.form.axes)
    return {"n", "d"} <= axes <= set(AXES) and (not queries or bool(axes & {"beams", "c"}))


def _trust(finding: Finding) -> int:
    return TRUST.index(finding.verdict.word) if finding.verdict.word in TRUST else len(TRUST)


def _order(finding: Finding) -> tuple[bool, float]:
    """The best of its rivals first, the others by AICc."""
    assert finding.law is not None
    return not finding.is_best, finding.law.aicc


def _by_question(findings: Iterable[Finding]) -> list[list[Finding]]:
    """Findings of one group and metric together, in order."""
    found: dict[tuple[Group, str], list[Finding]] = {}
    for finding in findings:
        found.setdefault((finding.group, finding.metric), []).append(finding)
    return list(found.values())


def _answering(chosen: Iterable[Finding], findings: Sequence[Finding]) -> list[Answering]:
    name = namer(finding.group for finding in findings)
    return [Answering(name=name(one.group), finding=one, law=one.law) for one in chosen if one.law is not None]


def namer(groups: Iterable[Group]) -> Callable[[Group], str]:
    """Names of groups: family and identifiers, and what else tells them apart."""
    known = list(dict.fromkeys(groups))
    names = [field.name for field in fields(Group)]
    telling = [name for name in names if len({getattr(group, name) for group in known}) > 1]
    order = ["family", "identifiers", *(name for name in telling if name not in ("family", "identifiers"))]

    def name(group: Group) -> str:
        parts = [str(getattr(group, one))[:24] for one in order]
        return " ".join(part for part in parts if part)

    return name


def configuration_words(values: Mapping[Axis, float]) -> str:
    """`N = 7B, D = 589k, beams = 100`."""
    return ", ".join(f"{SYMBOLS[axis]} = {count_words(values[axis])}" for axis in AXES if axis in values)


def count_words(value: float) -> str:
    """A count as people say it, or a power of ten where it is too large for that."""
    return short(value) if value < 1e12 else f"{value:.3g}"
