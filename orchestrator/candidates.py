"""The trials of a grid as what could be run next, each with what it still takes; and a grid of some of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from orchestrator.cells import Cells
from orchestrator.forecasting.estimates import make_estimates
from orchestrator.forecasting.forecast import lengths_of
from orchestrator.grid import Grid, Loaded, load
from orchestrator.plan import Plan, check_capacity, check_held_out, dropped, failed, finished, read_summary
from orchestrator.steps import Graph, Trial, recipe_of
from orchestrator.tuning.tuned import expand_tuned
from results.opening import open_store
from results.store import Store
from workers.errors import BadInput
from workers.settings import Budget


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A trial of a grid, as a row of `trials` would name it, with what it still takes."""

    trial: str
    corpus: str
    identifiers: str
    family: str
    init: str
    recipe: str
    split: str
    model: str
    n: int | None
    """None for a pretrained model whose shape only the hub knows."""
    d: int
    seed: int
    beams: int | None
    """None where identifiers are sampled."""
    max_new_tokens: int | None
    """None: as long as an identifier is."""
    is_plain: bool
    """Whether its budget is a plain beam search: over all views, nothing ranked again."""
    budget: str
    """The budget's label."""
    run: str
    """The training that it belongs to."""
    steps: Mapping[str, float]
    """FLOPs of each step that is still to be done, by its key; those of one training's trials are shared."""
    is_done: bool
    has_failed: bool
    """Whether a step of it has failed for good."""
    trains_again: bool
    """Whether its training is finished and its weights are gone, so that it takes the training once more."""


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """All trials of a grid."""

    loaded: Loaded
    trials: tuple[Candidate, ...]
    assumed: tuple[str, ...]
    """What the FLOPs were estimated without, in words."""


def results_of(folder: str) -> Store:
    """The results folder that a folder is, or that a grid's own folder lies in. Raises BadAddress."""
    store = open_store(folder)
    if "trials" not in store.listing(""):
        return store
    return open_store(folder.rstrip("/").rpartition("/")[0] or ".")


def read_candidates(path: Path, store: Store) -> Candidates:
    """The grid file's trials against a results folder; nothing is written or started.

    Raises:
        BadInput: the grid is wrong.
    """
    loaded = load(path)
    try:
        graph = expand_tuned(loaded.grid, store)
    except BadInput as error:
        raise loaded.source.locate(error) from None
    summary = read_summary(store, graph)
    if summary is not None:  # what a run would refuse is no candidate
        check_held_out(loaded, summary)
        check_capacity(loaded, summary, store.fetch("corpus", graph.corpus))
    there = finished(store, graph)
    plan = Plan(
        loaded=loaded,
        graph=graph,
        store=store,
        finished=there,
        dropped=dropped(store, graph, there),
        summary=summary,
        failed=failed(store, graph),
    )
    estimates = make_estimates(graph, lengths_of(plan), {}, ())
    flops = {key: work.flops for key, work in estimates.works.items()}
    trials = tuple(_candidate(plan, trial, flops) for trial in graph.trials)
    return Candidates(loaded=loaded, trials=trials, assumed=estimates.lengths.assumed)


def _candidate(plan: Plan, trial: Trial, flops: Mapping[str, float]) -> Candidate:
    needed, is_done = _needed(plan.graph, trial), plan.is_done(trial)
    left = set() if is_done else needed - (plan.finished - plan.dropped)
    return Candidate(
        **{
            name: getattr(trial, name) for name in ("trial", "corpus", "identifiers", "family", "init", "model", "seed")
        },
        recipe=recipe_of(plan.graph, trial),
        split=plan.loaded.grid.evaluation.split,
        n=trial.n_params,
        d=trial.pairs,
        beams=trial.budget.beams,
        max_new_tokens=trial.budget.max_new_tokens,
        is_plain=_is_plain(trial.budget),
        budget=trial.budget.label,
        run=trial.train,
        steps={key: flops[key] for key in sorted(left)},
        is_done=is_done,
        has_failed=not plan.failed.keys().isdisjoint(left),
        trains_again=trial.train in left & plan.finished,
    )


def _needed(graph: Graph, trial: Trial) -> set[str]:
    """The trial's steps, and all that these need."""
    found: set[str] = set()
    waiting = [trial.train, trial.score, trial.search]
    while waiting:
        key = waiting.pop()
        if key not in found:
            found.add(key)
            waiting += [needed for _, needed in graph.steps[key].needs]
    return found


def _is_plain(budget: Budget) -> bool:
    return budget.samples is None and not budget.views and not budget.rerank


# ---------------------------------------------------------------- a grid of some of them

AXES = ("budgets", "seeds", "pairs", "models", "identifiers")
"""Of a block of cells, in the order in which blocks are merged."""


def write_grid(candidates: Candidates, chosen: Iterable[str], path: Path) -> Grid:
    """Write a grid of the trials that are done and those chosen, by name; returns it as `run_grid.py` will read it.

    Raises:
        BadInput: the file is the grid that was read.
        OSError: it cannot be written.
    """
    loaded = candidates.loaded
    if path.exists() and path.resolve() == loaded.source.path.resolve():
        raise BadInput(f"{path}: is the grid that was read; give the next one another name")
    wanted = set(chosen)
    cells = blocks(trial for trial in candidates.trials if trial.is_done or trial.trial in wanted)
    name = f"{loaded.grid.name[:60]}-next"
    grid = loaded.grid.model_copy(update={"name": name, "cells": cells})
    path.parent.mkdir(parents=True, exist_ok=True)
    values = grid.model_dump(mode="json", exclude_unset=True)
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
    path.write_text(text, encoding="utf-8")
    return load(path).grid


def blocks(trials: Iterable[Candidate]) -> tuple[Cells, ...]:
    """Few blocks of cells that together keep exactly these trials: those that differ on one axis alone are merged."""
    found = [
        {
            "identifiers": frozenset([trial.identifiers]),
            "models": frozenset([trial.model]),
            "pairs": frozenset([trial.d]),
            "seeds": frozenset([trial.seed]),
            "budgets": frozenset([trial.budget]),
        }
        for trial in trials
    ]
    order = {axis: list(dict.fromkeys(value for block in found for value in block[axis])) for axis in AXES}
    for axis in AXES:
        merged: dict[tuple[frozenset[object], ...], dict[str, frozenset[object]]] = {}
        for block in found:
            rest = tuple(block[other] for other in AXES if other != axis)
            known = merged.get(rest, block)
            merged[rest] = {**block, axis: known[axis] | block[axis]}
        found = list(merged.values())
    return tuple(
        Cells.model_validate({axis: tuple(sorted(block[axis], key=order[axis].index)) for axis in reversed(AXES)})
        for block in found
    )
