"""Reading the results folder: rows of `trials` and `baselines` as frozen records, whatever grid they came from."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from laws.queries import PerQuery
from laws.tuning import Study, studies_of
from results.errors import BadAddress, TornFile, first_line
from results.local import LocalStore
from results.opening import open_store
from results.schema import BASELINES, LOSSES, METRICS, TRIALS, TUNING
from results.store import Store
from results.tables import parts, read_each

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
    train_flops: float
    infer_flops: float
    """A query's; NaN where an older table does not say."""
    latency_ms: float
    """A query's share of its batch's wall time."""
    measured: dict[str, Measured]
    cgl_chance: float
    cgl_published_chance: float
    status: str
    error: str
    finished: str
    versions: str
    git_commit: str
    source: str
    """Who published it; empty where a sweep measured it."""

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

    folders: tuple[str, ...]
    """Names of what was read: the last parts of its paths or addresses."""
    trials: tuple[Trial, ...]
    """Usable and failed ones, each (training, evaluation, budget) once."""
    baselines: tuple[Baseline, ...]
    duplicates: int
    """Rows left out because another one is of the same training, evaluation and budget."""
    studies: tuple[Study, ...] = ()
    """Of learning rates."""
    queries: PerQuery | None = None
    """What every trial says of each query, where that was kept."""

    @property
    def failed(self) -> tuple[Trial, ...]:
        """Rows that did not end well."""
        return tuple(trial for trial in self.trials if trial.status != "done")


def grid_folders(folder: str | Path) -> list[Store]:
    """The grids' own folders: the folder itself, or those directly below it. Raises BadTable where there is none."""
    try:
        store = open_store(folder)
    except BadAddress as error:
        raise BadTable(str(error)) from None
    if isinstance(store, LocalStore) and not store.root.is_dir():
        raise BadTable(f"{folder}: no such folder")
    store.check_there()
    there = store.listing("")
    if "trials" in there:
        return [store]
    found = [store.below(name) for name in there if not name.startswith(".") and "trials" in store.listing(name)]
    if not found:
        raise BadTable(f"{folder}: no trials here; expected {store.below('<grid>').shown('trials/*.parquet')}")
    return found


def read_tables(folders: Sequence[str | Path]) -> Tables:
    """Read every grid under the folders, which may be addresses in an object store.

    Raises:
        BadTable: one line that names what is wrong.
        OSError: the storage cannot be reached.
    """
    grids = list(dict.fromkeys(grid for folder in folders for grid in grid_folders(folder)))
    trials: list[Trial] = []
    baselines: dict[tuple[str, str, str], Baseline] = {}
    tuning: list[dict[str, Any]] = []
    for grid in grids:
        trials += [_trial(row, grid.name) for row in _read(grid, "trials", TRIALS, NEEDED)]
        for row in _read(grid, "baselines", BASELINES, ("corpus", "baseline")):
            baseline = _baseline(row)
            baselines[baseline.corpus, baseline.corpus_hash, baseline.baseline] = baseline
        tuning += _read(grid, "tuning", TUNING, ("study", "number", "learning_rate", "state", "is_chosen"))
    if not trials:
        raise BadTable(f"{', '.join(grid.address for grid in grids)}: no trials yet")
    unique = _once(trials)
    return Tables(
        folders=tuple(open_store(folder).name for folder in folders),
        trials=unique,
        baselines=tuple(baselines.values()),
        duplicates=len(trials) - len(unique),
        studies=studies_of(tuning),
        queries=PerQuery(grids=tuple(grids)),
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


def _read(grid: Store, folder: str, schema: pa.Schema, needed: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of all Parquet parts in a folder of a grid, as the schema has them."""
    names = parts(grid, folder)
    try:
        found = read_each(grid, names)
    except TornFile as error:
        raise BadTable(str(error)) from None
    shown = [grid.shown(name) for name in names]
    return [row for part, table in zip(shown, found, strict=True) for row in _rows(part, table, schema, needed)]


def _rows(part: str, table: pa.Table, schema: pa.Schema, needed: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of one part, cast to the schema; columns that it lacks and that are not needed are null."""
    missing = [name for name in needed if name not in table.column_names]
    if missing:
        raise BadTable(f"{part}: column {missing[0]!r} is missing")
    fields = [field for field in schema if field.name in table.column_names]
    columns = []
    for field in fields:
        try:
            columns.append(table.column(field.name).cast(field.type))
        except pa.ArrowException as error:
            raise BadTable(f"{part}: column {field.name!r} is no {field.type} ({first_line(error)})") from error
    rows = pa.table(columns, names=[field.name for field in fields]).to_pylist()
    empty = dict.fromkeys(schema.names)
    return [empty | row for row in rows]


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
        train_flops=_number(row["train_flops"]),
        infer_flops=_number(row["infer_flops_per_query"]),
        latency_ms=_number(row["latency_ms"]),
        measured=_measured(row, (*LOSSES, *METRICS)),
        cgl_chance=_number(row["cgl_chance"]),
        cgl_published_chance=_number(row["cgl_published_chance"]),
        status=row["status"] or "failed",
        error=row["error"] or "",
        finished=row["finished"].isoformat() if row["finished"] else "",
        versions=row["versions"] if _is_json(row["versions"]) else "{}",
        git_commit=row["git_commit"] or "",
        source=row["source"] or "",
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
