"""What `fit_laws.py` does with a question: ask the laws, print the answers."""

import json
import os
import sys
from collections.abc import Sequence

from rich.console import Console

from laws.planning.answers import Inquiry, Terms, ask
from laws.planning.showing import show
from laws.planning.space import BadQuestion
from laws.planning.values import as_json
from laws.study import Finding

WIDE = 140
"""Columns where no terminal says how wide it is."""


def answer(findings: Sequence[Finding], inquiry: Inquiry, terms: Terms, *, json_out: bool = False) -> int:
    """Ask and print. 0: there is an answer, 1: all laws refuse one, 2: it cannot be asked so."""
    try:
        reply = ask(findings, inquiry, terms)
    except BadQuestion as error:
        print(f"fit_laws: {error}", file=sys.stderr)
        return 2
    if json_out:
        print(json.dumps(as_json(reply, inquiry), indent=1, allow_nan=False))
    else:
        show(reply, inquiry, make_console())
    return 0 if reply.answers else 1


def make_console() -> Console:
    """A terminal and COLUMNS say how wide it is; a file or a pipe does not."""
    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDE)
