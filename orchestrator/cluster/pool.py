"""Worker processes on Ray's nodes, each an actor that lives as long as it is useful.

A worker is one process that has imported torch once; which of them there are is the `Fleet`'s to say. Those that train
one model together share a process group, so one that dies takes its gang with it. What a worker was doing when it or
its node died comes back as a failed outcome.
"""

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import ray
from ray.autoscaler.sdk import request_resources
from ray.exceptions import ActorDiedError, ActorUnavailableError, OutOfMemoryError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.cluster.connection import environment, is_own
from orchestrator.cluster.machines import Machines
from orchestrator.grid import Resources
from orchestrator.nodes import Demand, Node
from orchestrator.running import failures, jobs
from orchestrator.running.driving import Event
from orchestrator.running.fleet import Worker
from orchestrator.running.scheduler import Task
from workers import stopping

GRACE_SECONDS = 10.0
"""How long the others of a gang may take to end by themselves after one of them has failed."""
FAILED_STARTS = 5
"""Workers in a row that may fail to start on a machine before it is left alone."""
SILENT_SECONDS = 30.0
"""Ray takes about so long to tell a dead node from a slow one."""
SLOW_START_SECONDS = 30.0
"""After so long a worker that has not started is told of: somebody else may hold the node's cores."""


class _Worker:
    """What runs in an actor's process."""

    def __init__(self, desk: jobs.Desk, environment: Mapping[str, str]) -> None:
        os.environ.update(environment)  # before torch is imported; a Ray runtime environment would take seconds
        stopping.stop_on_sigterm()
        self._desk = desk

    @ray.method(concurrency_group="control")
    def ready(self) -> None:
        """Returns when the process is up."""

    @ray.method(concurrency_group="control")
    def stop(self) -> None:
        """Ask what runs here to save what it has and end."""
        stopping.request_stop()

    def run(self, task: Task, owner: str, place: jobs.Place) -> jobs.Outcome:
        """Do one step; see `jobs.run`."""
        if place.size > 1:
            place = replace(place, host=ray.util.get_node_ip_address())
        return jobs.run(self._desk, task.step, owner=owner, place=place, demand=task.demand, halvings=task.halvings)


_ACTOR: Any = ray.remote(concurrency_groups={"control": 1})(_Worker)  # type: ignore[call-overload]


@dataclass(kw_only=True)
class _Flight:
    """One attempt on its way: which worker has which rank, and what has come back."""

    task: Task
    outcomes: dict[int, jobs.Outcome] = field(default_factory=dict)
    """Rank -> outcome."""
    gone: set[int] = field(default_factory=set)
    """Workers whose processes are of no more use."""
    limit: float | None = None
    """Seconds from when all its workers are up."""
    deadline: float = math.inf
    """When ranks that are still out are ended."""
    late: jobs.Outcome | None = None
    """What ranks that are ended at the deadline came to."""


class RayPool:
    """A `driving.Pool` of Ray actors."""

    def __init__(self, desk: jobs.Desk, resources: Resources, say: Callable[[str], None] = lambda line: None) -> None:
        self._desk, self._resources, self._say = desk, resources, say
        self._actors: dict[int, Any] = {}
        self._nodes_of: dict[int, str] = {}
        self._starting: dict[int, tuple[Any, float]] = {}
        self._flying: dict[Any, tuple[_Flight, int]] = {}
        self._bad_starts: dict[str, int] = {}
        """Node -> workers in a row that did not start there."""
        self._reason = ""
        self._silent: dict[str, float] = {}
        """Node that did not answer -> when it is tried again, should Ray not have buried it by then."""
        self._stopping = False
        self._told: set[int] = set()
        """Workers of which it was said that they do not start."""
        self._asked: list[dict[str, float]] = []
        self._nodes = Machines()

    def nodes(self) -> Sequence[Node]:
        """The machines that are there now, but for those on which workers do not start.

        Raises:
            failures.NoWorkers: they start on none.
        """
        there = self._nodes.there()
        good = [node for node in there if self._bad_starts.get(node.id, 0) < FAILED_STARTS]
        if there and not good:
            raise failures.NoWorkers(f"workers do not start: {self._reason}")
        now = time.monotonic()
        return [node for node in good if self._silent.get(node.id, now) <= now] or good

    def submit(self, task: Task, workers: Sequence[Worker], owner: str) -> None:
        """Begin the attempt on the workers of its seat; rank 0 is the first. Those that are new are started."""
        flight = _Flight(task=task, limit=self._resources.timeout.of(task.step.kind))
        token = uuid4().hex
        for rank, worker in enumerate(workers):
            if worker.id not in self._actors:
                self._start(worker)
            place = jobs.Place(rank=rank, size=len(workers), token=token)
            self._flying[self._actors[worker.id].run.remote(task, owner, place)] = (flight, rank)

    def _start(self, worker: Worker) -> None:
        options = {
            "num_cpus": worker.cpus,
            "num_gpus": worker.gpus,
            "max_restarts": 0,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(worker.node, soft=False),
        }
        variables = environment(worker.cpus, worker.gpus)
        actor = _ACTOR.options(**options).remote(self._desk, variables)
        self._actors[worker.id], self._nodes_of[worker.id] = actor, worker.node
        self._starting[worker.id] = (actor.ready.remote(), time.monotonic())

    def dismiss(self, workers: Sequence[int]) -> None:
        """End idle workers."""
        for worker in workers:
            self._starting.pop(worker, None)
            self._nodes_of.pop(worker, None)
            actor = self._actors.pop(worker, None)
            if actor is not None:
                ray.kill(actor)

    def wait(self, timeout: float) -> list[Event]:
        """See `driving.Pool`."""
        self._look_at_starts()
        if not self._flying:
            time.sleep(timeout)
            return []
        waiting = list(self._flying)
        ready, _ = ray.wait(waiting, num_returns=1, timeout=timeout)
        if ready:
            ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0)
        events = [event for reference in ready if (event := self._landed(reference))]
        return events + self._end_overdue()

    def _landed(self, reference: Any) -> Event | None:
        flight, rank = self._flying.pop(reference)
        worker = flight.task.seat.workers[rank]
        outcome, died = self._outcome(reference, flight.task, worker)
        flight.outcomes[rank] = outcome
        together = len(flight.task.seat.workers) > 1
        if died or (together and outcome.status == "failed"):
            flight.gone.add(worker)
        if outcome.status == "failed" and together:
            flight.deadline = min(flight.deadline, time.monotonic() + GRACE_SECONDS)
            why = "ended, because another worker of its training failed"
            flight.late = flight.late or _failed(flight.task, failures.WORKER_DIED, why)
        return self._close(flight)

    def _outcome(self, reference: Any, task: Task, worker: int) -> tuple[jobs.Outcome, bool]:
        """What an actor's call came to, and whether the actor is gone."""
        try:
            outcome: jobs.Outcome = ray.get(reference)
        except OutOfMemoryError as error:
            return _failed(task, failures.OUT_OF_MEMORY, failures.short(error)), True
        except RayTaskError as error:
            return _failed(task, failures.ERROR, failures.short(error)), False
        except ActorDiedError as error:
            return self._dead(error, task, worker), True
        except ActorUnavailableError:
            self._silent[self._nodes_of[worker]] = time.monotonic() + SILENT_SECONDS
            return _failed(task, failures.NODE_LOST, "its node does not answer"), True
        except RayError as error:
            return self._dead(error, task, worker), True
        self._bad_starts.pop(self._nodes_of[worker], None)
        interrupted = outcome.kind == failures.INTERRUPTED and not self._stopping
        return outcome, interrupted  # its process was asked to stop, and would stop whatever else it is given

    def _dead(self, error: RayError, task: Task, worker: int) -> jobs.Outcome:
        """Of a process that is gone: with its node, before it began, or by itself."""
        text, node = failures.short(error), self._nodes_of[worker]
        if not self._nodes.is_alive(node):
            return _failed(task, failures.NODE_LOST, "its node is gone")
        if "creation task" in str(error):
            self._bad_starts[node] = self._bad_starts.get(node, 0) + 1
            self._reason = text
            return _failed(task, failures.NODE_LOST, f"the worker did not start: {text}")
        return _failed(task, failures.WORKER_DIED, f"the worker died: {text}")

    def _close(self, flight: _Flight) -> Event | None:
        """The event, once the last worker has landed. A gang that has lost one is of no more use."""
        workers = flight.task.seat.workers
        if len(flight.outcomes) < len(workers):
            return None
        gone = workers if flight.gone and len(workers) > 1 else tuple(flight.gone)
        self.dismiss(gone)
        return Event(task=flight.task, outcome=_overall(flight), gone=gone)

    def _end_overdue(self) -> list[Event]:
        """End the workers of attempts whose time is up."""
        now = time.monotonic()
        for flight, _ in self._flying.values():
            if flight.limit is not None and not self._starting.keys() & set(flight.task.seat.workers):
                flight.deadline = min(flight.deadline, now + flight.limit)
                why = f"not done after {flight.limit:g} s (resources.timeout)"
                flight.late, flight.limit = flight.late or _failed(flight.task, failures.TIMEOUT, why), None
        overdue = [(reference, *one) for reference, one in self._flying.items() if one[0].deadline < now]
        events: list[Event] = []
        for reference, flight, rank in overdue:
            del self._flying[reference]
            worker = flight.task.seat.workers[rank]
            self.dismiss([worker])
            flight.gone.add(worker)
            assert flight.late is not None
            flight.outcomes[rank] = flight.late
            events += [event] if (event := self._close(flight)) else []
        return events

    def _look_at_starts(self) -> None:
        if not self._starting:
            return
        up, _ = ray.wait([ready for ready, _ in self._starting.values()], num_returns=len(self._starting), timeout=0)
        now = time.monotonic()
        for worker, (ready, since) in list(self._starting.items()):
            if ready in up:
                del self._starting[worker]
            elif now - since > SLOW_START_SECONDS and worker not in self._told:
                self._told.add(worker)
                name = self._nodes.name(self._nodes_of[worker])
                self._say(
                    f"a worker on {name} has not started for {now - since:.0f} s; does another job hold its cores?"
                )

    def ask_for(self, demands: Sequence[Demand]) -> None:
        """See `driving.Pool`. Ray's autoscaler wants all that the cluster should be able to hold at once."""
        bundles = sorted((_bundle(one) for one in demands for _ in range(one.workers)), key=str)
        if not is_own() and bundles != self._asked:
            self._asked = bundles
            request_resources(bundles=bundles)

    def stop(self) -> None:
        """Ask all that runs to save what it has and end."""
        self._stopping = True
        for worker in {worker for flight, _ in self._flying.values() for worker in flight.task.seat.workers}:
            if worker in self._actors:
                self._actors[worker].stop.remote()

    def close(self) -> None:
        """End all workers, and ask for no more machines."""
        self.dismiss(list(self._actors))
        self.ask_for(())


def _bundle(demand: Demand) -> dict[str, float]:
    return {"CPU": demand.cpus} | ({"GPU": demand.gpus} if demand.gpus else {})


def _failed(task: Task, kind: str, error: str) -> jobs.Outcome:
    return jobs.Outcome(key=task.step.key, status="failed", kind=kind, error=error)


TELLING = (
    failures.INTERRUPTED,
    failures.BAD_INPUT,
    failures.DIVERGED,
    failures.OUT_OF_MEMORY,
    failures.STORAGE,
    failures.TIMEOUT,
    failures.NODE_LOST,
    failures.ERROR,
    failures.WORKER_DIED,
)
"""Kinds of failures, what says most about a gang's first."""


def _overall(flight: _Flight) -> jobs.Outcome:
    """One outcome for a gang: that of rank 0, or the failure that says most."""
    failed = [outcome for outcome in flight.outcomes.values() if outcome.status == "failed"]
    if not failed:
        return flight.outcomes[0]
    return min(failed, key=lambda outcome: TELLING.index(outcome.kind))
