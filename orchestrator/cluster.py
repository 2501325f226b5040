"""Ray, and nothing else of the project imports it: worker actors that live as long as the sweep.

A worker is one process that has imported torch once. Workers that train one model together sit in one
placement group. A worker that dies is replaced; what it was doing comes back as a failed outcome.
"""

import logging
import math
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, OutOfMemoryError, RayError, RayTaskError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from orchestrator import failures, jobs
from orchestrator.grid import Resources
from orchestrator.steps import Step
from results.store import Store
from workers.errors import BadInput

MEMORY_PER_WORKER = 2**30
"""Bytes that a worker needs at least; fewer workers than cores are started where memory is short."""
OBJECT_STORE_BYTES = 100 * 2**20
"""Of a Ray started here. Steps pass through the results folder, so next to nothing goes through Ray's."""
GRACE_SECONDS = 10.0
"""How long the others of a gang may take to end by themselves after one of them has failed."""
KNOCK_SECONDS = 10.0
"""How long the cluster that RAY_ADDRESS names may take to answer."""
FAILED_STARTS = 5
"""Workers in a row that may fail to start before the sweep gives up."""


class _Worker:
    """What runs in an actor's process."""

    def __init__(self, store: Store, table: jobs.Jobs, git_commit: str | None, environment: Mapping[str, str]) -> None:
        os.environ.update(environment)  # before torch is imported; a Ray runtime environment would take seconds
        self._store, self._table, self._git_commit = store, table, git_commit

    def ready(self) -> None:
        """Returns when the process is up."""

    def run(self, step: Step, place: jobs.Place) -> jobs.Outcome:
        """Do one step; see `jobs.run`."""
        if place.size > 1:
            place = replace(place, host=ray.util.get_node_ip_address())
        return jobs.run(
            self._store, step, owner=place.token, jobs=self._table, place=place, git_commit=self._git_commit
        )


@dataclass(kw_only=True)
class _Flight:
    """One step on its way: which worker has which rank, and what has come back."""

    step: Step
    workers: tuple[int, ...]
    outcomes: dict[int, jobs.Outcome] = field(default_factory=dict)
    """Rank -> outcome."""
    deadline: float = math.inf
    """When ranks that are still out are ended."""


class RayPool:
    """A `scheduler.Pool` of Ray actors."""

    def __init__(
        self, store: Store, table: jobs.Jobs, resources: Resources, count: int, gpus: float, git_commit: str | None
    ) -> None:
        self._arguments = (store, table, git_commit, environment(resources.cpus_per_worker, gpus))
        self._options: dict[str, Any] = {"num_cpus": resources.cpus_per_worker, "num_gpus": gpus, "max_restarts": 0}
        size = resources.together
        grouped = count - count % size
        self._gangs = {
            worker: tuple(range(worker - worker % size, worker - worker % size + size))
            if worker < grouped
            else (worker,)
            for worker in range(count)
        }
        self._placement = self._place(size, grouped // size) if size > 1 else []
        self._actors: dict[int, Any] = {}
        self._busy: set[int] = set()
        self._spoilt: set[int] = set()
        """Busy workers that are to be replaced when their step has ended."""
        self._starting: dict[Any, int] = {}
        self._flying: dict[Any, tuple[_Flight, int]] = {}
        self._failed_starts = 0
        for worker in range(count):
            self._start(worker)

    def _place(self, size: int, number: int) -> list[PlacementGroup]:
        bundle = {"CPU": self._options["num_cpus"], "GPU": self._options["num_gpus"]}
        bundle = {name: amount for name, amount in bundle.items() if amount}
        return [placement_group([bundle] * size, strategy="PACK") for _ in range(number)]

    def _start(self, worker: int) -> None:
        self._make(worker)
        self._starting[self._actors[worker].ready.remote()] = worker

    def _make(self, worker: int) -> None:
        options = dict(self._options)
        size = len(self._gangs[worker])
        if size > 1:
            group = self._placement[worker // size]
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(group, worker % size)
        self._actors[worker] = ray.remote(_Worker).options(**options).remote(*self._arguments)

    def gangs(self) -> Mapping[int, tuple[int, ...]]:
        """Worker -> the workers of its placement group."""
        return self._gangs

    def submit(self, workers: tuple[int, ...], step: Step) -> None:
        """Start the step; rank 0 is the first worker."""
        flight = _Flight(step=step, workers=workers)
        token = uuid4().hex
        self._busy.update(workers)
        for rank, worker in enumerate(workers):
            place = jobs.Place(rank=rank, size=len(workers), token=token)
            self._flying[self._actors[worker].run.remote(step, place)] = (flight, rank)

    def wait(self, timeout: float) -> list[tuple[tuple[int, ...], jobs.Outcome | None]]:
        """See `scheduler.Pool`."""
        waiting = [*self._flying, *self._starting]
        ready, _ = ray.wait(waiting, num_returns=1, timeout=timeout)
        if ready:
            ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0)
        freed: list[tuple[tuple[int, ...], jobs.Outcome | None]] = []
        for reference in ready:
            if reference in self._starting:
                freed += self._started(reference)
            elif reference in self._flying:
                freed += self._landed(reference)
        return freed + self._end_overdue()

    def _started(self, reference: Any) -> list[tuple[tuple[int, ...], None]]:
        worker = self._starting.pop(reference)
        try:
            ray.get(reference)
        except RayError as error:
            self._failed_starts += 1
            if self._failed_starts >= FAILED_STARTS:
                raise failures.NoWorkers(f"workers do not start: {_short(error)}") from error
            self._start(worker)
            return []
        self._failed_starts = 0
        return [((worker,), None)]

    def _landed(self, reference: Any) -> list[tuple[tuple[int, ...], jobs.Outcome | None]]:
        flight, rank = self._flying.pop(reference)
        worker = flight.workers[rank]
        outcome, died = _outcome(reference, flight.step)
        flight.outcomes[rank] = outcome
        if died or (outcome.status == "failed" and len(flight.workers) > 1):
            self._spoil(worker)
        if outcome.status == "failed" and flight.deadline == math.inf:
            flight.deadline = time.monotonic() + GRACE_SECONDS
        return self._close(flight)

    def _spoil(self, worker: int) -> None:
        """Mark the worker's whole gang for replacement: who survives keeps a process group with a hole in it.

        One that is idle has been reported free already, so it is replaced unseen; its first step waits for it.
        """
        starting = set(self._starting.values())
        for one in self._gangs[worker]:
            if one in self._busy:
                self._spoilt.add(one)
            elif one not in starting:
                ray.kill(self._actors[one])
                self._make(one)

    def _close(self, flight: _Flight) -> list[tuple[tuple[int, ...], jobs.Outcome | None]]:
        """The outcome and the workers that are free with it, once the last worker has landed.

        A worker that is replaced is free when its new process is up, and `_started` says so.
        """
        if len(flight.outcomes) < len(flight.workers):
            return []
        self._busy.difference_update(flight.workers)
        replaced = self._spoilt.intersection(flight.workers)
        self._spoilt -= replaced
        for worker in replaced:
            ray.kill(self._actors[worker])
            self._start(worker)
        return [(tuple(worker for worker in flight.workers if worker not in replaced), _overall(flight))]

    def _end_overdue(self) -> list[tuple[tuple[int, ...], jobs.Outcome | None]]:
        """End the workers of gangs in which another worker has failed some time ago."""
        now = time.monotonic()
        overdue = [(reference, *one) for reference, one in self._flying.items() if one[0].deadline < now]
        freed: list[tuple[tuple[int, ...], jobs.Outcome | None]] = []
        for reference, flight, rank in overdue:
            del self._flying[reference]
            worker = flight.workers[rank]
            ray.kill(self._actors[worker])
            self._spoil(worker)
            message = "ended, because another worker of its training failed"
            flight.outcomes[rank] = _failed(flight.step, failures.WORKER_DIED, message)
            freed += self._close(flight)
        return freed

    def close(self) -> None:
        """End all workers."""
        for actor in self._actors.values():
            ray.kill(actor)
        for group in self._placement:
            remove_placement_group(group)


def _outcome(reference: Any, step: Step) -> tuple[jobs.Outcome, bool]:
    """What an actor's call came to, and whether the actor is gone."""
    try:
        return ray.get(reference), False
    except OutOfMemoryError as error:
        return _failed(step, failures.OUT_OF_MEMORY, _short(error)), True
    except (ActorDiedError, ActorUnavailableError) as error:
        return _failed(step, failures.WORKER_DIED, f"the worker died: {_short(error)}"), True
    except RayTaskError as error:
        return _failed(step, failures.ERROR, _short(error)), False
    except RayError as error:
        return _failed(step, failures.WORKER_DIED, _short(error)), True


def _failed(step: Step, kind: str, error: str) -> jobs.Outcome:
    return jobs.Outcome(key=step.key, status="failed", kind=kind, error=error)


def _short(error: BaseException) -> str:
    """Ray's long messages, on one line and cut."""
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:297] + "..."


def _overall(flight: _Flight) -> jobs.Outcome:
    """One outcome for a gang: that of rank 0, or the failure that says most."""
    failed = [outcome for outcome in flight.outcomes.values() if outcome.status == "failed"]
    if not failed:
        return flight.outcomes[0]
    telling = (failures.BAD_INPUT, failures.DIVERGED, failures.OUT_OF_MEMORY, failures.ERROR, failures.WORKER_DIED)
    return min(failed, key=lambda outcome: telling.index(outcome.kind))


@contextmanager
def workers(
    store: Store,
    resources: Resources,
    *,
    steps: int,
    table: jobs.Jobs = jobs.WORKER_JOBS,
    git_commit: str | None = None,
) -> Iterator[RayPool]:
    """A pool for about as many steps, on the cluster that RAY_ADDRESS names, else on a Ray of its own here.

    Raises:
        BadInput: the machine cannot give what `resources` asks for.
    """
    with connected(resources), pool(store, resources, steps=steps, table=table, git_commit=git_commit) as made:
        yield made


@contextmanager
def connected(resources: Resources) -> Iterator[None]:
    """Within the block Ray can be used: the cluster that RAY_ADDRESS names, else a Ray of its own here."""
    _connect(resources)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def pool(
    store: Store, resources: Resources, *, steps: int, table: jobs.Jobs, git_commit: str | None
) -> Iterator[RayPool]:
    """A pool for about as many steps, on the Ray that is connected. Raises BadInput as `workers` does."""
    count, gpus = _count(resources, steps)
    made = RayPool(store, table, resources, count, gpus, git_commit)
    try:
        yield made
    finally:
        made.close()


def _connect(resources: Resources) -> None:
    here = _is_own()
    if not here:
        _knock(os.environ["RAY_ADDRESS"])
    own: dict[str, Any] = {}
    if here:
        own = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
        wanted = math.ceil((resources.workers or 0) * resources.cpus_per_worker)
        if wanted > len(os.sched_getaffinity(0)):
            own["num_cpus"] = wanted
    try:
        ray.init(
            address="local" if here else os.environ["RAY_ADDRESS"],
            namespace="gridlaw",
            log_to_driver=False,
            logging_level=logging.ERROR,
            **own,
        )
    except (ConnectionError, ValueError, RuntimeError, SystemExit) as error:  # Ray exits where it gives up
        if here:
            raise failures.NoWorkers(f"Ray does not start: {_short(error)}") from error
        raise BadInput(f"RAY_ADDRESS={os.environ['RAY_ADDRESS']}: {_short(error)}") from None


def _is_own() -> bool:
    """Whether Ray is started here and ends with the sweep."""
    return not os.environ.get("RAY_ADDRESS")


def _knock(address: str) -> None:
    """Raises BadInput where nobody answers at `host:port`: Ray itself would try for two minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        return  # `auto`, or a form that Ray judges at once
    hosts = [host, ray.util.get_node_ip_address()] if host in ("localhost", "127.0.0.1") else [host]
    for one in hosts:
        try:
            socket.create_connection((one, int(port)), timeout=KNOCK_SECONDS).close()
            return
        except (OSError, OverflowError) as error:
            reason = str(error)
    raise BadInput(f"RAY_ADDRESS={address}: no Ray answers there: {reason}")


def environment(cpus: float, gpus: float) -> dict[str, str]:
    """Of every worker. More threads than cores slow a training down by an order of magnitude."""
    environment = {
        "OMP_NUM_THREADS": str(max(1, int(cpus))),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    return environment if gpus else environment | {"DS_ACCELERATOR": "cpu"}


def _count(resources: Resources, steps: int) -> tuple[int, float]:
    """How many workers, and the GPUs of each."""
    there = ray.cluster_resources()
    gpus = resources.gpus_per_worker
    if gpus == "auto":
        gpus = 1.0 if there.get("GPU") else 0.0
    cores = there.get("CPU", 1)
    if resources.workers is None and _is_own():
        cores = min(cores, len(os.sched_getaffinity(0)))  # Ray counts the machine's
    possible = int(cores / resources.cpus_per_worker)
    if gpus:
        possible = min(possible, int(there.get("GPU", 0) / gpus + 1e-9))
    if resources.workers is None:
        together = resources.together
        count = min(possible, int(there.get("memory", MEMORY_PER_WORKER) / MEMORY_PER_WORKER), max(steps, together))
        count = max(1, count)
    else:
        count = resources.workers
    if count > possible:
        raise BadInput(f"resources.workers: {count} need more than there is: {possible} can run at once")
    if count < resources.together:
        together = resources.together
        raise BadInput(f"resources.workers_per_training: {together} is more than the {count} workers there can be")
    return count, gpus
