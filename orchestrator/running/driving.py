"""The loop of a sweep: hand ready steps to workers, take in what comes back, until every step has ended."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestrator.nodes import Demand, Node, describe_demand, describe_nodes
from orchestrator.running import failures
from orchestrator.running.fleet import Fleet, Worker
from orchestrator.running.jobs import Outcome
from orchestrator.running.scheduler import Scheduler, Task
from orchestrator.steps import Step
from results.errors import LostLease

NODES_EVERY = 1.0
"""Seconds between looks at which machines there are."""
NEWS_EVERY = 2.0
"""Seconds between looks at what other drivers have ended."""
ELSEWHERE_SECONDS = 1.0
"""A step that another driver is at is asked for again after about so long."""
GRACE_SECONDS = 30.0
"""How long steps that were asked to stop may take to save what they have."""
IDLE_SECONDS = 60.0
"""A worker that nothing waits for is kept warm for so long; then its memory, or its machine, is given back."""
COMPLAINT_SECONDS = 60.0
"""Between two complaints about the results folder."""
NO_ROOM_SECONDS = 10.0
"""After so long with nothing running it is said what there is no room for."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """An attempt has ended. `gone`: workers whose processes ended with it."""

    task: Task
    outcome: Outcome
    gone: tuple[int, ...] = ()


class Pool(Protocol):
    """Worker processes."""

    def nodes(self) -> Sequence[Node]:
        """The machines that are there now."""

    def submit(self, task: Task, workers: Sequence[Worker], owner: str) -> None:
        """Begin the attempt on the workers of its seat; those that do not run yet are started."""

    def dismiss(self, workers: Sequence[int]) -> None:
        """End idle workers."""

    def wait(self, timeout: float) -> list[Event]:
        """Attempts that have ended; empty after `timeout` seconds without one."""

    def ask_for(self, demands: Sequence[Demand]) -> None:
        """Tell a cluster that can grow what runs and what could run if there were room."""

    def stop(self) -> None:
        """Ask all that runs to save what it has and end."""


class Ledger(Protocol):
    """What drivers that share a results folder tell each other."""

    def admit(self, step: Step) -> Outcome | str | None:
        """The attempt's owner where this driver may begin it; None where another driver is at it; else its outcome."""

    def release(self, step: Step) -> None:
        """This driver is not at the step any more."""

    def died(self, step: Step, outcome: Outcome) -> None:
        """Record a failure that the step's own process could not."""

    def gave_up(self, step: Step, outcome: Outcome) -> None:
        """Record that the step has failed for good."""

    def news(self, steps: Sequence[Step]) -> list[Outcome]:
        """Which of the steps have ended by another driver's doing."""


class Watch(Protocol):
    """Who is told what happens."""

    def started(self, task: Task) -> None:
        """An attempt has begun."""

    def retried(self, task: Task, outcome: Outcome) -> None:
        """An attempt has failed, and there will be another."""

    def ended(self, step: Step, outcome: Outcome) -> None:
        """A step has ended for good."""

    def tick(self, fleet: Fleet, scheduler: Scheduler) -> None:
        """Called a few times a second."""

    def line(self, text: str) -> None:
        """Something that a person should know."""


@dataclass(kw_only=True)
class Drive:
    """A sweep on its way."""

    scheduler: Scheduler
    fleet: Fleet
    pool: Pool
    ledger: Ledger
    watch: Watch
    asked_to_stop: Callable[[], bool] = lambda: False
    clock: Callable[[], float] = time.monotonic
    interval: float = 0.5

    def __post_init__(self) -> None:
        self._looked = self._heard = self._told = self._complained = -float("inf")
        self._stalled: float | None = None
        self._idle_since: dict[int, float] = {}

    def run(self) -> bool:
        """Returns whether every step has ended; False where it was asked to stop before.

        Raises:
            LostLease: other drivers have declared this one dead, and may do what it did.
        """
        try:
            return self._run()
        except LostLease:
            self._wind_up()
            raise

    def _run(self) -> bool:
        while not self.scheduler.is_over:
            if self.asked_to_stop():
                self.watch.line("stopping: what runs saves what it has; once more ends it at once")
                self._wind_up()
                return self.scheduler.is_over
            self._look()
            began = [self._begin(task) for task in self.scheduler.assign(self.fleet, self.clock())]
            self._hear()
            self._check_room()
            for event in self.pool.wait(self.interval if all(began) else 0.0):
                self._take_in(event)
            self.watch.tick(self.fleet, self.scheduler)
        return True

    def _look(self) -> None:
        if self.clock() - self._looked <= NODES_EVERY:
            return
        self._looked = self.clock()
        before = set(self.fleet.workers)
        self.fleet.update(self.pool.nodes())
        lost = before - self.fleet.workers.keys()
        busy = {worker for task in self.scheduler.running.values() for worker in task.seat.workers}
        self.pool.dismiss(sorted(lost - busy))  # what busy ones came to is told when they land
        for worker in lost:
            self.scheduler.forget(worker)
        self._let_idle_go()
        limit = self.fleet.limit
        self.pool.ask_for(self.scheduler.wanted()[:limit])  # running steps stand first in it

    def _let_idle_go(self) -> None:
        idle, now = set(self.fleet.idle), self.clock()
        self._idle_since = {worker: self._idle_since.get(worker, now) for worker in idle}
        if self.scheduler.ready():
            return
        for worker in [one for one, since in self._idle_since.items() if now - since > IDLE_SECONDS]:
            self.pool.dismiss([worker])
            self.fleet.remove(worker)
            self.scheduler.forget(worker)

    def _begin(self, task: Task) -> bool:
        """Returns False where the task's workers are free again at once."""
        self.pool.dismiss(task.seat.stop)
        answer = self._admit(task.step)
        if isinstance(answer, str):
            workers = [self.fleet.workers[worker] for worker in task.seat.workers]
            self.pool.submit(task, workers, answer)
            self.watch.started(task)
            return True
        self.fleet.free(task.seat.workers)
        if answer is None:
            later = self.clock() + ELSEWHERE_SECONDS * random.uniform(0.5, 2.0)
            self.scheduler.put_off(task.step.key, later)
        else:
            self._tell(self.scheduler.settle(answer, self.clock()))
        return False

    def _admit(self, step: Step) -> Outcome | str | None:
        """As the ledger says; not now where the results folder is out of reach."""
        try:
            return self.ledger.admit(step)
        except OSError as error:
            self._complain(error)
            return None

    def _complain(self, error: OSError) -> None:
        """The results folder is out of reach for the driver, or full: said once a minute."""
        if self.clock() - self._complained > COMPLAINT_SECONDS:
            self._complained = self.clock()
            self.watch.line(f"storage: {failures.short(error)}; it is tried again")

    def _take_in(self, event: Event) -> None:
        task, outcome = event.task, event.outcome
        self.fleet.free(task.seat.workers)
        for worker in event.gone:
            self.fleet.remove(worker)
            self.scheduler.forget(worker)
        if event.gone and outcome.status == "failed":
            self._note(lambda: self.ledger.died(task.step, outcome))
        over = self.scheduler.settle(outcome, self.clock())
        if not over and outcome.status == "failed" and outcome.kind != failures.INTERRUPTED:
            self.watch.retried(task, outcome)
        if over and outcome.status == "failed":
            self._note(lambda: self.ledger.gave_up(task.step, outcome))
        self._note(lambda: self.ledger.release(task.step))
        self._tell(over)

    def _note(self, write: Callable[[], None]) -> None:
        """A note that only helps whoever comes later: the sweep goes on without it."""
        try:
            write()
        except OSError as error:
            self._complain(error)

    def _tell(self, over: Sequence[tuple[Step, Outcome]]) -> None:
        for step, outcome in over:
            self.watch.ended(step, outcome)

    def _hear(self) -> None:
        """Steps that others were at may have ended."""
        began = self.clock()
        if not self.scheduler.waits or began - self._heard < NEWS_EVERY:
            return
        put_off = [self.scheduler.steps[key] for key in self.scheduler.put_off_steps()]
        try:
            news = self.ledger.news(put_off)
        except OSError as error:
            self._complain(error)
            news = []
        for outcome in news:
            self._tell(self.scheduler.settle_elsewhere(outcome))
        spent = self.clock() - began
        self._heard = began + 20 * spent  # a slow store is not asked all the time

    def _check_room(self) -> None:
        """Say what waits where nothing can run; machines may yet join."""
        if self.scheduler.running or self.scheduler.waits or self.scheduler.is_over:
            self._stalled = None
            return
        now = self.clock()
        self._stalled = now if self._stalled is None else self._stalled
        if now - self._stalled > NO_ROOM_SECONDS and now - self._told > 300:
            self._told = now
            key = self.scheduler.ready()[0]
            what = f"{self.scheduler.steps[key].kind} needs {describe_demand(self.scheduler.demand(key))}"
            self.watch.line(f"waiting for machines: {what}; there are {describe_nodes(self.fleet.nodes.values())}")

    def _wind_up(self) -> None:
        """Let what runs save what it has, for a while."""
        self.pool.stop()
        until = self.clock() + GRACE_SECONDS
        while self.scheduler.running and self.clock() < until:
            for event in self.pool.wait(self.interval):
                self._take_in(event)
            self.watch.tick(self.fleet, self.scheduler)
