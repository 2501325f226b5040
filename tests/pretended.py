"""A pool, a ledger and a watch that only pretend, for tests of the loop of a sweep."""

import itertools
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from orchestrator.nodes import Demand, Node
from orchestrator.running.driving import Event
from orchestrator.running.fleet import Fleet, Worker
from orchestrator.running.jobs import Outcome
from orchestrator.running.scheduler import Scheduler, Task
from orchestrator.steps import Step
from workers.settings import Budget

Fate = Callable[[Step, int], str]
"""From a step and the number of its attempt to the kind of its failure, or nothing."""

NOTHING = Budget(beams=1)


def node(name: str = "here", cpus: float = 2, gpus: int = 0, memory: int = 64) -> Node:
    return Node(id=name, name=name, cpus=cpus, gpus=gpus, gpu_bytes=80, memory=memory)


def graph(trainings: int, budgets: int) -> dict[str, Step]:
    """A tokenizer, trainings that need it, searches of each training."""
    steps = [Step(kind="tokenizer", key="tokenizer", settings=NOTHING)]
    for n in range(trainings):
        train = f"train{n}"
        steps.append(Step(kind="train", key=train, settings=NOTHING, needs=(("tokenizer", "tokenizer"),)))
        for budget in range(budgets):
            steps.append(Step(kind="search", key=f"search{n}-{budget}", settings=NOTHING, needs=(("train", train),)))
    return {step.key: step for step in steps}


@dataclass
class FakePool:
    """Ends attempts in a random order and checks that nobody does two things at once."""

    machines: list[Node]
    fate: Fate = lambda step, attempt: ""
    seed: int = 0
    shared: set[str] | None = None
    """Where finished steps are told, as a results folder would."""
    flying: dict[str, tuple[Task, tuple[Worker, ...]]] = field(default_factory=dict)
    log: list[tuple[Step, tuple[int, ...]]] = field(default_factory=list)
    attempts: Counter[str] = field(default_factory=Counter)
    tasks: list[Task] = field(default_factory=list)
    stopped: bool = False
    asked: list[Demand] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.alive: dict[int, Worker] = {}

    def nodes(self) -> Sequence[Node]:
        return self.machines

    def submit(self, task: Task, workers: Sequence[Worker], owner: str) -> None:
        busy = {worker.id for _, flying in self.flying.values() for worker in flying}
        assert not busy & set(task.seat.workers)
        assert len(workers) == task.demand.workers
        self.alive |= {worker.id: worker for worker in workers}
        for machine in self.machines:
            here = [one for one in self.alive.values() if one.node == machine.id]
            assert sum(one.cpus for one in here) <= machine.cpus + 1e-6
            assert sum(one.gpus for one in here) <= machine.gpus + 1e-6
        self.flying[task.step.key] = (task, tuple(workers))
        self.log.append((task.step, task.seat.workers))
        self.tasks.append(task)
        self.attempts[task.step.key] += 1

    def dismiss(self, workers: Sequence[int]) -> None:
        for worker in workers:
            self.alive.pop(worker, None)

    def wait(self, timeout: float) -> list[Event]:
        if not self.flying:
            return []
        key = self.rng.choice(sorted(self.flying))
        task, workers = self.flying.pop(key)
        kind = "interrupted" if self.stopped else self.fate(task.step, self.attempts[key])
        if not kind and self.shared is not None:
            assert key not in self.shared, "done twice"
            self.shared.add(key)
        outcome = Outcome(key=key, status="failed" if kind else "done", kind=kind, error="broken" if kind else "")
        gone = tuple(worker.id for worker in workers) if kind in ("worker_died", "node_lost") else ()
        self.dismiss(gone)
        return [Event(task=task, outcome=outcome, gone=gone)]

    def ask_for(self, demands: Sequence[Demand]) -> None:
        self.asked = list(demands)

    def stop(self) -> None:
        self.stopped = True


@dataclass
class FakeLedger:
    """Leases and outcomes in plain sets that several drivers may share."""

    held: dict[str, str] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    failures: dict[str, Outcome] = field(default_factory=dict)
    name: str = "a"
    deaths: list[str] = field(default_factory=list)

    def admit(self, step: Step) -> Outcome | str | None:
        if self.held.setdefault(step.key, self.name) != self.name:
            return None
        if step.key in self.done or step.key in self.failures:
            self.release(step)
            return self.failures.get(step.key) or Outcome(key=step.key, status="cached")
        return self.name

    def release(self, step: Step) -> None:
        assert self.held.pop(step.key) == self.name

    def died(self, step: Step, outcome: Outcome) -> None:
        self.deaths.append(step.key)

    def gave_up(self, step: Step, outcome: Outcome) -> None:
        self.failures[step.key] = outcome

    def news(self, steps: Sequence[Step]) -> list[Outcome]:
        found = [Outcome(key=step.key, status="cached") for step in steps if step.key in self.done]
        return found + [self.failures[step.key] for step in steps if step.key in self.failures]


@dataclass
class Notes:
    """A watch that writes down what it is told."""

    ends: dict[str, Outcome] = field(default_factory=dict)
    retries: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def started(self, task: Task) -> None: ...

    def retried(self, task: Task, outcome: Outcome) -> None:
        self.retries.append(task.step.key)

    def ended(self, step: Step, outcome: Outcome) -> None:
        assert step.key not in self.ends
        self.ends[step.key] = outcome

    def tick(self, fleet: Fleet, scheduler: Scheduler) -> None: ...

    def line(self, text: str) -> None:
        self.lines.append(text)


def ticking(step: float = 1.0) -> Callable[[], float]:
    """A clock that goes on by itself."""
    times = itertools.count()
    return lambda: next(times) * step


def demands_of(steps: dict[str, Step], **kinds: Demand) -> dict[str, Demand]:
    return {key: kinds[step.kind] for key, step in steps.items() if step.kind in kinds}
