"""Step kind -> worker function, and the running of one step: fit, attempt, log, commit.

Nothing here knows Ray: the driver calls `run` for a corpus, a worker actor for everything else.
"""

import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from orchestrator.nodes import ANY, Demand
from orchestrator.running import attempts, failures
from orchestrator.running.attempts import Attempt
from orchestrator.running.fitting import fitted, placement
from orchestrator.steps import Step
from results import files
from results.errors import LostLease
from results.store import Store
from workers.settings import ProcessGroup

Jobs = Mapping[str, str]
"""Step kind -> `module:function`, called as `function(settings, **needs, out=folder)`; a study's is called for each of
its trials, as `function(settings, looks, report, **needs, out=folder, group=group)`."""

WORKER_JOBS: Jobs = {
    "corpus": "workers.corpus:prepare",
    "tokenizer": "workers.tokenizer:prepare",
    "embeddings": "workers.embeddings:prepare",
    "identifiers": "workers.identifiers:prepare",
    "baselines": "workers.baselines:prepare",
    "tune": "workers.tuning:trial",
    "train": "workers.training:train",
    "score": "workers.evaluation:score",
    "search": "workers.evaluation:search",
}

GANG = "gang.json"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one attempt at a step ended. `cached`: another process had finished it."""

    key: str
    status: Literal["done", "cached", "failed"]
    kind: str = ""
    """Of the failure."""
    error: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Desk:
    """What is the same for all steps of a sweep: where results are, and what does each kind of step."""

    store: Store
    jobs: Jobs = field(default_factory=lambda: WORKER_JOBS)
    git_commit: str | None = None


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a step runs: this process alone, or as one of several that train together."""

    rank: int = 0
    size: int = 1
    host: str = "127.0.0.1"
    """This process's address, for the others to find rank 0."""
    token: str = ""
    """The same for all that work on one attempt, different for every attempt."""


ALONE = Place()


def run(
    desk: Desk,
    step: Step,
    *,
    owner: str,
    place: Place = ALONE,
    demand: Demand = ANY,
    halvings: int = 0,
    capture: bool = True,
) -> Outcome:
    """Do the step unless it is finished; an exception of the worker function becomes a failed outcome.

    The first of several workers commits the step's folder; the others work in it. Who calls this has the step's lease.

    Args:
        owner: one attempt's name; the same for all that work on it together, and like no other's.
        demand, halvings: how the step is cut to fit; see `fitting.fitted`.
    """
    began = time.monotonic()
    try:
        fit = replace(step, settings=fitted(step.settings, demand, place.size, halvings))
        if place.rank == 0:
            how = placement(fit.settings, place.size)
            here = Attempt(started=attempts.now(), node=socket.gethostname(), pid=os.getpid(), placement=how)
            done = _lead(desk, fit, owner, place, here, capture)
        else:
            done = _follow(desk, fit, owner, place, capture)
    except Exception as error:
        if not (isinstance(error, LostLease) and desk.store.is_finished(step.kind, step.key)):
            return Outcome(
                key=step.key,
                status="failed",
                kind=failures.classify(error),
                error=failures.one_line(error),
                seconds=time.monotonic() - began,
            )
        done = False  # whoever took the step over has finished it
    return Outcome(key=step.key, status="done" if done else "cached", seconds=time.monotonic() - began)


def _lead(desk: Desk, step: Step, owner: str, place: Place, here: Attempt, capture: bool) -> bool:
    """Returns False where the step was finished already."""
    with desk.store.work(step.kind, step.key, owner) as out:
        if out is None:
            return False
        attempts.begin(out, here)
        try:
            group = _announce(out, place) if place.size > 1 else None
            with attempts.captured(out / attempts.LOG) if capture else nullcontext():
                _call(desk, step, out, group)
            (out / GANG).unlink(missing_ok=True)
        except Exception as error:
            attempts.fail(out, error)
            raise
        attempts.end(out)
        attempts.write_provenance(out, desk.git_commit)
    return True


def _announce(out: Path, place: Place) -> ProcessGroup:
    """Tell the others, through the step's folder, that this attempt has begun and where to meet."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        address = f"{place.host}:{probe.getsockname()[1]}"
    files.write_json(out / GANG, {"token": place.token, "address": address})
    return ProcessGroup(rank=0, size=place.size, address=address)


def _follow(desk: Desk, step: Step, owner: str, place: Place, capture: bool) -> bool:
    """Wait until rank 0 has begun, then work beside it. The driver ends this process if rank 0 fails."""
    partial = desk.store.workplace(step.kind, step.key, owner)
    while not desk.store.is_finished(step.kind, step.key):
        try:
            meeting = files.read_json(partial / GANG)
        except FileNotFoundError:
            meeting = {}
        if meeting.get("token") == place.token:
            group = ProcessGroup(rank=place.rank, size=place.size, address=meeting["address"])
            try:
                with attempts.captured(partial / f"log.rank{place.rank}.txt") if capture else nullcontext():
                    _call(desk, step, partial, group)
            except Exception as error:
                with suppress(FileNotFoundError):  # rank 0 has failed too, and the folder is no longer this attempt's
                    (partial / f"error.rank{place.rank}.txt").write_text(failures.trace(error), encoding="utf-8")
                raise
            return True
        time.sleep(0.05)
    return False


def function_of(kind: str, jobs: Jobs) -> Callable[..., None]:
    """What does steps of a kind; imported only now."""
    module, _, name = jobs[kind].partition(":")
    function: Callable[..., None] = getattr(import_module(module), name)
    return function


def _call(desk: Desk, step: Step, out: Path, group: ProcessGroup | None) -> None:
    function = function_of(step.kind, desk.jobs)
    needs: dict[str, Any] = {role: desk.store.fetch(role, key) for role, key in step.needs}
    function(step.settings, **needs, out=out, **({"group": group} if group else {}))
