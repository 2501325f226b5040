"""Reading the results folder: rows of `trials` and `baselines` as frozen records, whatever grid they came from."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from laws.tuning import Study, studies_of
from results.schema import BASELINES, LOSSES, METRICS, TRIALS, TUNING

NEEDED = ("trial", "corpus", "identifiers", "family", "n_params", "d_pairs", "status")
"""Without these columns a table of trials says nothing about a law."""


class BadTable(ValueError):
    """The tables cannot be read. One line that names the folder or the file."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A metric with its interval over queries; NaN where it was not measured."""

    value: float
    lo: float
    hi: float

    @property
    def known(self) -> bool:
        """Whether there is a finite value."""
        return math.isfinite(self.value)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One row of `trials`, as far as laws and the report need it."""

    trial: str
    train_key: str | None
    grid: str
    corpus: str
    corpus_hash: str
    n_documents: int | None
    identifiers: str
    family: str
    model: str
    init: str
    seed: int | None
    n_params: float
    d_pairs: float
    beams: float
    max_new_tokens: float
    views: str
    """Of several views those that were searched; empty: all."""
    samples: float
    """How many identifiers were sampled; NaN where they were searched for, with `beams`."""
    temperature: float
    rerank: float
    """How many documents were ranked again; NaN: none."""
    recipe: str
    """Of tokenizer and training but the learning rate; empty where an older table does not say."""
    learning_rate: float | None
    epochs: int | None
    split: str
    """Of the queries that it was measured on; empty where an older table does not say."""
    negatives: int | None
    n_queries: int | None
    n_embedding: int | None
    measured: dict[str, Measured]
    cgl_chance: float
    cgl_published_chance: float
    status: str
    error: str
    finished: str
    versions: str
    git_commit: str

    @property
    def run(self) -> str:
        """The training run that it belongs to: trials that differ only in the budget share it."""
        told = (
            self.corpus_hash,
            self.identifiers,
            self.model,
            self.d_pairs,
            self.recipe,
            self.learning_rate,
            self.seed,
        )
        return self.train_key or " ".join(map(str, told))


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """One row of `baselines`."""

    corpus: str
    corpus_hash: str
    baseline: str
    n_queries: int | None
    measured: dict[str, Measured]


@dataclass(frozen=True, kw_only=True)
class Tables:
    """Everything that was read."""

    folders: tuple[Path, ...]
    trials: tuple[Trial, ...]
    """Usable and failed ones, each (training, evaluation, budget) once."""
    baselines: tuple[Baseline, ...]
    duplicates: int
    """Rows left out because another one is of the same training, evaluation and budget."""
    studies: tuple[Study, ...] = ()
    """Of learning rates."""

    @property
    def failed(self) -> tuple[Trial, ...]:
        """Rows that did not end well."""
        return tuple(trial for trial in self.trials if trial.status != "done")


def grid_folders(folder: Path) -> list[Path]:
    """The grids' folders at or directly below `folder`. Raises BadTable where there is none."""
    if not folder.is_dir():
        raise BadTable(f"{folder}: no such folder")
    if (folder / "trials").is_dir():
        return [folder]
    found = sorted(entry for entry in folder.iterdir() if (entry / "trials").is_dir())
    if not found:
        raise BadTable(f"{folder}: no trials here; expected {folder / '<grid>' / 'trials' / '*.parquet'}")
    return found


def read_tables(folders: Sequence[Path]) -> Tables:
    """Read every grid under the folders. Raises BadTable, with one line that names what is wrong."""
    grids = list(dict.fromkeys(grid for folder in folders for grid in grid_folders(folder)))
    trials: list[Trial] = []
    baselines: dict[tuple[str, str, str], Baseline] = {}
    tuning: list[dict[str, Any]] = []
    for grid in grids:
        for part in sorted((grid / "trials").glob("*.parquet")):
            trials += [_trial(row, grid.name) for row in _read(part, TRIALS, NEEDED)]
        for part in sorted((grid / "baselines").glob("*.parquet")):
            for row in _read(part, BASELINES, ("corpus", "baseline")):
                baseline = _baseline(row)
                baselines[baseline.corpus, baseline.corpus_hash, baseline.baseline] = baseline
        for part in sorted((grid / "tuning").glob("*.parquet")):
            tuning += _read(part, TUNING, ("study", "number", "learning_rate", "state", "is_chosen"))
    if not trials:
        raise BadTable(f"{', '.join(map(str, grids))}: no trials yet")
    unique = _once(trials)
    return Tables(
        folders=tuple(folders),
        trials=unique,
        baselines=tuple(baselines.values()),
        duplicates=len(trials) - len(unique),
        studies=studies_of(tuning),
    )


def _once(trials: Iterable[Trial]) -> tuple[Trial, ...]:
    """One row a (training, split, negatives, budget): the newest, and a finished one rather than a failed one.

    What was measured on other queries or against more negatives is another measurement, not a repeated one.
    """
    newest: dict[tuple[Any, ...], Trial] = {}
    for trial in sorted(trials, key=lambda trial: (trial.status == "done", trial.finished)):
        numbers = (trial.beams, trial.max_new_tokens, trial.samples, trial.temperature, trial.rerank)
        budget = (trial.views, *(None if math.isnan(number) else number for number in numbers))
        newest[trial.run, trial.n_params, trial.corpus_hash, trial.split, trial.negatives, budget] = trial
    return tuple(sorted(newest.values(), key=lambda trial: (trial.grid, trial.trial)))


def _read(part: Path, schema: pa.Schema, needed: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of one Parquet part, cast to the schema; columns that it lacks and that are not needed are null."""
    try:
        # memory_map off: a file that is replaced while it is read must not change under us
        table = pq.ParquetFile(part, memory_map=False).read()
    except (pa.ArrowException, OSError) as error:
        raise BadTable(f"{part}: not a readable Parquet file ({_first_line(error)})") from error
    missing = [name for name in needed if name not in table.column_names]
    if missing:
        raise BadTable(f"{part}: column {missing[0]!r} is missing")
    fields = [field for field in schema if field.name in table.column_names]
    columns = []
    for field in fields:
        try:
            columns.append(table.column(field.name).cast(field.type))
        except pa.ArrowException as error:
            raise BadTable(f"{part}: column {field.name!r} is no {field.type} ({_first_line(error)})") from error
    rows = pa.table(columns, names=[field.name for field in fields]).to_pylist()
    empty = dict.fromkeys(schema.names)
    return [empty | row for row in rows]


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _measured(row: dict[str, Any], names: Iterable[str]) -> dict[str, Measured]:
    return {
        name: Measured(value=_number(row[name]), lo=_number(row[name + "_lo"]), hi=_number(row[name + "_hi"]))
        for name in names
    }


def _trial(row: dict[str, Any], grid: str) -> Trial:
    return Trial(
        trial=row["trial"] or "",
        train_key=row["train_key"],
        grid=row["grid"] or grid,
        corpus=row["corpus"] or "",
        corpus_hash=row["corpus_hash"] or "",
        n_documents=row["n_documents"],
        identifiers=row["identifiers"] or "",
        family=row["family"] or "",
        model=row["model"] or row["family"] or "",
        init=row["init"] or "",
        seed=row["seed"],
        n_params=_number(row["n_params"]),
        d_pairs=_number(row["d_pairs"]),
        beams=_number(row["beams"]),
        max_new_tokens=_number(row["max_new_tokens"]),
        views=row["views"] or "",
        samples=_number(row["samples"]),
        temperature=_number(row["temperature"]),
        rerank=_number(row["rerank"]),
        recipe=row["recipe"] or "",
        learning_rate=row["learning_rate"],
        epochs=row["epochs"],
        split=row["split"] or "",
        negatives=row["negatives"],
        n_queries=row["n_queries"],
        n_embedding=row["n_embedding"],
        measured=_measured(row, (*LOSSES, *METRICS)),
        cgl_chance=_number(row["cgl_chance"]),
        cgl_published_chance=_number(row["cgl_published_chance"]),
        status=row["status"] or "failed",
        error=row["error"] or "",
        finished=row["finished"].isoformat() if row["finished"] else "",
        versions=row["versions"] if _is_json(row["versions"]) else "{}",
        git_commit=row["git_commit"] or "",
    )


def _is_json(text: str | None) -> bool:
    try:
        return isinstance(json.loads(text or ""), dict)
    except json.JSONDecodeError:
        return False


def _baseline(row: dict[str, Any]) -> Baseline:
    return Baseline(
        corpus=row["corpus"] or "",
        corpus_hash=row["corpus_hash"] or "",
        baseline=row["baseline"] or "",
        n_queries=row["n_queries"],
        measured=_measured(row, METRICS),
    )
