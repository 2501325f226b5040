"""One sweep from the grid file to its rows: check, plan, run what is not finished, write rows as trials end."""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from rich.console import Console

from orchestrator import plan, tracking
from orchestrator.books import Books, reader_of_trainings
from orchestrator.forecasting import forecast
from orchestrator.forecasting.estimates import Estimates, ranks
from orchestrator.grid import Loaded, load
from orchestrator.nodes import Demand, Node, describe_demand, describe_nodes
from orchestrator.placing.placement import demands
from orchestrator.resources import nodes_of
from orchestrator.running import failures, jobs
from orchestrator.running.driving import Drive, Pool, Watch
from orchestrator.running.fitting import may_halve
from orchestrator.running.fleet import Fleet
from orchestrator.running.interruption import Interruption
from orchestrator.running.ledger import StoreLedger, failure
from orchestrator.running.scheduler import Scheduler
from orchestrator.steps import Step
from orchestrator.tuning import tuned
from orchestrator.watching import console, live, plan_view, status
from orchestrator.watching.progress import Progress
from results.errors import BadAddress
from results.leases import Leases
from results.opening import open_store
from results.store import Store
from workers.errors import BadInput

SHOWN_FAILURES = 10
SHOWN_TRIALS = 40
INTERRUPTED = 130
RESUME = "nothing that is finished is lost, and the same command goes on from here"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the command line asks for."""

    grid: Path
    overrides: tuple[str, ...] = ()
    results: str | Path = "results"
    """A folder, or the address of one in an object store."""
    mode: Literal["run", "plan", "status"] = "run"
    json: bool = False
    failed: Literal["keep", "retry", "restart"] = "keep"
    """What becomes of steps that have failed before: nothing, or another try, from their last checkpoint or anew."""
    retrain: bool = False
    """Whether to train again where new evaluations need weights that were dropped."""


Law = Callable[[str], str]
"""From where a grid's rows are to the newest law of them, in a line; nothing where there is none."""


def carry_out(request: Request, table: jobs.Jobs = jobs.WORKER_JOBS, law: Law = lambda where: "") -> int:
    """Do it; returns the exit code.

    Raises:
        BadInput: the grid or an override is wrong; nothing was started.
    """
    try:
        loaded = load(request.grid, request.overrides)
        try:
            return _carry_out(request, loaded, table, law)
        except BadInput as error:
            raise loaded.source.locate(error) from None
    except failures.NoWorkers as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\ninterrupted: {RESUME}", file=sys.stderr)
        return INTERRUPTED


def _carry_out(request: Request, loaded: Loaded, table: jobs.Jobs, law: Law) -> int:
    try:
        store = open_store(request.results)
    except BadAddress as error:
        raise BadInput(f"--results: {error}") from None
    if request.mode == "status":
        return _show_status(loaded, store, request.json)
    out = console.make_console(error=request.json)
    tracking.check(loaded)
    desk = jobs.Desk(store=store, jobs=table, git_commit=git_commit())
    say = partial(out.print, soft_wrap=True)
    made = plan.make_plan(loaded, desk, fetch=request.mode == "run", say=say)
    if request.mode == "plan":
        return _show_plan(made, request)
    made = _with_weights(made, request)
    if request.failed != "keep":
        made = plan.forgive(made, restart=request.failed == "restart")
    if undone := [step for step in tuned.studies(made.graph) if step.key not in made.finished | made.failed.keys()]:
        if not tune(made, undone, desk, out):
            say(f"stopped: {RESUME}")
            return INTERRUPTED
        made = _with_weights(plan.make_plan(loaded, desk, fetch=True), request)  # with what the studies have found
    return run(made, desk, out, law)


def _with_weights(made: plan.Plan, request: Request) -> plan.Plan:
    """The plan, once it is sure that every evaluation will have weights. Raises BadInput."""
    made = plan.reopen(made) if request.retrain else made
    plan.check_weights(made)
    return made


def tune(made: plan.Plan, studies: Sequence[Step], desk: jobs.Desk, out: Console) -> bool:
    """Do the studies, and before them the steps that they need; returns False where it was asked to stop before.

    All else comes after: what a training is depends on what its study has found. What fails is in the store.
    """
    from orchestrator.cluster import connected
    from orchestrator.tuning import tuner

    grid, say = made.loaded.grid, partial(out.print, soft_wrap=True)
    prepare = replace(made, goals=frozenset(key for step in studies for _, key in step.needs))
    with _machine(prepare, desk, say) as machine:  # its workers end with it, for Tune starts its own
        estimates = _estimates(prepare, machine)
        with live.make_view(prepare, _progress(prepare, estimates), out, lambda: "") as view:
            if not _drive(prepare, view, machine, estimates.seconds()):
                return False
        nodes, needed = machine.pool.nodes(), machine.demands
    with connected(grid.resources), Leases(made.store) as leases, Interruption() as asked:
        benches = {
            step.key: tuner.Bench(
                desk=desk,
                demand=needed[step.key],
                slots=tuner.slots(needed[step.key], nodes, grid.resources.workers),
                max_failures=grid.resources.max_attempts - 1,
                stop=asked,
                say=say,
            )
            for step in studies
        }
        places = enumerate(studies, start=1)
        names = {step.key: f"[{n}/{len(studies)}] {console.describe(made.graph, step)}" for n, step in places}
        tuner.tune_all(studies, names, benches, StoreLedger(store=made.store, leases=leases))
        return not asked()


def _show_status(loaded: Loaded, store: Store, as_json: bool) -> int:
    found = status.read_status(loaded, store)
    if as_json:
        print(json.dumps(status.as_json(found), indent=1))
    else:
        status.show(found, console.make_console())
    return 0


def _show_plan(made: plan.Plan, request: Request) -> int:
    if request.retrain:
        made = replace(made, finished=made.finished - made.dropped, dropped=frozenset())
    plan.check_weights(made)
    foreseen = forecast.forecast(made, forecast.nodes_for(made))
    if request.json:
        print(json.dumps(plan_view.as_json(made, foreseen), indent=1))
    else:
        plan_view.show(made, foreseen, console.make_console())
    return 0


def run(made: plan.Plan, desk: jobs.Desk, out: Console, law: Law) -> int:
    """Run the plan to its end; 0 where every trial is done, 1 where one failed, 130 where it was asked to stop."""
    grid = made.loaded.grid
    say = partial(out.print, soft_wrap=True)
    with ExitStack() as stack:
        machine = stack.enter_context(_machine(made, desk, say)) if made.new else None
        made.store.write_text(f"{grid.name}/grid.yaml", grid.to_yaml())
        trials, steps, new = len(made.graph.trials), len(made.graph.steps), len(made.new)
        say(f"{grid.name}: {trials:,} trials, {steps:,} steps, {new:,} of them new")
        estimates = _estimates(made, machine)
        newest = live.NewestLaw(partial(law, made.store.shown(grid.name)))
        tracker = stack.enter_context(tracking.Tracker(grid.tracking, made.store, grid.name, reader_of_trainings(made)))
        view = stack.enter_context(live.make_view(made, _progress(made, estimates), out, newest))
        books = Books(plan=made, view=view, tracker=tracker, commit=desk.git_commit)
        books.write_finished()
        finished = machine is None or _drive(made, books, machine, estimates.seconds())
        books.finish()
    if books.removed:
        out.print(f"{books.removed} rows of the same trials under earlier settings were replaced")
    if tracker.report():
        say(tracker.report())
    _show_end(books, out)
    if not finished:
        say(f"stopped: {RESUME}")
        return INTERRUPTED
    return 1 if books.errors else 0


@dataclass(frozen=True, kw_only=True)
class _Machine:
    """What steps run on."""

    pool: Pool
    fleet: Fleet
    demands: Mapping[str, Demand]
    ledger: StoreLedger
    asked_to_stop: Interruption


@contextmanager
def _machine(made: plan.Plan, desk: jobs.Desk, say: Callable[[str], None]) -> Iterator[_Machine]:
    """Workers on a cluster, or on a Ray of this machine's own.

    Raises:
        BadInput: there is no room for a step.
    """
    from orchestrator.cluster import RayPool, connected, is_own

    resources = made.loaded.grid.resources
    with connected(resources), Leases(made.store) as leases, Interruption() as asked:
        pool = RayPool(desk, resources, say)
        try:
            fleet = Fleet(limit=resources.workers, side_by_side=not made.store.is_shared)
            fleet.update(pool.nodes())
            yield _Machine(
                pool=pool,
                fleet=fleet,
                demands=_demands(made, pool.nodes() if resources.cluster is None or is_own() else nodes_of(resources)),
                ledger=StoreLedger(store=made.store, leases=leases),
                asked_to_stop=asked,
            )
        finally:
            pool.close()


def _demands(made: plan.Plan, nodes: Sequence[Node]) -> dict[str, Demand]:
    """What the steps take of such machines.

    Raises:
        BadInput: a step has room on none of them.
    """
    found = demands(made.graph, made.loaded, nodes, made.summary)
    empty = Fleet(side_by_side=not made.store.is_shared)
    empty.update(nodes)
    for step in made.new:
        if not empty.has_room(found[step.key]):
            needs = describe_demand(found[step.key])
            raise BadInput(f"resources: {step.kind} needs {needs}, more than there is: {describe_nodes(nodes)}")
    return found


def _estimates(made: plan.Plan, machine: _Machine | None) -> Estimates:
    if machine is None:
        return forecast.estimates_of(made, {}, ())
    return forecast.estimates_of(made, machine.demands, list(machine.fleet.nodes.values()))


def _progress(made: plan.Plan, estimates: Estimates) -> Progress:
    return Progress(made.new, estimates, made.store, limit=made.loaded.grid.resources.workers)


def _drive(made: plan.Plan, watch: Watch, machine: _Machine, cost: Mapping[str, float]) -> bool:
    """Returns whether all steps have ended."""
    steps = {step.key: step for step in made.new}
    queue = Scheduler(
        steps=steps,
        finished=(),
        priority=ranks(made.graph, cost),
        demands=machine.demands,
        seconds=cost,
        max_attempts=made.loaded.grid.resources.max_attempts,
        may_halve=lambda step, demand, halvings: may_halve(step.settings, demand, halvings),
    )
    for step in made.new:
        if step.key in made.failed:
            for ended, outcome in queue.give_up(failure(step, made.failed[step.key])):
                watch.ended(ended, outcome)
    return Drive(
        scheduler=queue,
        fleet=machine.fleet,
        pool=machine.pool,
        ledger=machine.ledger,
        watch=watch,
        asked_to_stop=machine.asked_to_stop,
    ).run()


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


def _show_end(books: Books, out: Console) -> None:
    made = books.plan
    name = made.loaded.grid.name
    found = books.read_rows(console.SHOWN)
    out.print()
    if len(found) <= SHOWN_TRIALS:
        out.print(console.row_table(found))
        out.print()
    out.print(console.summary_table(found))
    _show_failures(books, out)
    out.print(f"\nresults: {made.store.shown(name)}", soft_wrap=True)
    out.print(f"next: python fit_laws.py {shlex.quote(made.store.shown(name))}", soft_wrap=True)


def _show_failures(books: Books, out: Console) -> None:
    """Steps that failed of themselves, with where to read more."""
    graph, own = books.plan.graph, books.own_failures()
    for key in own[:SHOWN_FAILURES]:
        step = graph.steps[key]
        where = books.plan.store.shown_step(step.kind, key)
        out.print(f"failed: {console.describe(graph, step)}: {books.errors[key]}\n  see {where}", soft_wrap=True)
    if len(own) > SHOWN_FAILURES:
        out.print(f"and {len(own) - SHOWN_FAILURES} more; see --status")
    if own:
        out.print("--retry-failed tries them again from where they were, --restart-failed from nothing")
