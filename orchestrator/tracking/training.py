"""What W&B shows of a training: its config, curve, evaluations and summary."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from orchestrator.rows import budget_name
from orchestrator.steps import Graph, Trial, recipe_of
from results import dashboard
from results.schema import LOSSES, METRICS
from workers.settings import TrainJob

if TYPE_CHECKING:
    import wandb

CONFIG = (
    "corpus",
    "corpus_hash",
    "n_documents",
    "identifiers",
    "family",
    "model",
    "init",
    "seed",
    "n_params",
    "n_total",
    "n_embedding",
    "d_pairs",
    "d_tokens",
    "epochs",
    "learning_rate",
    "recipe",
    "zero_stage",
    "workers",
    "split",
    "negatives",
)
"""Columns that are the same for all trials of a training: what dashboards group and filter by."""
CURVE = ("pairs", "loss", "learning_rate", "gradient_norm")
BUDGET = ("beams", "max_new_tokens", "views", "samples", "temperature", "rerank")


def _with_ends(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name + end for name in names for end in ("", "_lo", "_hi"))


OF_TRAINING = (
    *_with_ends(LOSSES),
    *("cgl_chance", "cgl_published_chance", "train_flops", "train_seconds"),
)
"""Measured once a training, whatever the budget."""
OF_BUDGET = (
    *_with_ends(METRICS),
    *("infer_flops_per_query", "latency_ms", "queries_per_s", "eval_seconds", "peak_memory_bytes"),
)
SUMMARISED = (*METRICS, "infer_flops_per_query", "latency_ms", "queries_per_s")
"""Of each budget, beside the table: what panels over many runs can draw."""
EVALUATIONS = ("trial", *BUDGET, *OF_BUDGET, *_with_ends(LOSSES), "n_queries", "status")
"""Columns of the table of evaluations, one row a budget."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """What the results folder says of a training now."""

    key: str
    """Of its step; the W&B run's id."""
    name: str
    config: Mapping[str, Any]
    tags: Sequence[str] = ()
    curve: Sequence[Mapping[str, Any]] = ()
    """Its logged steps, oldest first."""
    rows: Sequence[Mapping[str, Any]] = ()
    """Of its trials, as far as they have ended."""

    @property
    def done(self) -> frozenset[str]:
        """Its trials that have ended well."""
        return frozenset(row["trial"] for row in self.rows if row["status"] == "done")

    def digest(self) -> str:
        """The same for two that say the same."""
        last = self.curve[-1]["step"] if self.curve else None
        said = json.dumps([self.name, self.config, self.tags, last, self.rows], sort_keys=True, default=str)
        return hashlib.sha256(said.encode()).hexdigest()[:16]


def describe(
    graph: Graph, trials: Sequence[Trial], curve: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]
) -> Training:
    """What there is to say of a training, from the trials that share it.

    Args:
        trials: all of its trials in the grid; at least one.
        rows: their rows, of those that have one; what was measured stands in place of what was planned.
    """
    first = trials[0]
    step = graph.steps[first.train]
    job = step.settings
    assert isinstance(job, TrainJob)
    planned = {
        "corpus": first.corpus,
        "identifiers": first.identifiers,
        "family": first.family,
        "model": first.model,
        "init": first.init,
        "seed": first.seed,
        "n_params": first.n_params,
        "d_pairs": first.pairs,
        "recipe": recipe_of(graph, first),
        "epochs": job.training.epochs,
        "learning_rate": job.training.learning_rate,
        "workers": step.workers,
    }
    found = {name: row[name] for name in CONFIG for row in rows if row.get(name) is not None}
    return Training(
        key=first.train,
        name=f"{first.corpus} {first.identifiers} {first.model} d{first.pairs} s{first.seed}",
        config=planned | found | {"settings": _portable(job.model_dump(mode="json"))},
        tags=(
            *(first.corpus, first.identifiers, first.family, first.model),
            *(f"init={first.init}", f"d={first.pairs}", f"seed={first.seed}"),
        ),
        curve=curve,
        rows=rows,
    )


def _portable(value: Any) -> Any:
    """Settings with absolute paths cut to their last part: a home folder tells who runs it."""
    if isinstance(value, dict):
        return {key: _portable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_portable(item) for item in value]
    if isinstance(value, str) and PurePath(value).is_absolute():
        return PurePath(value).name
    return value


# ---------------------------------------------------------------- into a run


def define_axes(run: "wandb.Run") -> None:
    """Panels draw the curve over pairs. Said whenever a run is opened: what is said last holds."""
    run.define_metric("pairs")
    for name in CURVE[1:]:
        run.define_metric(name, step_metric="pairs")


def write_curve(run: "wandb.Run", training: Training, after: int) -> int:
    """Log the steps after `after`; returns the last that W&B has.

    A training that was interrupted logs the steps since its checkpoint again: W&B keeps those it has, since its
    steps only go up.
    """
    for line in training.curve:
        if line["step"] > after:
            after = line["step"]
            run.log({name: line.get(name) for name in CURVE}, step=after, commit=True)
    return after


def write_evaluations(run: "wandb.Run", training: Training, after: int, known: frozenset[str]) -> int:
    """Write config, table and summary of a training that has ended; returns the last step that W&B has.

    Args:
        after: the last step until now; the table is logged at the next one.
        known: trials of the table that W&B has; it is not logged again where nothing is new.
    """
    run.config.update(dict(training.config), allow_val_change=True)
    done = [row for row in training.rows if row["status"] == "done"]
    if not training.done <= known:
        # A training with a finished evaluation logs no further step, so none can meet this one.
        after += 1
        cells = [[row.get(name) for name in EVALUATIONS] for row in done]
        dashboard.log_table(run, "evaluations", EVALUATIONS, cells, step=after)
    run.summary.update(_summary(training, done))
    return after


def exit_code(training: Training) -> int:
    """0: all of its trials are done; W&B shows another one as a failed run."""
    return 0 if training.rows and len(training.done) == len(training.rows) else 1


def _summary(training: Training, done: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All of it, whatever W&B has: what goes on in another offline folder has a summary of its own."""
    said: dict[str, Any] = {name: training.curve[-1].get(name) for name in CURVE[:2] if training.curve}
    said |= {name: row[name] for name in OF_TRAINING for row in done if row.get(name) is not None}
    for row in done:
        measured = {name: row[name] for name in SUMMARISED if row.get(name) is not None}
        budget = budget_name(row).replace(".", "_")  # W&B takes a dot for a step into a mapping
        said |= {f"{budget}/{name}": value for name, value in measured.items()}
    failed = [row["error"] or "" for row in training.rows if row["status"] != "done"]
    said["status"] = "failed" if failed or not training.rows else "done"
    if failed:
        said["failure"] = failed[0].split(":")[0]  # the kind; what follows may name paths of the machine
    return said
