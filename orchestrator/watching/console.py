"""What a person sees while a sweep runs: a live view on a terminal, plain lines elsewhere, a table at the end."""

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from orchestrator.plan import plain_table
from orchestrator.rows import budget_name
from orchestrator.steps import Graph, Step
from orchestrator.tuning import tuned
from workers.settings import SearchJob, TrainJob

SHOWN = (
    *("trial", "corpus", "identifiers", "family", "n_params", "d_pairs", "status"),
    *("beams", "samples", "temperature", "views", "rerank", "max_new_tokens"),
    *("cgl", "cgl_chance", "hit@1", "hit@10"),
)
"""Columns of trials that the tables here are made of."""
PIPE_WIDTH = 240
"""Columns where the output is no terminal: tables are not cut to a screen that is not there."""
EVERY_LINE = 300
"""Steps up to which each one that ends gets a plain line; above, a line a second."""


def make_console(error: bool = False) -> Console:
    """For standard output (or standard error): as wide as the terminal; plain text where it is piped."""
    file = sys.stderr if error else sys.stdout
    return Console(file=file, highlight=False, markup=False, width=None if file.isatty() else PIPE_WIDTH)


def describe(graph: Graph, step: Step) -> str:
    """`train ngram t5-29k d4000 s0`, `search ngram t5-29k d4000 s0 b16`, `tune ngram t5-29k`; kind and key else."""
    if step.kind == "tune" and (named := tuned.named(graph).get(step.key)):
        return f"tune {named.identifiers} {named.model}"
    training = graph.steps[dict(step.needs)["train"]] if "train" in dict(step.needs) else step
    if not isinstance(training.settings, TrainJob):
        return f"{step.kind} {step.key[:8]}"
    job = training.settings
    budget = f" {step.settings.budget.label}" if isinstance(step.settings, SearchJob) else ""
    label = next((trial.identifiers for trial in graph.trials if trial.train == training.key), "")
    return f"{step.kind} {label} {job.model.label} d{job.pairs} s{job.seed}{budget}"


def duration(seconds: float) -> str:
    """`8 s`, `3 min`, `2 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 9.5 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


# ---------------------------------------------------------------- tables of rows


def row_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Trials with their main metrics."""
    table = plain_table("trial", "N", "D", "budget", "CGL", "chance", "Hit@1", "Hit@10", "state")
    for row in rows:
        n, pairs = row.get("n_params"), row.get("d_pairs")
        table.add_row(
            row["trial"],
            f"{n:,}" if n else "?",
            f"{pairs:,}" if pairs else "?",
            budget_name(row),
            *(_figure(row.get(name)) for name in ("cgl", "cgl_chance", "hit@1", "hit@10")),
            row["status"],
        )
    return table


def summary_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A line for each (corpus, identifiers, family): how many trials, and the best of them."""
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["corpus"], row["identifiers"], row["family"]].append(row)
    left = ("identifiers", "family")
    table = plain_table("corpus", *left, "trials", "failed", "lowest CGL", "chance", "best Hit@10", left=left)
    for group, members in groups.items():
        failed = sum(row["status"] == "failed" for row in members)
        scored = [row for row in members if row.get("cgl") is not None]
        best = min(scored, key=lambda row: float(row["cgl"]), default={})
        hits = [row["hit@10"] for row in members if row.get("hit@10") is not None]
        cgl, chance = _figure(best.get("cgl")), _figure(best.get("cgl_chance"))
        table.add_row(*group, str(len(members)), str(failed), cgl, chance, _figure(max(hits, default=None)))
    return table


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
