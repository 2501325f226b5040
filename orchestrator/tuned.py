"""What studies have found: read from their steps, put into the graph, and written into the grid's tables."""

from pathlib import Path
from typing import Any

from orchestrator.grid import Grid, Loaded
from orchestrator.steps import Graph, Step, expand, n_params
from orchestrator.tuning_settings import TuneJob, Tuned, is_tuned
from results import store
from workers import identifiers as identifier_kinds

BEST, JOURNAL, TRIALS = "best.json", "study.journal", "trials.parquet"


def expand_tuned(grid: Grid, root: Path) -> Graph:
    """The grid's graph, with what its finished studies have found in its trainings."""
    graph = expand(grid)
    if grid.tuning is None:
        return graph
    finished = store.finished_keys(root, "tune")
    studies = [key for key, step in graph.steps.items() if step.kind == "tune" and key in finished]
    return expand(grid, {key: read(root, key) for key in studies})


def read(root: Path, key: str) -> Tuned:
    """What a finished study has found."""
    return Tuned.model_validate(store.read_json(store.step_folder(root, "tune", key) / BEST))


def check(loaded: Loaded, summary: dict[str, Any], corpus: Path | None) -> None:
    """Raises BadInput where the corpus has no dev queries, or too few pairs for the tuning's D."""
    grid = loaded.grid
    if grid.tuning is None:
        return
    if not summary["queries"]["dev"]:
        message = "needs held-out dev queries to compare learning rates on, and the corpus has none"
        raise loaded.source.error(("tuning",), message)
    for identifiers in grid.identifiers:
        labels = identifiers.only.models
        if not any(is_tuned(grid.tuning, model) for model in grid.models if labels is None or model.label in labels):
            continue
        largest = identifier_kinds.capacity(identifiers, summary, corpus)
        if grid.tuning.pairs > largest:
            message = f"{grid.tuning.pairs} is more than the corpus has; the largest with {identifiers.kind} is {largest}"
            raise loaded.source.error(("tuning", "pairs"), message)
