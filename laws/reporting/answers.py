"""What a law was asked for: one metric of one group over some axes, whatever the forms that answered."""

from collections.abc import Iterable
from dataclasses import dataclass

from laws.forms import Axis
from laws.points import Group, describe, label
from laws.reporting.words import typeset
from laws.study import Finding
from laws.trust.comparison import Comparison


@dataclass(frozen=True, kw_only=True)
class Answer:
    """All forms over the same axes of the same points: rivals."""

    findings: tuple[Finding, ...]
    """The best first; never empty."""

    @property
    def best(self) -> Finding:
        """The form that answers best."""
        return self.findings[0]

    @property
    def rivals(self) -> tuple[Finding, ...]:
        """The other forms."""
        return self.findings[1:]

    @property
    def group(self) -> Group:
        """Whose points they are."""
        return self.best.group

    @property
    def metric(self) -> str:
        """What was measured."""
        return self.best.metric

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Over what."""
        return self.best.form.axes

    @property
    def held(self) -> str:
        """`at D = 36k`; empty where nothing is held."""
        return describe(self.best.held)

    @property
    def comparison(self) -> Comparison | None:
        """All forms that were tried, told or not, and the null model."""
        return self.best.comparison

    @property
    def title(self) -> str:
        """`CGL over N and D`."""
        return f"{typeset(label(self.metric))} over {self.best.axes}"


def value_name(finding: Finding) -> str:
    """How what was fitted is written: `CGL`, `1 − Hit@10`, `−log Hit@10`."""
    return typeset(label(finding.metric, finding.points.quantity))


def answers(findings: Iterable[Finding]) -> list[Answer]:
    """In the order of the findings; of each the best form first."""
    asked: dict[tuple[Group, str, tuple[Axis, ...]], list[Finding]] = {}
    for finding in findings:
        asked.setdefault((finding.group, finding.metric, finding.form.axes), []).append(finding)
    return [Answer(findings=tuple(sorted(forms, key=lambda one: not one.is_best))) for forms in asked.values()]
