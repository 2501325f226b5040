"""Which step runs next, on which worker, and what a failure means for the rest. Pure logic: no Ray, no files.

Order: what everything waits for first, then evaluations of finished trainings, then trainings, the longest
first. Evaluations of one training go to one worker back to back, because it keeps the loaded model; a worker
with nothing else to do helps with another's. A step that needs several workers takes a whole gang.
"""

import heapq
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from orchestrator import failures
from orchestrator.jobs import Outcome
from orchestrator.steps import Step

EVALUATIONS = frozenset({"score", "search"})


class Pool(Protocol):
    """Workers that steps are handed to. A worker is a number; a gang is several that can do one step together."""

    def gangs(self) -> Mapping[int, tuple[int, ...]]:
        """Worker -> the workers of its gang, itself included."""

    def submit(self, workers: tuple[int, ...], step: Step) -> None:
        """Start the step on idle workers; the first of them reports."""

    def wait(self, timeout: float) -> list[tuple[tuple[int, ...], Outcome | None]]:
        """Workers that have become free, with the outcome of what they did; None where they are new.

        Empty after `timeout` seconds without one.
        """


@dataclass
class Scheduler:
    """The state of a sweep's steps; `finished` and steps outside `steps` count as there already."""

    steps: Mapping[str, Step]
    finished: Iterable[str]
    priority: Mapping[str, float]
    """Step key -> larger runs earlier."""
    max_attempts: int = 3

    attempts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    failed: dict[str, Outcome] = field(default_factory=dict)
    """Steps that have failed for good, with the last outcome."""
    running: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._settled: set[str] = set(self.finished) & self.steps.keys()
        self._missing: dict[str, int] = {}
        self._dependents: dict[str, list[str]] = defaultdict(list)
        self._prepare: list[tuple[float, int, str]] = []
        self._train: list[tuple[float, int, str]] = []
        self._groups: dict[str, deque[str]] = {}
        self._owners: dict[str, int] = {}
        self._owned: dict[int, str] = {}
        self._order = {key: position for position, key in enumerate(self.steps)}
        for key, step in self.steps.items():
            if key in self._settled:
                continue
            needed = [one for _, one in step.needs if one in self.steps and one not in self._settled]
            self._missing[key] = len(needed)
            for one in needed:
                self._dependents[one].append(key)
        for key in [key for key, missing in self._missing.items() if missing == 0]:
            self._make_ready(key)

    @property
    def is_over(self) -> bool:
        """Whether every step has ended, one way or the other."""
        return len(self._settled) + len(self.failed) == len(self.steps)

    def _make_ready(self, key: str) -> None:
        step = self.steps[key]
        if step.kind in EVALUATIONS:
            self._groups.setdefault(dict(step.needs)["train"], deque()).append(key)
        else:
            heap = self._train if step.kind == "train" else self._prepare
            heapq.heappush(heap, (-self.priority.get(key, 0.0), self._order[key], key))

    # ---------------------------------------------------------------- choosing

    def assign(self, idle: set[int], gangs: Mapping[int, tuple[int, ...]]) -> list[tuple[tuple[int, ...], Step]]:
        """Steps for the idle workers; chosen workers are taken out of `idle`."""
        chosen: list[tuple[tuple[int, ...], Step]] = []
        while idle:
            pick = self._pick(idle, gangs)
            if pick is None:
                break
            workers, key = pick
            idle.difference_update(workers)
            self.running[key] = workers
            self.attempts[key] += 1
            chosen.append((workers, self.steps[key]))
        return chosen

    def _pick(self, idle: set[int], gangs: Mapping[int, tuple[int, ...]]) -> tuple[tuple[int, ...], str] | None:
        if self._prepare:
            return (min(idle),), heapq.heappop(self._prepare)[2]
        return self._pick_evaluation(idle) or self._pick_training(idle, gangs) or self._help(idle)

    def _pick_evaluation(self, idle: set[int]) -> tuple[tuple[int, ...], str] | None:
        """The next of a worker's own training, else the first of a training that nobody evaluates yet."""
        for worker in sorted(idle & self._owned.keys()):
            train = self._owned[worker]
            if self._groups.get(train):
                return (worker,), self._take(train)
            self._disown(worker)
        for train in self._groups:
            if train not in self._owners:
                worker = min(idle)
                self._owners[train], self._owned[worker] = worker, train
                return (worker,), self._take(train)
        return None

    def _pick_training(
        self, idle: set[int], gangs: Mapping[int, tuple[int, ...]]
    ) -> tuple[tuple[int, ...], str] | None:
        if not self._train:
            return None
        size = self.steps[self._train[0][2]].workers
        for worker in sorted(idle):
            gang = gangs[worker] if size > 1 else (worker,)
            if len(gang) >= size and idle.issuperset(gang[:size]):
                return gang[:size], heapq.heappop(self._train)[2]
        return None

    def _help(self, idle: set[int]) -> tuple[tuple[int, ...], str] | None:
        """An evaluation of the training that has most of them left, though another worker is at it."""
        if not self._groups:
            return None
        train = max(self._groups, key=lambda one: len(self._groups[one]))
        return (min(idle),), self._take(train)

    def _take(self, train: str) -> str:
        waiting = self._groups[train]
        key = waiting.popleft()
        if not waiting:
            del self._groups[train]
        return key

    def _disown(self, worker: int) -> None:
        train = self._owned.pop(worker)
        if self._owners.get(train) == worker:
            del self._owners[train]

    # ---------------------------------------------------------------- what came of it

    def settle(self, outcome: Outcome) -> list[tuple[Step, Outcome]]:
        """Take in one outcome; returns the steps that ended with it: itself, or itself and all that needed it.

        Nothing ended where the step is tried again.
        """
        key = outcome.key
        self.running.pop(key, None)
        if outcome.status != "failed":
            self._settled.add(key)
            for dependent in self._dependents.pop(key, ()):
                self._missing[dependent] -= 1
                if self._missing[dependent] == 0:
                    self._make_ready(dependent)
            return [(self.steps[key], outcome)]
        if failures.may_retry(outcome.kind, self.attempts[key], self.max_attempts):
            self._make_ready(key)
            return []
        return self._give_up(outcome)

    def _give_up(self, outcome: Outcome) -> list[tuple[Step, Outcome]]:
        """The step and everything that needs it have failed."""
        ended: list[tuple[Step, Outcome]] = []
        first = self.steps[outcome.key]
        reason = f"{first.kind} {first.key[:12]} failed: {outcome.error}"
        waiting = deque([outcome])
        while waiting:
            one = waiting.popleft()
            if one.key in self.failed:
                continue
            self.failed[one.key] = one
            ended.append((self.steps[one.key], one))
            waiting.extend(
                Outcome(key=dependent, status="failed", kind=failures.NEEDED_STEP, error=reason)
                for dependent in self._dependents.pop(one.key, ())
            )
        return ended


Started = Callable[[Step, tuple[int, ...]], None]
Ended = Callable[[Step, Outcome], None]
Retried = Callable[[Step, Outcome, int], None]


def drive(
    scheduler: Scheduler,
    pool: Pool,
    *,
    started: Started,
    ended: Ended,
    retried: Retried,
    tick: Callable[[], None],
    interval: float = 0.5,
) -> None:
    """Keep the pool busy until every step has ended; `tick` is called at least every `interval` seconds."""
    idle: set[int] = set()
    while not scheduler.is_over:
        for workers, step in scheduler.assign(idle, pool.gangs()):
            pool.submit(workers, step)
            started(step, workers)
        if not scheduler.running and len(idle) == len(pool.gangs()):
            raise RuntimeError("steps are left that no worker can do")
        for workers, outcome in pool.wait(interval):
            idle.update(workers)
            if outcome is None:
                continue
            over = scheduler.settle(outcome)
            if not over:
                retried(scheduler.steps[outcome.key], outcome, scheduler.attempts[outcome.key])
            for step, its_outcome in over:
                ended(step, its_outcome)
        tick()
