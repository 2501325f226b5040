"""Everything that a report tells."""

from collections.abc import Sequence
from dataclasses import dataclass

from laws.reporting.plans import Plan, plans
from laws.reporting.words import group_name
from laws.study import Finding, members
from laws.tables import Tables
from laws.together import Together, together


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was read and fitted, and what follows from it."""

    tables: Tables
    findings: tuple[Finding, ...]
    plans: tuple[Plan, ...]
    families: tuple[Together, ...]


def found(tables: Tables, findings: Sequence[Finding]) -> Found:
    """What the findings say of spending, and of families together."""
    known = members(tables, findings)
    return Found(
        tables=tables,
        findings=tuple(findings),
        plans=tuple(plans(findings, lambda group: group_name(group, known))),
        families=tuple(together(findings)),
    )
