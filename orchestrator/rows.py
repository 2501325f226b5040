"""Finished steps -> the Parquet tables of a grid. A row says the same whichever driver writes it, and when."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from orchestrator.running import attempts
from orchestrator.steps import Graph, Trial, recipe_of
from results import parquet, schema, tables
from results.errors import TornFile
from results.store import Store
from workers.settings import Budget, ScoreJob, SearchJob

OWN_STEPS = ("train", "score", "search")
TRAIN_COLUMNS = (
    "n_params",
    "n_total",
    "n_embedding",
    "d_pairs",
    "d_tokens",
    "epochs",
    "learning_rate",
    "zero_stage",
    "workers",
    "offload",
    "micro_batch",
    "accumulation",
    "train_flops",
    "train_seconds",
)

_LENGTH = re.compile(r"-m(\d+)$")
"""The number of new tokens at the end of a label, where the grid gave one."""


def _label(name: str) -> str:
    """Of a trial by its name: what stands before its settings' hash."""
    return name.rpartition("-")[0]


def part(grid: str, table: str, trial: str) -> str:
    """Name of a trial's part of a table in the results folder."""
    return f"{grid}/{table}/{trial}{tables.PARQUET}"


def run_name(grid: str, trial: str) -> str:
    """Name of a trial's TREC run file."""
    return f"{grid}/runs/{trial}.trec"


def whole_parts(store: Store, grid: str, table: str, column: str) -> dict[str, list[Any]]:
    """Trial (or training) -> a column of its part of a table, of the parts that are there whole; several are read at
    a time, because each takes a while from an object store."""

    def read(name: str) -> list[Any] | None:
        try:
            return list(store.read_table(name, columns=[column]).column(column).to_pylist())
        except (FileNotFoundError, TornFile):
            return None

    names = tables.parts(store, f"{grid}/{table}")
    with ThreadPoolExecutor(tables.AT_ONCE) as pool:
        found = zip(names, pool.map(read, names), strict=True)
        return {PurePosixPath(name).stem: values for name, values in found if values is not None}


def _read_one(store: Store, name: str, columns: list[str]) -> dict[str, Any] | None:
    """Some columns of a part with one row; None where it is not there or not whole (power was lost)."""
    try:
        return _first(store, name, columns)
    except (FileNotFoundError, TornFile):
        return None


def _first(store: Store, name: str, columns: list[str]) -> dict[str, Any] | None:
    rows: list[dict[str, Any]] = store.read_table(name, columns=columns).to_pylist()
    return rows[0] if rows else None


def write_trial(
    store: Store, grid: str, graph: Graph, trial: Trial, errors: Mapping[str, str], git_commit: str | None
) -> dict[str, Any]:
    """Write all that belongs to a trial whose steps have ended; returns its row.

    Args:
        errors: step key -> why it failed; empty for a trial that is done.
        git_commit: recorded for a trial without a finished search, which knows its own.
    """
    keys = {"train": trial.train, "score": trial.score, "search": trial.search}
    there = {kind: key for kind, key in keys.items() if key not in errors}
    error = next((errors[key] for key in keys.values() if key in errors), None)
    row = {
        **_labels(store, grid, graph, trial),
        **_metrics(store, there),
        **_history(store, keys),
        **_provenance(store, there, git_commit),
        "status": "failed" if error else "done",
        "error": error,
    }
    _write_queries(store, grid, trial, there)
    if "search" in there:
        store.write_bytes(run_name(grid, trial.trial), _file(store, "search", there["search"], "run.trec"))
    # Last, because a row that is there means that all of the trial's files are.
    tables.write_rows(store, part(grid, "trials", trial.trial), [row], schema.TRIALS)
    return row


def _file(store: Store, kind: str, key: str, name: str) -> bytes:
    """A file of a finished step. Raises FileNotFoundError."""
    content = store.peek(kind, key, name)
    if content is None:
        raise FileNotFoundError(f"the finished step {kind} {key[:12]} has no {name}")
    return content


def read_json(store: Store, kind: str, key: str, name: str) -> Any:
    """What a finished step says in one of its JSON files. Raises FileNotFoundError."""
    return json.loads(_file(store, kind, key, name))


def budget_columns(budget: Budget) -> dict[str, Any]:
    """The columns that say what inference might spend; null what does not apply."""
    columns = budget.model_dump(mode="json")
    return columns | ({} if budget.samples else {"temperature": None})


def budget_name(row: Mapping[str, Any]) -> str:
    """`beams=16`, `samples=32/temperature=0.7`, `beams=16/views=body+title/rerank=10/max_new_tokens=4`.

    The number of new tokens is said where the grid gave one, as the trial's name tells: the column has the
    identifiers' own length elsewhere, and one budget must have one name for identifiers of every kind.
    """
    names = ("beams", "samples", "temperature", "views", "rerank")
    parts = [f"{name}={row[name]}" for name in names if row.get(name) is not None]
    asked = _LENGTH.search(_label(row["trial"]))
    return "/".join([*parts, f"max_new_tokens={asked[1]}"] if asked else parts)


def _labels(store: Store, grid: str, graph: Graph, trial: Trial) -> dict[str, Any]:
    score, search = graph.steps[trial.score].settings, graph.steps[trial.search].settings
    assert isinstance(score, ScoreJob)
    assert isinstance(search, SearchJob)
    labels = {
        "trial": trial.trial,
        "train_key": trial.train,
        "grid": grid,
        "corpus": trial.corpus,
        "identifiers": trial.identifiers,
        "family": trial.family,
        "model": trial.model,
        "init": trial.init,
        "seed": trial.seed,
        "n_params": trial.n_params,
        "d_pairs": trial.pairs,
        "recipe": recipe_of(graph, trial),
        **budget_columns(trial.budget),
        "split": search.evaluation.split,
        "negatives": score.evaluation.negatives,
        "batch": search.evaluation.batch,
    }
    if store.is_finished("corpus", graph.corpus):
        summary = read_json(store, "corpus", graph.corpus, "summary.json")
        labels |= {"corpus_hash": summary["hash"], "n_documents": summary["documents"]}
    return labels


def _metrics(store: Store, there: Mapping[str, str]) -> dict[str, Any]:
    """Every column that the steps' `metrics.json` give."""
    metrics = {kind: read_json(store, kind, key, "metrics.json") for kind, key in there.items()}
    train, score, search = (metrics.get(kind, {}) for kind in OWN_STEPS)
    row = {name: train[name] for name in TRAIN_COLUMNS if name in train}
    columns = set(schema.TRIALS.names) - set(TRAIN_COLUMNS)
    for found in (score, search):
        row |= {name: value for name, value in found.items() if name in columns}
    seconds = [found["eval_seconds"] for found in (score, search) if "eval_seconds" in found]
    peaks = [found["peak_memory_bytes"] for found in metrics.values() if found.get("peak_memory_bytes") is not None]
    if seconds:
        row["eval_seconds"] = sum(seconds)
    if peaks:
        row["peak_memory_bytes"] = max(peaks)
    return row


def _history(store: Store, keys: Mapping[str, str]) -> dict[str, Any]:
    """Attempts (of the step that took most), begin and end."""
    tried = [one for kind, key in keys.items() if (one := attempts.read(store, kind, key))]
    begins = [one.started for each in tried for one in each]
    ends = [one.finished for each in tried for one in each if one.finished is not None]
    return {
        "attempts": max((len(each) for each in tried), default=0),
        "started": datetime.fromisoformat(min(begins)) if begins else None,
        "finished": datetime.fromisoformat(max(ends)) if ends else None,
    }


def _provenance(store: Store, there: Mapping[str, str], git_commit: str | None) -> dict[str, Any]:
    """Of the search; of this process where there is none."""
    found: dict[str, Any] = {"versions": attempts.versions(), "git_commit": git_commit}
    if "search" in there:
        found = read_json(store, "search", there["search"], attempts.PROVENANCE)
    return {"versions": json.dumps(found["versions"], sort_keys=True), "git_commit": found["git_commit"]}


def _write_queries(store: Store, grid: str, trial: Trial, there: Mapping[str, str]) -> None:
    """One row a query: what `score` and `search` say of it, side by side."""
    kinds = [kind for kind in ("score", "search") if kind in there]
    if not kinds:
        return
    merged: dict[str, dict[str, Any]] = {}
    for kind in kinds:
        content = _file(store, kind, there[kind], "queries.parquet")
        for row in parquet.from_bytes(content).to_pylist():
            merged.setdefault(row["query"], {"trial": trial.trial}).update(row)
    rows = [merged[query] for query in sorted(merged)]
    tables.write_rows(store, part(grid, "queries", trial.trial), rows, schema.QUERIES)


def read_curve(store: Store, train: str) -> list[dict[str, Any]]:
    """The logged steps of a training that is finished or was interrupted."""
    lines = (store.peek("train", train, "curve.jsonl") or b"").splitlines()
    return [json.loads(line) for line in lines if line.endswith(b"}")]


def last_line(curve: bytes | None) -> dict[str, Any] | None:
    """The newest whole line of a training's curve."""
    lines = [line for line in (curve or b"")[-2048:].split(b"\n")[:-1] if line.startswith(b"{") and line.endswith(b"}")]
    found: dict[str, Any] | None = json.loads(lines[-1]) if lines else None
    return found


def write_curve(store: Store, grid: str, train: str) -> None:
    """`curves/<train key>.parquet`, unless it is there with as many rows as the training has logged by now."""
    name = part(grid, "curves", train)
    lines = read_curve(store, train)
    if lines and _row_count(store, name) != len(lines):
        columns = [column for column in schema.CURVES.names if column != "train_key"]
        rows = [{"train_key": train} | {column: line.get(column) for column in columns} for line in lines]
        tables.write_rows(store, name, rows, schema.CURVES)


def _row_count(store: Store, name: str) -> int | None:
    try:
        return len(store.read_table(name, columns=["step"]))
    except (FileNotFoundError, TornFile):
        return None


def write_baselines(store: Store, grid: str, graph: Graph, corpus: str) -> None:
    """`baselines/<corpus>.parquet`."""
    summary = read_json(store, "corpus", graph.corpus, "summary.json")
    found = read_json(store, "baselines", graph.baselines, "baselines.json")
    rows = [{"grid": grid, "corpus": corpus, "corpus_hash": summary["hash"]} | row for row in found]
    tables.write_rows(store, part(grid, "baselines", corpus), rows, schema.BASELINES)


def superseded(store: Store, grid: str, trials: Iterable[Trial]) -> dict[str, list[str]]:
    """Label of a trial of the grid -> trials with this label that have a row and that the grid no longer has.

    Rows from before labels said the number of new tokens have the label without it.
    """
    current = {trial.trial: trial.label for trial in trials}
    labels: dict[str, set[str]] = defaultdict(set)
    for label in current.values():
        labels[label].add(label)
        labels[_LENGTH.sub("", label)].add(label)
    found: dict[str, list[str]] = defaultdict(list)
    for name in tables.parts(store, f"{grid}/trials"):
        old = PurePosixPath(name).stem
        if old not in current:
            for label in sorted(labels.get(_label(old), ())):
                found[label].append(old)
    return found


def remove_superseded(store: Store, grid: str, old: Iterable[str], trial: Trial) -> int:
    """Remove the rows of those of the old trials in whose place a trial's row now stands; returns how many.

    A row that was made under other settings is replaced where the trial is done and has the same label, init and
    number of new tokens. Nothing is lost: the steps stay.
    """
    row = _read_one(store, part(grid, "trials", trial.trial), ["status", "max_new_tokens"])
    if row is None or row["status"] != "done":
        return 0
    removed = 0
    for other in old:
        try:
            was = _first(store, part(grid, "trials", other), ["init", "max_new_tokens"])
        except FileNotFoundError:  # removed before, for another trial
            continue
        except TornFile:
            was = None
        # What a failed trial was asked for, or what a finished one wrote; a row that is not whole says nothing.
        lengths = (trial.budget.max_new_tokens, row["max_new_tokens"])
        if was is None or (was["init"] == trial.init and was["max_new_tokens"] in lengths):
            for name in (part(grid, "queries", other), run_name(grid, other), part(grid, "trials", other)):
                store.delete(name)
            removed += 1
    return removed
