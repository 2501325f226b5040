"""One sweep from the grid file to its rows: check, plan, run what is not finished, write rows as trials end."""

import json
import shlex
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from orchestrator import attempts, console, failures, jobs, plan, rows, scheduler, status, tracking, tuned
from orchestrator.estimates import costs, ranks
from orchestrator.grid import Loaded, load
from orchestrator.jobs import Outcome
from orchestrator.steps import Step, Trial
from results import schema, tables
from results.errors import BadAddress, TornFile
from results.store import Store, open_store
from workers.errors import BadInput

SHOWN_FAILURES = 10
SHOWN_TRIALS = 40


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the command line asks for."""

    grid: Path
    overrides: tuple[str, ...] = ()
    results: str | Path = "results"
    """A folder, or the address of one in an object store."""
    mode: Literal["run", "plan", "status"] = "run"
    json: bool = False


def carry_out(request: Request, table: jobs.Jobs = jobs.WORKER_JOBS) -> int:
    """Do it; returns the exit code.

    Raises:
        BadInput: the grid or an override is wrong; nothing was started.
    """
    try:
        loaded = load(request.grid, request.overrides)
        try:
            return _carry_out(request, loaded, table)
        except BadInput as error:
            raise loaded.source.locate(error) from None
    except failures.NoWorkers as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; nothing that is finished is lost: the same command goes on from here", file=sys.stderr)
        return 130


def _carry_out(request: Request, loaded: Loaded, table: jobs.Jobs) -> int:
    try:
        store = open_store(request.results)
    except BadAddress as error:
        raise BadInput(f"--results: {error}") from None
    if request.mode == "status":
        return _show_status(loaded, store, request.json)
    out = console.make_console(error=request.json)
    tracking.check(loaded)
    made = plan.make_plan(
        loaded, store, fetch=request.mode == "run", table=table, say=lambda line: out.print(line, soft_wrap=True)
    )
    if request.mode == "plan":
        return _show_plan(made, request.json)
    undone = [step for step in tuned.studies(made.graph) if step.key not in made.finished]
    failed = tune(made, undone, out, table) if undone else {}
    if undone:
        made = plan.make_plan(loaded, store, fetch=True, table=table)  # with what the studies have found
    return run(made, out, table, failed)


def tune(made: plan.Plan, studies: Sequence[Step], out: Console, table: jobs.Jobs) -> dict[str, Outcome]:
    """Do the studies, and before them the steps that they need; returns those that failed.

    The sweep's own steps come after: what a training is depends on what its study has found.
    """
    from orchestrator import cluster, tuning

    commit, resources = git_commit(), made.loaded.grid.resources
    prepare = replace(made, goals=frozenset(key for step in studies for _, key in step.needs) - made.finished)
    broken: dict[str, Outcome] = {}

    def say(line: str) -> None:
        out.print(line, soft_wrap=True)

    with cluster.connected(resources):
        bench = tuning.bench_of(resources, table)
        if prepare.new:
            with cluster.pool(made.store, resources, steps=len(prepare.new), table=table, git_commit=commit) as pool:
                broken = _prepare(prepare, out, pool)
        failed = {key: one for key, one in tuned.blocked(studies, broken).items() if key not in broken}
        for number, step in enumerate(studies, start=1):
            if step.key not in failed:
                name = f"[{number}/{len(studies)}] {console.describe(made.graph, step)}"
                outcome = tuning.do_study(made.store, step, bench, name, say, commit)
                if outcome.status == "failed":
                    failed[step.key] = outcome
    return failed


def _prepare(made: plan.Plan, out: Console, pool: scheduler.Pool) -> dict[str, Outcome]:
    """Run the plan's steps, which are no trial's own; returns those that failed."""
    failed: dict[str, Outcome] = {}
    cost = costs(made.graph, made.summary)
    with console.make_view(made, cost, out) as view:

        def ended(step: Step, outcome: Outcome) -> None:
            if outcome.status == "failed":
                failed[step.key] = outcome
            view.ended(step, outcome)

        queue = scheduler.Scheduler(
            steps={step.key: step for step in made.new},
            finished=(),
            priority=ranks(made.graph, cost),
            max_attempts=made.loaded.grid.resources.max_attempts,
        )
        scheduler.drive(queue, pool, started=view.started, ended=ended, retried=view.retried, tick=view.tick)
    return failed


def _show_status(loaded: Loaded, store: Store, as_json: bool) -> int:
    found = status.read_status(loaded, store)
    if as_json:
        print(json.dumps(status.as_json(found), indent=1))
    else:
        status.show(found, console.make_console())
    return 0


def _show_plan(made: plan.Plan, as_json: bool) -> int:
    if as_json:
        print(json.dumps(plan.as_json(made), indent=1))
    else:
        plan.show(made, console.make_console())
    return 0


def run(made: plan.Plan, out: Console, table: jobs.Jobs, failed: Mapping[str, Outcome]) -> int:
    """Run the plan to its end; 0 where every trial is done, else 1. `failed`: studies whose trainings cannot be."""
    grid, commit = made.loaded.grid, git_commit()
    cost = costs(made.graph, made.summary)
    with _workers(made, table, commit) as pool:  # first, because it may find that the machine cannot do it
        made.store.write_text(f"{grid.name}/grid.yaml", grid.to_yaml())
        trials, steps, new = len(made.graph.trials), len(made.graph.steps), len(made.new)
        out.print(f"{grid.name}: {trials:,} trials, {steps:,} steps, {new:,} of them new", soft_wrap=True)
        with ExitStack() as stack:
            tracker = stack.enter_context(
                tracking.Tracker(grid.tracking, made.store, grid.name, _reader_of_trainings(made))
            )
            view = stack.enter_context(console.make_view(made, cost, out))
            sweep = _Sweep(plan=made, view=view, tracker=tracker, commit=commit)
            sweep.write_finished()
            if pool is not None:
                _run_steps(made, sweep, cost, pool, tuned.blocked(made.new, failed))
    if sweep.removed:
        out.print(f"{sweep.removed} rows of the same trials under earlier settings were replaced")
    if tracker.report():
        out.print(tracker.report(), soft_wrap=True)
    _show_end(sweep, out)
    return 1 if sweep.errors else 0


def _workers(
    made: plan.Plan, table: jobs.Jobs, commit: str | None
) -> AbstractContextManager[scheduler.Pool] | AbstractContextManager[None]:
    """A pool; None where nothing is new."""
    if not made.new:
        return nullcontext()
    from orchestrator.cluster import workers

    return workers(made.store, made.loaded.grid.resources, steps=len(made.new), table=table, git_commit=commit)


def _run_steps(
    made: plan.Plan, sweep: "_Sweep", cost: dict[str, float], pool: scheduler.Pool, blocked: Mapping[str, Outcome]
) -> None:
    for step in made.new:
        if step.key in blocked:
            sweep.ended(step, blocked[step.key])
    steps = {step.key: step for step in made.new if step.key not in blocked}
    attempts_each = made.loaded.grid.resources.max_attempts
    queue = scheduler.Scheduler(steps=steps, finished=(), priority=ranks(made.graph, cost), max_attempts=attempts_each)
    scheduler.drive(
        queue, pool, started=sweep.started, ended=sweep.ended, retried=sweep.view.retried, tick=sweep.view.tick
    )


@dataclass(kw_only=True)
class _Sweep:
    """What has ended, and the rows that follow from it."""

    plan: plan.Plan
    view: console.PlainView
    tracker: tracking.Tracker
    commit: str | None
    errors: dict[str, str] = field(default_factory=dict)
    """Step key -> why it failed."""
    removed: int = 0
    """Rows under earlier settings that others stand in place of."""

    def __post_init__(self) -> None:
        self._store, self._grid = self.plan.store, self.plan.loaded.grid.name
        self._superseded = rows.superseded(self._store, self._grid, self.plan.graph.trials)
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
        for step in tuned.studies(self.plan.graph):
            if step.key in self.plan.finished:
                tuned.write_table(self._store, self._grid, self.plan.graph, step.key)
        for trial in self.plan.graph.trials:
            if trial.train in self.plan.finished:
                rows.write_curve(self._store, self._grid, trial.train)
            if not self._open[trial.trial]:
                self._close(trial)

    def started(self, step: Step, workers: tuple[int, ...]) -> None:
        """Take in that workers have begun a step."""
        self.view.started(step, workers)
        if step.kind == "train":
            self.tracker.began(step.key)

    def ended(self, step: Step, outcome: Outcome) -> None:
        """Take in a step that has ended for good."""
        if outcome.status == "failed":
            self.errors[step.key] = f"{outcome.kind}: {outcome.error}"
            if outcome.kind != failures.NEEDED_STEP:
                attempts.note_death(self._store, step.kind, step.key, outcome.kind, outcome.error)
        if step.kind == "train":
            rows.write_curve(self._store, self._grid, step.key)
        elif step.kind == "baselines" and outcome.status != "failed":
            self._write_baselines()
        self.view.ended(step, outcome)
        for trial in self._trials_of.get(step.key, ()):
            self._open[trial.trial].discard(step.key)
            if not self._open[trial.trial]:
                self._close(trial)

    def _write_baselines(self) -> None:
        graph = self.plan.graph
        rows.write_baselines(self._store, self._grid, graph, graph.trials[0].corpus)

    def _close(self, trial: Trial) -> None:
        """All steps of the trial have ended: its row is due."""
        if not rows.is_written(self._store, self._grid, trial):
            row = rows.write_trial(self._store, self._grid, self.plan.graph, trial, self.errors, self.commit)
            self.view.row(row)
        if trial.label in self._superseded:
            self.removed += rows.remove_superseded(self._store, self._grid, self._superseded[trial.label], trial)
        self._waiting[trial.train] -= 1
        if not self._waiting[trial.train]:
            self.tracker.ended(trial.train, [other.trial for other in self._trials_of[trial.train]])


def _reader_of_trainings(made: plan.Plan) -> Callable[[str], tracking.Training]:
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


def git_commit() -> str | None:
    """The commit of the code that runs, where it runs from a checkout."""
    here = Path(__file__).resolve().parent.parent
    if not (here / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    except OSError:  # no git on this machine
        return None
    return done.stdout.strip() or None


def _show_end(sweep: _Sweep, out: Console) -> None:
    made = sweep.plan
    name = made.loaded.grid.name
    found = read_rows(made.store, name, made.graph.trials)
    out.print()
    if len(found) <= SHOWN_TRIALS:
        out.print(console.row_table(found))
        out.print()
    out.print(console.summary_table(found))
    _show_failures(sweep, out)
    out.print(f"\nresults: {made.store.shown(name)}", soft_wrap=True)
    out.print(f"next: python fit_laws.py {shlex.quote(made.store.shown(name))}", soft_wrap=True)


def _show_failures(sweep: _Sweep, out: Console) -> None:
    """Steps that failed of themselves, with where to read more."""
    graph = sweep.plan.graph
    own: Sequence[str] = [key for key, why in sweep.errors.items() if not why.startswith(failures.NEEDED_STEP)]
    for key in own[:SHOWN_FAILURES]:
        step = graph.steps[key]
        where = sweep.plan.store.shown_step(step.kind, key)
        out.print(f"failed: {console.describe(graph, step)}: {sweep.errors[key]}\n  see {where}", soft_wrap=True)
    if len(own) > SHOWN_FAILURES:
        out.print(f"and {len(own) - SHOWN_FAILURES} more; see --status")
