"""What stands on the page: sweeps, the questions asked of them, and a card for each family's answer."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from laws import tuning
from laws.forms import SYMBOLS
from laws.points import Group, describe, short
from laws.reporting import family_charts, law_charts, plan_charts, trust_charts, tuning_charts
from laws.reporting.answers import Answer, answers, value_name
from laws.reporting.charts import Chart
from laws.reporting.found import Found
from laws.reporting.gallery import Gallery, Plate
from laws.reporting.plans import Plan
from laws.reporting.summaries import Summary, summarise
from laws.reporting.words import family_name, formula, group_name, slug, sweep_name
from laws.study import Finding, members, unasked
from laws.tables import Baseline, Tables
from laws.together import Together

CAUTIONS = {
    "cgl_published": "The chance line, ln(1 + 1/negatives), is what guessing gives with one relevant identifier. The "
    "published form takes the least loss over all of them, so a model that ignores the query lies below the line: "
    "a value below it is no evidence of learning, and no verdict takes it for one. The chance line of CGL itself holds."
}
"""How a metric must not be read."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """One family's answer to a answer."""

    name: str
    """The family, with what else tells its group from others."""
    anchor: str
    answer: Answer
    formula: Markup
    figures: tuple[Plate, ...]
    """Points and curve; of several axes the contours too."""
    checks: tuple[Plate, ...]
    """Residuals, and predictions of what was held out."""

    @property
    def finding(self) -> Finding:
        """The form that answers best."""
        return self.answer.best


@dataclass(frozen=True, kw_only=True)
class Section:
    """One answer, answered by all families of a sweep side by side."""

    title: str
    anchor: str
    caution: str
    """How the metric must not be read; empty where it is plain."""
    cards: tuple[Card, ...]
    together: Plate | None
    """All families in one chart; None where there is one, or several axes."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What one law says of spending."""

    plan: Plan
    anchor: str
    title: str
    figures: tuple[Plate, ...]


@dataclass(frozen=True, kw_only=True)
class Rates:
    """The tuned learning rates of a family's sizes."""

    name: str
    metric: str
    transfer: tuning.Transfer
    figures: tuple[Plate, ...]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """One corpus and kind of identifiers: its tables and its laws."""

    name: str
    anchor: str
    summaries: tuple[Summary, ...]
    baselines: tuple[Baseline, ...]
    budgets: tuple[Plate, ...]
    sections: tuple[Section, ...]
    plans: tuple[Planned, ...]
    families: tuple[Together, ...]
    """Whether families share their exponents."""
    unasked: tuple[str, ...]
    """Along which axes no law could be asked for, and why."""


def sweeps(found: Found, gallery: Gallery) -> list[Sweep]:
    """All sweeps with their figures, in a stable order."""
    names = list(dict.fromkeys(group.sweep for group in members(found.tables, found.findings)))
    return [_sweep(found, name, names, gallery) for name in names]


def _sweep(
    found: Found, sweep: tuple[str, str, str], all_sweeps: Sequence[tuple[str, str, str]], gallery: Gallery
) -> Sweep:
    tables, name = found.tables, sweep_name(sweep, all_sweeps)
    known = {group: trials for group, trials in members(tables, found.findings).items() if group.sweep == sweep}
    names = {group: group_name(group, known) for group in known}
    mine = tuple(finding for finding in found.findings if finding.group.sweep == sweep)
    baselines = tuple(
        sorted((row for row in tables.baselines if (row.corpus, row.corpus_hash) == sweep[:2]), key=_by_strength)
    )
    budgets = []
    for group, trials in known.items():
        chart = family_charts.budgets(trials, "hit@10", baselines, slug(f"{name} {names[group]} hit@10 by beams"))
        budgets += [gallery.hang(chart)] if chart is not None else []
    hall = _Hall(sweep=name, names=names, gallery=gallery)
    return Sweep(
        name=name,
        anchor=slug(name),
        summaries=tuple(summarise(names[group], trials) for group, trials in known.items() if trials),
        baselines=baselines,
        budgets=tuple(budgets),
        sections=tuple(hall.sections([finding for finding in mine if finding.could_be_asked])),
        plans=tuple(hall.planned(one) for one in found.plans if one.group.sweep == sweep),
        families=tuple(one for one in found.families if one.groups[0].sweep == sweep),
        unasked=unasked(mine, lambda group: names[group]),
    )


def _by_strength(row: Baseline) -> tuple[float, str]:
    value = row.measured["hit@10"].value
    return (-1.0 if math.isnan(value) else value, row.baseline)


@dataclass(frozen=True, kw_only=True)
class _Hall:
    """Where the laws of one sweep are hung."""

    sweep: str
    names: Mapping[Group, str]
    gallery: Gallery

    def sections(self, findings: Sequence[Finding]) -> Iterable[Section]:
        """A section a question."""
        asked = answers(findings)
        for metric, axes in dict.fromkeys((one.metric, one.axes) for one in asked):
            alike = [one for one in asked if (one.metric, one.axes) == (metric, axes)]
            stem = f"{self.sweep} {metric} {'-'.join(SYMBOLS[axis] for axis in axes)}"
            yield Section(
                title=alike[0].title,
                anchor=slug(stem),
                caution=CAUTIONS.get(metric, ""),
                cards=tuple(self._card(one, alike, stem) for one in alike),
                together=self._together(alike, stem),
            )

    def planned(self, plan: Plan) -> Planned:
        """What a law says of spending."""
        finding = plan.by.finding
        over = "-".join(SYMBOLS[axis] for axis in finding.form.axes)
        stem = f"{self.sweep} {finding.metric} {over} {plan.name} plan"
        charts = [
            plan_charts.allocation(plan, slug(f"{stem} allocation")),
            plan_charts.equal_flops(plan, slug(f"{stem} equal flops")),
            plan_charts.frontier(plan, slug(f"{stem} frontier")),
        ]
        if plan.levels:
            charts.append(plan_charts.trade_off(plan, slug(f"{stem} trade off")))
        return Planned(
            plan=plan,
            anchor=slug(stem),
            title=f"{plan.name}: {value_name(finding)} over {finding.axes} {describe(finding.held)}".strip(),
            figures=tuple(self.gallery.hang(chart) for chart in charts),
        )

    def _together(self, alike: Sequence[Answer], stem: str) -> Plate | None:
        drawn = [(self.names[one.group], one) for one in alike if one.best.law is not None]
        if len(alike[0].axes) > 1 or len(drawn) < 2 or len({_quantity(one) for _, one in drawn}) > 1:
            return None
        return self.gallery.hang(family_charts.against(drawn, slug(f"{stem} families")))

    def _card(self, answer: Answer, alike: Sequence[Answer], stem: str) -> Card:
        best, file = answer.best, f"{stem} {self.names[answer.group]}"
        charts = self._figures(answer, alike, file) if best.law is not None else ()
        checks = self._checks(best, file) if best.law is not None else ()
        return Card(
            name=self.names[answer.group],
            anchor=slug(file),
            answer=answer,
            formula=formula(f"{value_name(best)} = {best.form.text}"),
            figures=tuple(self.gallery.hang(chart) for chart in charts),
            checks=tuple(self.gallery.hang(chart) for chart in checks if chart is not None),
        )

    def _figures(self, answer: Answer, alike: Sequence[Answer], file: str) -> Iterable[Chart]:
        best = answer.best
        # side by side on one scale, where they are of one quantity
        drawn = [one.best for one in alike if one.best.law is not None and _quantity(one) == _quantity(answer)]
        heights = law_charts.common_range(drawn)
        if len(answer.axes) == 1:
            yield law_charts.curve(answer, slug(file), heights)
            return
        yield law_charts.slices(best, slug(f"{file} slices"), heights)
        if {"n", "d"} <= set(answer.axes):
            yield law_charts.contours(best, slug(f"{file} contours"), law_charts.value_range(drawn))

    def _checks(self, best: Finding, file: str) -> Iterable[Chart | None]:
        yield law_charts.residuals(best, slug(f"{file} residuals"))
        yield trust_charts.profiles(best, slug(f"{file} profiles"))
        if best.holdouts:
            yield trust_charts.hold_outs(best, slug(f"{file} held out"))


def _quantity(answer: Answer) -> str:
    return answer.best.points.quantity


def rates(tables: Tables, gallery: Gallery) -> list[Rates]:
    """The tuned learning rates with their figures."""
    found = []
    for transfer in tuning.transfers(tables.studies):
        first = transfer.studies[0]
        name = f"{first.corpus}, {first.identifiers}, {family_name(first.family)}, D = {short(first.d_pairs)}"
        stem = f"{first.grid} {name} learning rates"
        charts = (
            tuning_charts.losses(transfer, slug(f"{stem} losses")),
            tuning_charts.rates(transfer, slug(f"{stem} by N")),
        )
        figures = tuple(gallery.hang(chart) for chart in charts if chart is not None)
        metric = tuning.METRICS.get(first.metric, "loss")
        found.append(Rates(name=name, metric=metric, transfer=transfer, figures=figures))
    return found
