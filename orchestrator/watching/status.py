"""How far a sweep is, from a scan of the results folder: done, running, failed and why, waiting."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from orchestrator.grid import Loaded
from orchestrator.keys import RECIPES
from orchestrator.plan import finished, plain_table
from orchestrator.rows import last_line
from orchestrator.running import attempts, failures
from orchestrator.steps import Graph, Step, Trial
from orchestrator.tuning.tuned import expand_tuned
from results.leases import Observer, living
from results.store import Store

State = Literal["done", "running", "failed", "waiting"]
STATES: tuple[State, ...] = ("done", "running", "failed", "waiting")


@dataclass(frozen=True, kw_only=True)
class Status:
    """The state of every step, and what is known beside it."""

    graph: Graph
    name: str
    states: dict[str, State]
    notes: dict[str, str]
    """Why a step failed, or how far a running one is."""

    def of(self, trial: Trial) -> State:
        """A trial is done when its three steps are; failed when one is, or a step that they need."""
        own = [self.states[key] for key in (trial.train, trial.score, trial.search)]
        if any(state == "failed" for state in self._with_needs(trial)):
            return "failed"
        if all(state == "done" for state in own):
            return "done"
        return "running" if "running" in own else "waiting"

    def _with_needs(self, trial: Trial) -> list[State]:
        keys = {trial.train, trial.score, trial.search}
        keys |= {needed for key in tuple(keys) for _, needed in self.graph.steps[key].needs}
        return [self.states[key] for key in keys]


def read_status(loaded: Loaded, store: Store) -> Status:
    """Look at the results folder; nothing is written or started."""
    store.check_there()
    graph = expand_tuned(loaded.grid, store)
    done = finished(store, graph)
    begun = {(kind, key) for kind in RECIPES for key in store.partial(kind)}
    alive = {driver.id for driver in living(store)}
    working = {key for kind in RECIPES for key, driver in Observer(store).holders(kind).items() if driver in alive}
    failed = {key: record for kind in RECIPES for key, record in store.failed(kind).items()}
    states: dict[str, State] = {}
    notes: dict[str, str] = {}
    for key, step in graph.steps.items():
        states[key] = "done" if key in done else "waiting"
        if key not in done and key in failed:
            states[key], notes[key] = "failed", _why(store, step, failed[key])
        elif key not in done and (step.kind, key) in begun:
            states[key], notes[key] = _begun(store, step, key in working)
    return Status(graph=graph, name=loaded.grid.name, states=states, notes=notes)


def _begun(store: Store, step: Step, working: bool) -> tuple[State, str]:
    """The state of a step that was begun and is not finished."""
    if working:
        return "running", progress(store, step.key)
    tried = attempts.read(store, step.kind, step.key)
    if tried and tried[-1].status == "failed" and tried[-1].kind != failures.INTERRUPTED:
        return "waiting", f"will be tried again after {tried[-1].kind}: {tried[-1].error}"
    return "waiting", "was interrupted; will resume"


def _why(store: Store, step: Step, record: Mapping[str, Any]) -> str:
    where = store.shown_step(step.kind, step.key)
    return f"{record.get('kind')}: {record.get('error')} (see {where}; --retry-failed tries it again)"


def progress(store: Store, train: str) -> str:
    """`step 120/500, loss 3.21` from the newest line of a training's curve; nothing where there is none."""
    newest = last_line(store.peek("train", train, "curve.jsonl"))
    if newest is None:
        return ""
    return f"step {newest['step']}/{newest['steps']}, loss {newest['loss']:.3g}"


def show(status: Status, console: Console) -> None:
    """A table by kind, then what runs and what failed."""
    console.print(_table(status))
    for state in ("running", "failed"):
        for key, one in status.states.items():
            if one == state:
                step = status.graph.steps[key]
                console.print(f"{state}: {step.kind} {key[:12]}  {status.notes[key]}".rstrip(), soft_wrap=True)
    trials = Counter(status.of(trial) for trial in status.graph.trials)
    counts = ", ".join(f"{trials[state]:,} {state}" for state in STATES if trials[state])
    console.print(f"{status.name}: {len(status.graph.trials):,} trials: {counts}")


def _table(status: Status) -> Table:
    table = plain_table("steps", "all", *STATES)
    counts = Counter((step.kind, status.states[key]) for key, step in status.graph.steps.items())
    for kind, total in sorted(status.graph.count().items(), key=lambda item: list(RECIPES).index(item[0])):
        table.add_row(kind, f"{total:,}", *(f"{counts[kind, state]:,}" for state in STATES))
    return table


def as_json(status: Status) -> dict[str, Any]:
    """The status for a program."""
    return {
        "grid": status.name,
        "trials": [{"trial": trial.trial, "state": status.of(trial)} for trial in status.graph.trials],
        "steps": [
            {"kind": step.kind, "key": key, "state": status.states[key], "note": status.notes.get(key, "")}
            for key, step in status.graph.steps.items()
        ],
        "totals": dict(Counter(status.states.values())),
    }
