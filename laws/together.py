"""Families of models together: do they share their exponents, or does each scale at its own pace?"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

import numpy as np

from laws.fitting import Law, Options, compare_families
from laws.forms import Axis, Form
from laws.points import Group, Points
from laws.study import Finding
from laws.trust.comparison import ALIKE, Comparison, compare

Word = Literal["shared", "separate", "cannot be told"]


@dataclass(frozen=True, kw_only=True)
class Together:
    """One question asked of several families at once: one form, with shared exponents and with separate ones."""

    groups: tuple[Group, ...]
    """In the order of the families' codes: the form's parameters `A_1`, `A_2` are those of the first, the second."""
    metric: str
    base: Form
    held: tuple[dict[Axis, float], ...]
    """Of each family."""
    points: Points
    shared: Law
    separate: Law
    comparison: Comparison
    word: Word
    reason: str


def together(findings: Sequence[Finding], options: Options | None = None) -> list[Together]:
    """Compare the families of each sweep wherever two or more of them have a law of the same metric and axes."""

    def place(finding: Finding) -> tuple[object, ...]:
        return (*finding.group.sweep, finding.group.split, finding.metric, finding.form.axes)

    usable = [one for one in findings if one.law is not None and one.verdict.word != "no law" and _is_plain(one)]
    usable.sort(key=lambda finding: tuple(map(str, place(finding))))
    return [
        found for _, members in groupby(usable, key=place) for found in _compared(list(members), options or Options())
    ]


def _is_plain(finding: Finding) -> bool:
    return finding.points.quantity != "-log" and len(finding.form.axes) <= 2


def _compared(findings: Sequence[Finding], options: Options) -> Iterator[Together]:
    """One answer, of the form that describes all families best, if there are several families."""
    by_form: dict[Form, dict[str, Finding]] = {}
    for finding in findings:
        of_family = by_form.setdefault(finding.form, {})
        known = of_family.get(finding.group.family)
        # of groups of one family that differ in another way, that with the most points speaks for it
        if known is None or len(finding.points) > len(known.points):
            of_family[finding.group.family] = finding
    whole = {form: list(members.values()) for form, members in by_form.items() if len(members) > 1}
    if whole:
        best = min(whole, key=lambda form: (-len(whole[form]), sum(_aicc(one) for one in whole[form])))
        yield _answer(best, whole[best], options)


def _aicc(finding: Finding) -> float:
    return finding.law.aicc if finding.law is not None else math.inf


def _answer(base: Form, members: Sequence[Finding], options: Options) -> Together:
    points = _pooled([member.points for member in members])
    found = compare_families(base, points, replace(options, bootstraps=0, intervals=False))
    word, reason = _told(found.shared, found.separate)
    return Together(
        groups=tuple(member.group for member in members),
        metric=members[0].metric,
        base=base,
        held=tuple(member.held for member in members),
        points=points,
        shared=found.shared,
        separate=found.separate,
        comparison=compare([(found.shared, points), (found.separate, points)]),
        word=word,
        reason=reason,
    )


def _told(shared: Law, separate: Law) -> tuple[Word, str]:
    if not (math.isfinite(shared.aicc) and math.isfinite(separate.aicc)):
        count = len(separate.parameters)
        return "cannot be told", f"{separate.n_points} points are too few for {count} separate parameters"
    gain = shared.aicc - separate.aicc
    if gain > ALIKE:
        return "separate", f"separate exponents describe the points better (AICc lower by {gain:.1f})"
    if gain < -ALIKE:
        return (
            "shared",
            f"shared exponents describe the points as well with fewer parameters (AICc lower by {-gain:.1f})",
        )
    return "cannot be told", f"shared and separate exponents describe the points alike (AICc differ by {abs(gain):.1f})"


def _pooled(parts: Sequence[Points]) -> Points:
    """All points, with the codes of their families."""
    has_beams = all(part.beams is not None for part in parts)
    return Points(
        n=np.concatenate([part.n for part in parts]),
        d=np.concatenate([part.d for part in parts]),
        y=np.concatenate([part.y for part in parts]),
        beams=np.concatenate([part.axis("beams") for part in parts]) if has_beams else None,
        run=tuple(f"{code} {run}" for code, part in enumerate(parts) for run in part.run),
        metric=parts[0].metric,
        family=np.repeat(np.arange(len(parts)), [len(part) for part in parts]),
        quantity=parts[0].quantity,
    )
