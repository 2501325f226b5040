"""Finished steps -> the Parquet tables of a grid. A row says the same whichever driver writes it, and when."""

import json
import re
import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator import attempts
from orchestrator.steps import Graph, Trial, recipe_of
from results import schema, store
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


def part(folder: Path, table: str, trial: str) -> Path:
    """Where a trial's part of a table is."""
    return folder / table / f"{trial}.parquet"


def is_written(folder: Path, trial: Trial) -> bool:
    """Whether the trial's row is there, and says that it is done."""
    found = _read_one(part(folder, "trials", trial.trial), ["status"])
    return found is not None and found["status"] == "done"


def _read_one(path: Path, columns: list[str]) -> dict[str, Any] | None:
    """Some columns of a part with one row; None where it is not there or not whole (power was lost)."""
    try:
        rows: list[dict[str, Any]] = pq.read_table(path, columns=columns).to_pylist()
    except (OSError, pa.ArrowException):
        return None
    return rows[0] if rows else None


def write_trial(
    root: Path, folder: Path, grid: str, graph: Graph, trial: Trial, errors: Mapping[str, str], git_commit: str | None
) -> dict[str, Any]:
    """Write all that belongs to a trial whose steps have ended; returns its row.

    Args:
        errors: step key -> why it failed; empty for a trial that is done.
        git_commit: recorded for a trial without a finished search, which knows its own.
    """
    keys = {"train": trial.train, "score": trial.score, "search": trial.search}
    there = {kind: store.step_folder(root, kind, key) for kind, key in keys.items() if key not in errors}
    error = next((errors[key] for key in keys.values() if key in errors), None)
    row = {
        **_labels(root, grid, graph, trial),
        **_metrics(there),
        **_history(root, keys),
        **_provenance(there, git_commit),
        "status": "failed" if error else "done",
        "error": error,
    }
    _write_queries(folder, trial, there)
    if "search" in there:
        target = folder / "runs" / f"{trial.trial}.trec"
        store.write_atomically(target, lambda temporary: _copy(there["search"] / "run.trec", temporary))
    # Last, because a row that is there means that all of the trial's files are.
    store.write_rows(part(folder, "trials", trial.trial), [row], schema.TRIALS)
    return row


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


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


def _labels(root: Path, grid: str, graph: Graph, trial: Trial) -> dict[str, Any]:
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
    if store.is_finished(root, "corpus", graph.corpus):
        summary = store.read_json(store.step_folder(root, "corpus", graph.corpus) / "summary.json")
        labels |= {"corpus_hash": summary["hash"], "n_documents": summary["documents"]}
    return labels


def _metrics(there: Mapping[str, Path]) -> dict[str, Any]:
    """Every column that the steps' `metrics.json` give."""
    metrics = {kind: store.read_json(folder / "metrics.json") for kind, folder in there.items()}
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


def _history(root: Path, keys: Mapping[str, str]) -> dict[str, Any]:
    """Attempts (of the step that took most), begin and end."""
    tried = [one for kind, key in keys.items() if (one := attempts.read(_folder(root, kind, key)))]
    begins = [one.started for each in tried for one in each]
    ends = [one.finished for each in tried for one in each if one.finished is not None]
    return {
        "attempts": max((len(each) for each in tried), default=0),
        "started": datetime.fromisoformat(min(begins)) if begins else None,
        "finished": datetime.fromisoformat(max(ends)) if ends else None,
    }


def _folder(root: Path, kind: str, key: str) -> Path:
    """A step's folder, finished or not."""
    final = store.step_folder(root, kind, key)
    return final if final.is_dir() else store.partial_folder(root, kind, key)


def _provenance(there: Mapping[str, Path], git_commit: str | None) -> dict[str, Any]:
    """Of the search; of this process where there is none."""
    found: dict[str, Any] = {"versions": attempts.versions(), "git_commit": git_commit}
    if "search" in there:
        found = store.read_json(there["search"] / attempts.PROVENANCE)
    return {"versions": json.dumps(found["versions"], sort_keys=True), "git_commit": found["git_commit"]}


def _write_queries(folder: Path, trial: Trial, there: Mapping[str, Path]) -> None:
    """One row a query: what `score` and `search` say of it, side by side."""
    tables = [pq.read_table(there[kind] / "queries.parquet") for kind in ("score", "search") if kind in there]
    if not tables:
        return
    merged: dict[str, dict[str, Any]] = {}
    for table in tables:
        for row in table.to_pylist():
            merged.setdefault(row["query"], {"trial": trial.trial}).update(row)
    rows = [merged[query] for query in sorted(merged)]
    store.write_rows(part(folder, "queries", trial.trial), rows, schema.QUERIES)


def read_curve(root: Path, train: str) -> list[dict[str, Any]]:
    """The logged steps of a training that is finished or was interrupted."""
    path = _folder(root, "train", train) / "curve.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def write_curve(root: Path, folder: Path, train: str) -> None:
    """`curves/<train key>.parquet`, unless it is there with as many rows as the training has logged by now."""
    path = part(folder, "curves", train)
    lines = read_curve(root, train)
    if lines and _row_count(path) != len(lines):
        names = [name for name in schema.CURVES.names if name != "train_key"]
        rows = [{"train_key": train} | {name: line.get(name) for name in names} for line in lines]
        store.write_rows(path, rows, schema.CURVES)


def _row_count(path: Path) -> int | None:
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, pa.ArrowException):
        return None


def write_baselines(root: Path, folder: Path, grid: str, graph: Graph, corpus: str) -> None:
    """`baselines/<corpus>.parquet`."""
    summary = store.read_json(store.step_folder(root, "corpus", graph.corpus) / "summary.json")
    found = store.read_json(store.step_folder(root, "baselines", graph.baselines) / "baselines.json")
    rows = [{"grid": grid, "corpus": corpus, "corpus_hash": summary["hash"]} | row for row in found]
    store.write_rows(part(folder, "baselines", corpus), rows, schema.BASELINES)


def superseded(folder: Path, trials: Iterable[Trial]) -> dict[str, list[Path]]:
    """Label of a trial of the grid -> rows with this label whose trial the grid no longer has.

    Rows from before labels said the number of new tokens have the label without it.
    """
    current = {trial.trial: trial.label for trial in trials}
    labels: dict[str, set[str]] = defaultdict(set)
    for label in current.values():
        labels[label].add(label)
        labels[_LENGTH.sub("", label)].add(label)
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted((folder / "trials").glob("*.parquet")):
        if path.stem not in current:
            for label in sorted(labels.get(_label(path.stem), ())):
                found[label].append(path)
    return found


def remove_superseded(folder: Path, old: Iterable[Path], trial: Trial) -> int:
    """Remove those of the old rows in whose place a trial's row now stands; returns how many.

    A row that was made under other settings is replaced where the trial is done and has the same label, init and
    number of new tokens. Nothing is lost: the steps stay.
    """
    row = _read_one(part(folder, "trials", trial.trial), ["status", "max_new_tokens"])
    if row is None or row["status"] != "done":
        return 0
    removed = 0
    for path in old:
        was = _read_one(path, ["init", "max_new_tokens"])
        # What a failed trial was asked for, or what a finished one wrote; a row that is not whole says nothing.
        lengths = (trial.budget.max_new_tokens, row["max_new_tokens"])
        if path.exists() and (was is None or (was["init"] == trial.init and was["max_new_tokens"] in lengths)):
            part(folder, "queries", path.stem).unlink(missing_ok=True)
            (folder / "runs" / f"{path.stem}.trec").unlink(missing_ok=True)
            path.unlink()
            removed += 1
    return removed
