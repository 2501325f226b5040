"""Everything that a report tells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from laws.fitting import Profile, profile
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
    profiles: Mapping[int, tuple[Profile, ...]]
    """By the place of the finding; of the best forms alone."""
    plans: tuple[Plan, ...]
    families: tuple[Together, ...]

    def profiles_of(self, finding: Finding) -> tuple[Profile, ...]:
        """Of every parameter; none where the points leave nothing to tell them by, or the form is not the best."""
        return next((self.profiles.get(at, ()) for at, one in enumerate(self.findings) if one is finding), ())


def found(tables: Tables, findings: Sequence[Finding]) -> Found:
    """What the findings say of spending, of their parameters, and of families together."""
    known = members(tables, findings)
    return Found(
        tables=tables,
        findings=tuple(findings),
        profiles={at: profiles(one) for at, one in enumerate(findings) if one.is_best},
        plans=tuple(plans(findings, lambda group: group_name(group, known))),
        families=tuple(together(findings)),
    )


def profiles(finding: Finding) -> tuple[Profile, ...]:
    """The profile of each parameter."""
    law = finding.law
    if law is None:
        return ()
    made = (profile(law, finding.points, name) for name in finding.form.parameters)
    return tuple(one for one in made if one is not None)
