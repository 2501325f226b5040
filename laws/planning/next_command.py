"""What `fit_laws.py --next` does: choose trials of a grid, print them, and hand them over to be written."""

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from laws.planning.choosing import configuration_words, far
from laws.planning.command import make_console
from laws.planning.proposals import Aim, Candidate, Proposal, Told, propose
from laws.planning.showing import add, plain
from laws.planning.space import BadQuestion
from laws.study import Finding

Write = Callable[[Sequence[str]], str]
"""From the names of the chosen trials to what is said of the grid that was written of them."""


def answer_next(
    findings: Sequence[Finding],
    candidates: Sequence[Candidate],
    aim: Aim,
    write: Write,
    *,
    assumed: Sequence[str] = (),
    json_out: bool = False,
) -> int:
    """Choose, write and print. 0: there is something to run, 1: nothing would help, 2: it cannot be asked so.

    Args:
        assumed: what the candidates' FLOPs were estimated without, in words.
    """
    if all(one.is_done for one in candidates):
        why = f"all {len(candidates)} trials of the grid are done; one with more sizes, D or budgets has some to choose"
        print(f"fit_laws: --next: {why}", file=sys.stderr)
        return 1
    try:
        proposal = propose(findings, candidates, aim)
    except BadQuestion as error:
        print(f"fit_laws: {error}", file=sys.stderr)
        return 2
    if not proposal.chosen:
        why = "no trial is affordable" if aim.flops < float("inf") else "no trial tells anything more"
        print(f"fit_laws: --next: {why}; " + "; ".join(proposal.notes), file=sys.stderr)
        return 1
    said = write(proposal.trials)
    if json_out:
        print(json.dumps(as_json(proposal), indent=1, allow_nan=False))
        return 0
    show(proposal, assumed, make_console())
    if said:
        print(said)
    return 0


def show(proposal: Proposal, assumed: Sequence[str], console: Console) -> None:
    """What to run, in order, and what becomes of each band."""
    console.print(_trials(proposal))
    console.print(_bands(proposal))
    notes = [f"{one.by.title}: {one.by.warning}" for one in proposal.told if one.by.warning] + list(proposal.notes)
    notes += [f"FLOPs assume {', '.join(assumed)}"] if assumed else []
    for note in notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True, style="dim")


def _trials(proposal: Proposal) -> Table:
    title = f"To run next, to know more at {configuration_words(proposal.aim.point)}"
    table = plain("trial", "FLOPs", "in all", "band, linearised", title=title)
    total = 0.0
    for one in proposal.chosen:
        total += one.flops
        add(table, one.cell.trial, f"{one.flops:.3g}", f"{total:.3g}", f"x {one.narrowing:.2f}")
    return table


def _bands(proposal: Proposal) -> Table:
    table = plain("law", "now", "after, by refits", "beyond the points", left=("beyond the points",))
    for one in proposal.told:
        add(table, one.by.title, _now(one), f"x {one.narrowing:.2f}", far(one.by.beyond(proposal.aim.point)))
    return table


def _now(told: Told) -> str:
    scale = told.by.scale
    lo, hi = scale.interval(told.lo, told.hi)
    return f"{scale.metric_of(told.value):.4g} [{lo:.4g}, {hi:.4g}]"


def as_json(proposal: Proposal) -> dict[str, Any]:
    """Plain values."""
    return {
        "at": {str(axis): value for axis, value in proposal.aim.point.items()},
        "trials": [
            {"trial": one.cell.trial, "flops": one.flops, "narrowing_linearised": one.narrowing}
            for one in proposal.chosen
        ],
        "flops": sum(one.flops for one in proposal.chosen),
        "laws": [_law(one) for one in proposal.told],
        "notes": list(proposal.notes),
    }


def _law(told: Told) -> dict[str, Any]:
    scale = told.by.scale
    lo, hi = scale.interval(told.lo, told.hi)
    return {
        "law": told.by.title,
        "verdict": told.by.finding.verdict.word,
        "predicted": scale.metric_of(told.value),
        "predicted_lo": lo,
        "predicted_hi": hi,
        "narrowing_by_refits": told.narrowing,
        "candidates": told.candidates,
    }
