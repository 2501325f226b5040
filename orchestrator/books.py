"""What follows when a step ends: rows of trials, curves, what is told to people and to W&B."""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa

from orchestrator import plan, rows, tracking
from orchestrator.running import failures
from orchestrator.running.fleet import Fleet
from orchestrator.running.jobs import Outcome
from orchestrator.running.scheduler import Scheduler, Task
from orchestrator.steps import Step, Trial
from orchestrator.tuning import tuned
from orchestrator.watching import live
from results import schema, tables
from results.errors import TornFile
from results.store import Store

AGAIN_SECONDS = 5.0
"""Between two tries to write rows where the results folder is full or out of reach."""
PATIENCE_SECONDS = 120.0
"""For which that is tried at the end of a sweep."""


@dataclass(kw_only=True)
class Books:
    """A `driving.Watch` that writes down what has ended, and the rows that follow from it."""

    plan: plan.Plan
    view: live.PlainView
    tracker: tracking.Tracker
    commit: str | None
    errors: dict[str, str] = field(default_factory=dict)
    """Step key -> why it failed."""
    removed: int = 0
    """Rows under earlier settings that others stand in place of."""

    def __post_init__(self) -> None:
        self._store, self._grid = self.plan.store, self.plan.loaded.grid.name
        self._late: deque[Callable[[], None]] = deque()
        self._again = 0.0
        self._superseded = rows.superseded(self._store, self._grid, self.plan.graph.trials)
        found = rows.whole_parts(self._store, self._grid, "trials", "status")
        self._written = {trial for trial, status in found.items() if status == ["done"]}
        new = {step.key for step in self.plan.new}
        self._open: dict[str, set[str]] = {}
        self._trials_of: dict[str, list[Trial]] = defaultdict(list)
        self._waiting: dict[str, int] = defaultdict(int)
        for trial in self.plan.graph.trials:
            own = (trial.train, trial.score, trial.search)
            self._open[trial.trial] = {key for key in own if key in new}
            self._waiting[trial.train] += 1
            for key in own:
                self._trials_of[key].append(trial)

    def write_finished(self) -> None:
        """Write what finished steps allow and the grid's folder lacks."""
        if self.plan.graph.baselines in self.plan.finished:
            self._write_baselines()
        curves = rows.whole_parts(self._store, self._grid, "curves", "step").keys()
        for train in dict.fromkeys(trial.train for trial in self.plan.graph.trials):
            # A row is written after its training's curve.
            told = train in curves and any(trial.trial in self._written for trial in self._trials_of[train])
            if train in self.plan.finished and not told:
                rows.write_curve(self._store, self._grid, train)
        for step in tuned.studies(self.plan.graph):
            if step.key in self.plan.finished:
                tuned.write_table(self._store, self._grid, self.plan.graph, step.key)
        for trial in self.plan.graph.trials:
            if not self._open[trial.trial]:
                self._close(trial)

    # ---------------------------------------------------------------- a `Watch`

    def started(self, task: Task) -> None:
        """An attempt has begun."""
        self.view.started(task)
        if task.step.kind == "train":
            self.tracker.began(task.step.key)

    def retried(self, task: Task, outcome: Outcome) -> None:
        """An attempt has failed, and there will be another."""
        self.view.retried(task, outcome)

    def tick(self, fleet: Fleet, scheduler: Scheduler) -> None:
        """Called a few times a second."""
        self.view.tick(fleet, scheduler)
        if self._late and time.monotonic() > self._again:
            self._write_late()

    def line(self, text: str) -> None:
        """Something that a person should know."""
        self.view.line(text)

    def ended(self, step: Step, outcome: Outcome) -> None:
        """A step has ended for good."""
        if outcome.status == "failed":
            self.errors[step.key] = f"{outcome.kind}: {outcome.error}"
        if step.kind == "train":
            self._write(lambda: rows.write_curve(self._store, self._grid, step.key))
        elif step.kind == "baselines" and outcome.status != "failed":
            self._write(self._write_baselines)
        self.view.ended(step, outcome)
        for trial in self._trials_of.get(step.key, ()):
            self._open[trial.trial].discard(step.key)
            if not self._open[trial.trial]:
                self._write(partial(self._close, trial))

    # ---------------------------------------------------------------- rows

    def _write(self, write: Callable[[], None]) -> None:
        """Now, or later where the results folder is full or out of reach: in order, because a row comes last."""
        self._late.append(write)
        if len(self._late) == 1:
            self._write_late()

    def _write_late(self) -> None:
        while self._late:
            try:
                self._late[0]()
            except OSError as error:
                self._again = time.monotonic() + AGAIN_SECONDS
                self.line(f"rows wait to be written: {failures.short(error)}")
                return
            self._late.popleft()

    def finish(self) -> None:
        """Write what is still to be written, with patience. Raises OSError where it cannot be."""
        until = time.monotonic() + PATIENCE_SECONDS
        while self._late and time.monotonic() < until:
            self._write_late()
            if self._late:
                time.sleep(AGAIN_SECONDS)
        while self._late:
            self._late[0]()
            self._late.popleft()

    def _write_baselines(self) -> None:
        graph = self.plan.graph
        rows.write_baselines(self._store, self._grid, graph, graph.trials[0].corpus)

    def _close(self, trial: Trial) -> None:
        """All steps of the trial have ended: its row is due."""
        if trial.trial not in self._written:
            row = rows.write_trial(self._store, self._grid, self.plan.graph, trial, self.errors, self.commit)
            self._written.add(trial.trial)
            self.view.row(row)
        if trial.label in self._superseded:
            self.removed += rows.remove_superseded(self._store, self._grid, self._superseded[trial.label], trial)
        self._waiting[trial.train] -= 1
        if not self._waiting[trial.train]:
            self.tracker.ended(trial.train, [other.trial for other in self._trials_of[trial.train]])
            self._drop_weights(trial.train)

    def _drop_weights(self, train: str) -> None:
        """The last evaluation that wants them is done; where one has failed, it may be tried again."""
        wanted = {key for trial in self._trials_of[train] for key in (trial.train, trial.score, trial.search)}
        kept = self.plan.loaded.grid.training.keep_weights or wanted & self.errors.keys()
        if not kept and wanted - self.plan.finished:
            self._store.drop("train", train, ["weights"])

    def read_rows(self, columns: Sequence[str]) -> list[dict[str, Any]]:
        """Some columns of the rows that are there, in the grid's order."""
        there = [trial for trial in self.plan.graph.trials if trial.trial in self._written]
        # One by one: thousands of parts, each with all its columns, are more than their few figures.
        parts = (read_table(self._store, self._grid, [trial]) for trial in there)
        return [row for part in parts for row in part.select(columns).to_pylist()]

    def own_failures(self) -> list[str]:
        """Steps that failed of themselves, not for one that they needed."""
        return [key for key, why in self.errors.items() if not why.startswith(failures.NEEDED_STEP)]


def reader_of_trainings(made: plan.Plan) -> Callable[[str], tracking.Training]:
    """What tracking reads of a training, by its key."""
    sharing: dict[str, list[Trial]] = defaultdict(list)
    for trial in made.graph.trials:
        sharing[trial.train].append(trial)
    grid = made.loaded.grid.name

    def read(train: str) -> tracking.Training:
        found: list[dict[str, Any]] = []
        for trial in sharing[train]:
            with suppress(FileNotFoundError, TornFile):  # it has not ended yet
                found += read_table(made.store, grid, [trial]).to_pylist()
        return tracking.describe(made.graph, sharing[train], rows.read_curve(made.store, train), found)

    return read


def read_table(store: Store, grid: str, trials: Iterable[Trial]) -> pa.Table:
    """The rows of some trials, in their order."""
    names = [rows.part(grid, "trials", trial.trial) for trial in trials]
    return tables.read_parts(store, names, schema.TRIALS)
