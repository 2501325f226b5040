"""Finished steps -> the Parquet tables of a grid. A row says the same whichever driver writes it, and when."""

import json
import shutil
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from orchestrator import attempts
from orchestrator.steps import Graph, Trial
from results import schema, store

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
    "train_flops",
    "train_seconds",
)


def part(folder: Path, table: str, trial: str) -> Path:
    """Where a trial's part of a table is."""
    return folder / table / f"{trial}.parquet"


def is_written(folder: Path, trial: Trial) -> bool:
    """Whether the trial's row is there, and says that it is done."""
    path = part(folder, "trials", trial.trial)
    return path.exists() and pq.read_table(path, columns=["status"])["status"].to_pylist() == ["done"]


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


def _labels(root: Path, grid: str, graph: Graph, trial: Trial) -> dict[str, Any]:
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
        "beams": trial.beams,
        "max_new_tokens": trial.max_new_tokens,
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
    """`curves/<train key>.parquet`, unless it is there."""
    path = part(folder, "curves", train)
    if not path.exists():
        names = [name for name in schema.CURVES.names if name != "train_key"]
        rows = [{"train_key": train} | {name: line.get(name) for name in names} for line in read_curve(root, train)]
        store.write_rows(path, rows, schema.CURVES)


def write_baselines(root: Path, folder: Path, grid: str, graph: Graph, corpus: str) -> None:
    """`baselines/<corpus>.parquet`."""
    summary = store.read_json(store.step_folder(root, "corpus", graph.corpus) / "summary.json")
    found = store.read_json(store.step_folder(root, "baselines", graph.baselines) / "baselines.json")
    rows = [{"grid": grid, "corpus": corpus, "corpus_hash": summary["hash"]} | row for row in found]
    store.write_rows(part(folder, "baselines", corpus), rows, schema.BASELINES)


def remove_superseded(folder: Path, trials: Iterable[Trial]) -> int:
    """Remove rows of the grid's cells that were made under other settings; returns how many.

    A cell that the grid no longer has keeps its row. Nothing is lost: the steps stay.
    """
    current = {trial.trial for trial in trials}
    cells = {trial.cell for trial in trials}
    labels = {label for label, _ in cells}
    removed = 0
    for path in (folder / "trials").glob("*.parquet"):
        if path.stem in current or path.stem.rpartition("-")[0] not in labels:
            continue
        init = pq.read_table(path, columns=["init"])["init"].to_pylist()
        if (path.stem.rpartition("-")[0], init[0]) in cells:
            part(folder, "queries", path.stem).unlink(missing_ok=True)
            (folder / "runs" / f"{path.stem}.trec").unlink(missing_ok=True)
            path.unlink()
            removed += 1
    return removed
