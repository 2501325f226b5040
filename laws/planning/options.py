"""The planner's part of the command line: its options, and what they ask."""

import argparse
import math
from collections.abc import Sequence

from laws.planning.answers import Inquiry, Predict, Reach, Spend, Terms
from laws.planning.proposals import Aim
from laws.planning.space import BadQuestion, Where, read_point, read_where

QUESTIONS = ("predict", "budget", "target", "next")
GOES_WITH = {
    "queries": ("budget", "target"),
    "probability": ("target",),
    "where": ("budget", "target"),
    "flops_per_nd": ("predict", "budget", "target"),
    "at": ("next",),
    "flops": ("next",),
    "cells": ("next",),
    "json": QUESTIONS,
}
"""Options, and the questions that they belong to."""
PROBABILITY = 0.9
CELLS = 5
"""Trials that are chosen where neither a number nor FLOPs are given."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Questions to the laws, in place of the report."""
    group = parser.add_argument_group("questions to the laws (no report is written)")
    ask = group.add_mutually_exclusive_group()
    ask.add_argument("--predict", metavar="POINT", help='what a configuration gives: "N=7e9,D=588800,beams=100"')
    ask.add_argument(
        "--budget", type=_positive, metavar="FLOPS", help="the best N and D for so many FLOPs of training; with "
        "--queries for training and inference together, and the best beams"
    )  # fmt: skip
    ask.add_argument(
        "--target", metavar="METRIC=VALUE", help='the cheapest configuration that reaches it: "hit@10=0.8"'
    )
    ask.add_argument(
        "--next", metavar="GRID", help="the trials of a grid file to run next, to know more of what --at names"
    )
    group.add_argument("--queries", type=_positive, metavar="Q", help="that the trained model will answer")
    group.add_argument(
        "--probability", type=_share, metavar="P", help=f"of reaching the target (default: {PROBABILITY})"
    )
    group.add_argument(
        "--where", metavar="CONDITIONS", help='what is allowed: "N<=7e9, D=588800, beams=1|4|16, latency_ms<=50"; '
        "N=measured allows the sizes of the points only"
    )  # fmt: skip
    group.add_argument(
        "--flops-per-nd", type=_positive, metavar="K", help="training takes K N D FLOPs; by default what the table "
        "says, and 6 where it says nothing (D in tokens)"
    )  # fmt: skip
    group.add_argument("--at", metavar="POINT", help='with --next: the far configuration, "N=7e10,D=588800,beams=100"')
    group.add_argument("--flops", type=_positive, metavar="FLOPS", help="with --next: what the trials may take")
    group.add_argument("--cells", type=_count, metavar="K", help=f"with --next: how many trials (default: {CELLS})")
    group.add_argument("--json", action="store_true", default=None, help="print JSON")


def is_asked(options: argparse.Namespace) -> bool:
    """Whether the command line asks a question. Raises BadQuestion where an option belongs to another one."""
    question = next((name for name in QUESTIONS if getattr(options, name) is not None), None)
    for name, questions in GOES_WITH.items():
        if getattr(options, name) is not None and question not in questions:
            raise BadQuestion(f"--{name.replace('_', '-')} goes with {' or '.join(f'--{one}' for one in questions)}")
    return question is not None


def inquiry_of(options: argparse.Namespace) -> Inquiry:
    """What --predict, --budget or --target asks. Raises BadQuestion."""
    queries = options.queries or 0.0
    if options.predict is not None:
        return Predict(point=read_point("--predict", options.predict))
    if options.budget is not None:
        return Spend(budget=options.budget, queries=queries)
    metric, equals, text = (part.strip() for part in options.target.partition("="))
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not metric or not equals or not math.isfinite(value):
        raise BadQuestion(f"--target {options.target}: write it as hit@10=0.8 or cgl=3.5")
    return Reach(metric=metric, value=value, queries=queries, probability=options.probability or PROBABILITY)


def terms_of(options: argparse.Namespace) -> Terms:
    """What holds for the question. Raises BadQuestion."""
    where = read_where(options.where) if options.where is not None else Where()
    return Terms(where=where, per_nd=options.flops_per_nd)


def aim_of(options: argparse.Namespace) -> Aim:
    """What --next is to tell of. Raises BadQuestion."""
    if options.at is None:
        raise BadQuestion('--next needs --at: the configuration to know more of, such as "N=7e10,D=588800,beams=100"')
    cells = options.cells or (CELLS if options.flops is None else None)
    return Aim(point=read_point("--at", options.at), flops=options.flops or math.inf, cells=cells)


def metrics_of(options: argparse.Namespace, known: Sequence[str], default: Sequence[str]) -> tuple[str, ...]:
    """Which of a results folder's metrics a question is about. Raises BadQuestion."""
    if options.target is not None:
        metric = options.target.partition("=")[0].strip()
        if metric not in known:
            raise BadQuestion(f"--target {metric}: no such metric; there are {', '.join(known)}")
        return (metric,)
    return tuple(dict.fromkeys(options.metric or default))


def _positive(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 1")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return value
