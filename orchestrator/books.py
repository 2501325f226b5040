"""What follows when a step ends: rows of trials, curves, what is told to people and to W&B."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from orchestrator import failures, live, plan, rows, tracking, tuned
from orchestrator.fleet import Fleet
from orchestrator.jobs import Outcome
from orchestrator.scheduler import Scheduler, Task
from orchestrator.steps import Step, Trial
from results import schema, tables
from results.errors import TornFile
from results.store import Store


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

    def line(self, text: str) -> None:
        """Something that a person should know."""
        self.view.line(text)

    def ended(self, step: Step, outcome: Outcome) -> None:
        """A step has ended for good."""
        if outcome.status == "failed":
            self.errors[step.key] = f"{outcome.kind}: {outcome.error}"
        if step.kind == "train":
            rows.write_curve(self._store, self._grid, step.key)
        elif step.kind == "baselines" and outcome.status != "failed":
            self._write_baselines()
        self.view.ended(step, outcome)
        for trial in self._trials_of.get(step.key, ()):
            self._open[trial.trial].discard(step.key)
            if not self._open[trial.trial]:
                self._close(trial)

    # ---------------------------------------------------------------- rows

    def _write_baselines(self) -> None:
        graph = self.plan.graph
        rows.write_baselines(self._store, self._grid, graph, graph.trials[0].corpus)

    def _close(self, trial: Trial) -> None:
        """All steps of the trial have ended: its row is due."""
        if trial.trial not in self._written:
            row = rows.write_trial(self._store, self._grid, self.plan.graph, trial, self.errors, self.commit)
            self.view.row(row)
        if trial.label in self._superseded:
            self.removed += rows.remove_superseded(self._store, self._grid, self._superseded[trial.label], trial)
        self._waiting[trial.train] -= 1
        if not self._waiting[trial.train]:
            self.tracker.ended(trial.train, [other.trial for other in self._trials_of[trial.train]])

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
                found += read_rows(made.store, grid, [trial])
        return tracking.describe(made.graph, sharing[train], rows.read_curve(made.store, train), found)

    return read


def read_rows(store: Store, grid: str, trials: Iterable[Trial]) -> list[dict[str, Any]]:
    """The rows of some trials, in their order."""
    names = [rows.part(grid, "trials", trial.trial) for trial in trials]
    return tables.read_parts(store, names, schema.TRIALS).to_pylist()
