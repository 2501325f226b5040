"""What studies have found: read from their steps, put into the graph, and written into the grid's tables."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from orchestrator.grid import Grid, Loaded
from orchestrator.labels import safe
from orchestrator.rows import read_json
from orchestrator.steps import Graph, Step, Trial, expand
from orchestrator.tuning_settings import Tuned, TuneJob, is_tuned
from results import schema, tables
from results.store import Store
from workers import identifiers as identifier_kinds

BEST, JOURNAL, TRIALS = "best.json", "study.journal", "trials.parquet"


def expand_tuned(grid: Grid, store: Store) -> Graph:
    """The grid's graph, with what its finished studies have found in its trainings. Raises as `expand` does."""
    graph = expand(grid)
    if grid.tuning is None:
        return graph
    finished = store.finished("tune")
    return expand(grid, {step.key: read(store, step.key) for step in studies(graph) if step.key in finished})


def read(store: Store, key: str) -> Tuned:
    """What a finished study has found."""
    return Tuned.model_validate(read_json(store, "tune", key, BEST))


def studies(graph: Graph) -> list[Step]:
    """The graph's studies."""
    return [step for step in graph.steps.values() if step.kind == "tune"]


def named(graph: Graph) -> dict[str, Trial]:
    """Study -> a trial of the grid whose learning rate it decides: one that has its identifiers and its model."""
    found: dict[str, Trial] = {}
    for trial in graph.trials:
        if trial.train in graph.tunes:
            found.setdefault(graph.tunes[trial.train], trial)
    return found


def check(loaded: Loaded, summary: Mapping[str, Any], corpus: Path | None) -> None:
    """Raises BadInput where the corpus has no dev queries, or too few pairs for the tuning's D."""
    grid = loaded.grid
    if grid.tuning is None:
        return
    if not summary["queries"]["dev"]:
        message = "needs held-out dev queries to compare learning rates on, and the corpus has none"
        raise loaded.source.error(("tuning",), message)
    for identifiers in grid.identifiers:
        wanted = identifiers.only.models
        if any(is_tuned(grid.tuning, model) for model in grid.models if wanted is None or model.label in wanted):
            pairs, largest = grid.tuning.pairs, identifier_kinds.capacity(identifiers, dict(summary), corpus)
            if pairs > largest:
                message = f"{pairs} is more than the corpus has; the largest D with {identifiers.kind} is {largest}"
                raise loaded.source.error(("tuning", "pairs"), message)


def write_table(store: Store, grid: str, graph: Graph, key: str) -> None:
    """`tuning/<corpus>-<identifiers>-<model>.parquet` of the grid: the trials of a finished study."""
    study, trial = graph.steps[key].settings, named(graph)[key]
    assert isinstance(study, TuneJob)
    labels = {
        "grid": grid,
        "study": key,
        "corpus": trial.corpus,
        "corpus_hash": read_json(store, "corpus", graph.corpus, "summary.json")["hash"],
        "identifiers": trial.identifiers,
        "family": trial.family,
        "model": trial.model,
        "n_params": trial.n_params,
        "d_pairs": study.pairs,
        "epochs": study.training.epochs,
        "metric": study.metric,
        "chance": read(store, key).chance,
    }
    found = pq.read_table(store.fetch("tune", key) / TRIALS).to_pylist()
    name = f"{grid}/tuning/{trial.corpus}-{trial.identifiers}-{safe(trial.model)}{tables.PARQUET}"
    tables.write_rows(store, name, [row | labels for row in found], schema.TUNING)
