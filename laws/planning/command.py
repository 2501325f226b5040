"""What `fit_laws.py --predict`, `--budget` and `--target` do: ask the laws, print the answers."""

import json
import os
import sys
from collections.abc import Sequence

from rich.console import Console

from laws.planning.answers import Inquiry, Predict, Reach, Spend, Terms, ask
from laws.planning.showing import as_json, show
from laws.planning.space import BadQuestion, Where, read_point, read_where
from laws.study import Finding


def read_question(
    predict: str | None, target: str | None, budget: float | None, queries: float, probability: float
) -> Inquiry:
    """The question of a command line that asks one.

    Raises:
        BadQuestion: one line that says how to ask.
    """
    if predict is not None:
        return Predict(point=read_point("--predict", predict))
    if budget is not None:
        return Spend(budget=budget, queries=queries)
    assert target is not None
    metric, equals, value = (part.strip() for part in target.partition("="))
    try:
        wanted = float(value)
    except ValueError:
        wanted = float("nan")
    if not metric or not equals or wanted != wanted:
        raise BadQuestion(f"--target {target}: write it as hit@10=0.8 or cgl=3.5")
    return Reach(metric=metric, value=wanted, queries=queries, probability=probability)


def read_terms(where: str | None, per_nd: float | None) -> Terms:
    """What holds for any question. Raises BadQuestion."""
    return Terms(where=read_where(where) if where else Where(), per_nd=per_nd)


def answer(findings: Sequence[Finding], asked: Inquiry, terms: Terms, *, json_out: bool = False) -> int:
    """Ask and print. 0: there is an answer, 1: all laws refuse one, 2: it cannot be asked so."""
    try:
        reply = ask(findings, asked, terms)
    except BadQuestion as error:
        print(f"fit_laws: {error}", file=sys.stderr)
        return 2
    if json_out:
        print(json.dumps(as_json(reply, asked), indent=1, allow_nan=False))
    else:
        show(reply, asked, make_console())
    return 0 if reply.answers else 1


def make_console() -> Console:
    """A terminal and COLUMNS say how wide it is; a file or a pipe does not."""
    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 140)
