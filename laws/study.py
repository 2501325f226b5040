"""All laws of a results folder: every group, metric and form, each with its verdict."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from laws.fitting import Law, Options, fit
from laws.forms import SYMBOLS, Additive, Axis, Form, Joint, PowerLaw
from laws.points import Group, Points, chance_of_metric, describe, fix, groups, is_loss, label, select
from laws.tables import Tables, Trial
from laws.verdict import Verdict, judge, too_few

DEFAULT_METRICS = ("cgl", "cgl_published", "nll", "hit@10")
ALIKE = 1.3
"""Two forms fit alike where their RMSE are within this factor."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One form asked of one group's points of one metric."""

    group: Group
    metric: str
    form: Form
    held: dict[Axis, float]
    """The axes held fixed, and at what."""
    points: Points
    law: Law | None
    """None where no curve can be drawn; the verdict says why."""
    verdict: Verdict
    notes: tuple[str, ...]

    @property
    def could_be_asked(self) -> bool:
        """False where an axis has too few values for any curve."""
        return self.law is not None or self.verdict.word != "under-determined"

    @property
    def axes(self) -> str:
        """`N`, `D`, `beams`, `N and D`."""
        return " and ".join(SYMBOLS[axis] for axis in self.form.axes)

    @property
    def title(self) -> str:
        """`CGL over N (power), at D = 36k`."""
        return f"{label(self.metric)} over {self.axes} ({self.form.name})" + (
            f", {describe(self.held)}" if self.held else ""
        )


def study(tables: Tables, metrics: Sequence[str] = DEFAULT_METRICS, options: Options | None = None) -> list[Finding]:
    """Fit and judge everything, in a stable order: by group, metric, form."""
    return [
        finding
        for group, trials in groups(tables.trials).items()
        for metric in metrics
        for finding in _with_rivals(list(_of_metric(tables, group, trials, metric, options)))
    ]


def unasked(findings: Sequence[Finding], name: Callable[[Group], str]) -> tuple[str, ...]:
    """One line a group and axis along which no law could be asked for."""
    lines = (f"{name(one.group)}: {one.verdict.reason}" for one in findings if not one.could_be_asked)
    return tuple(dict.fromkeys(lines))


def forms(metric: str) -> tuple[Form, ...]:
    """The forms asked of a metric."""
    beams: tuple[Form, ...] = () if is_loss(metric) else (PowerLaw(axis="beams"),)
    return (PowerLaw(axis="n"), PowerLaw(axis="d"), *beams, Joint(), Additive())


def _of_metric(
    tables: Tables, group: Group, trials: Sequence[Trial], metric: str, options: Options | None
) -> Iterator[Finding]:
    chance = math.nan if is_loss(metric) else chance_of_metric(metric, group, tables.baselines)
    selection = select(trials, metric, chance)
    for form in forms(metric):
        points, held = fix(selection.points, form.axes)
        law, verdict = None, too_few(form, points)
        if verdict is None:
            law = fit(form, points, options)
            verdict = judge(law, points, _caveats(form, trials, points))
        yield Finding(
            group=group,
            metric=metric,
            form=form,
            held=held,
            points=points,
            law=law,
            verdict=verdict,
            notes=selection.notes,
        )


def _with_rivals(findings: list[Finding]) -> list[Finding]:
    """Where two forms with equally many parameters describe the same points alike, neither is the law: say so."""
    told = []
    for finding in findings:
        rivals = [
            other
            for other in findings
            if other is not finding and other.law and finding.law and other.form.axes == finding.form.axes
            and other.law.rmse <= ALIKE * finding.law.rmse
        ]  # fmt: skip
        if rivals and finding.verdict.word in ("supported", "weak", "under-determined"):
            names = " and ".join(other.form.name for other in rivals)
            reason = f"{finding.verdict.reason}; the {names} form fits as well or better"
            finding = replace(finding, verdict=replace(finding.verdict, reason=reason))
        told.append(finding)
    return told


def _caveats(form: Form, trials: Sequence[Trial], points: Points) -> list[str]:
    """What stands in the way of reading the law as one of its axes."""
    caveats = []
    # `ppmi` without a rank has the rank of the model's width, which grows with N
    if "n" in form.axes and trials[0].init == "ppmi" and len(np.unique(points.n)) > 1:
        caveats.append("N is confounded with the rank of the initial embeddings")
    if form.axes == ("beams",) and len(set(points.run)) == 1:
        caveats.append("all points are of one training run")
    return caveats
