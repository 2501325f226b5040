"""What a law was asked for: one metric of one group over some axes, whatever the forms that answered."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from laws.forms import SYMBOLS, Axis
from laws.points import Group, describe, label
from laws.study import Finding


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
    def title(self) -> str:
        """`CGL over N and D`."""
        return title(self.metric, self.axes)


def title(metric: str, axes: Sequence[Axis]) -> str:
    """`CGL over N and D`."""
    names = [SYMBOLS[axis] for axis in axes]
    return f"{label(metric)} over " + (", ".join(names[:-1]) + " and " if len(names) > 1 else "") + names[-1]


def answers(findings: Iterable[Finding]) -> list[Answer]:
    """In the order of the findings."""
    asked: dict[tuple[Group, str, tuple[Axis, ...]], list[Finding]] = {}
    for finding in findings:
        asked.setdefault((finding.group, finding.metric, finding.form.axes), []).append(finding)
    return [Answer(findings=tuple(sorted(forms, key=_rank))) for forms in asked.values()]


def _rank(finding: Finding) -> float:
    law = finding.law
    if law is None:
        return 2.0
    return -law.leave_out.skill if law.leave_out else 1.0
