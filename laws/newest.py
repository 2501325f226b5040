"""The newest law of a sweep that still runs, in one line."""

from laws.fitting import Options
from laws.study import Finding, study
from laws.tables import BadTable, read_tables

QUICK = Options(starts=24, bootstraps=60)

WORDS = ("supported", "weak", "under-determined")
"""Verdicts with something to say, the best first."""


def newest_law(folder: str, options: Options = QUICK) -> str:
    """The best-founded law of the CGL in a grid's rows so far, with its verdict; nothing before one can be given."""
    try:
        findings = study(read_tables([folder]), ("cgl",), options)
    except (BadTable, OSError):
        return ""
    told = [finding for finding in findings if finding.law is not None and finding.verdict.word in WORDS]
    if not told:
        return ""
    best = min(told, key=lambda one: (WORDS.index(one.verdict.word), -len(one.points), not one.is_best))
    return _line(best)


def _line(finding: Finding) -> str:
    assert finding.law is not None
    values = ", ".join(f"{one.name} {one.value:.3g}" for one in finding.law.parameters)
    about = f"{finding.group.identifiers} {finding.group.family}: {finding.title}"
    return f"{about}: {finding.form.text} with {values}: {finding.verdict.word} ({len(finding.points)} points)"
