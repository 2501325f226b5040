"""Which step runs next, on which workers, and what a failure means for the rest. Pure logic: no Ray, no files.

Order: what everything waits for first, then evaluations of finished trainings, then trainings, each the longest first.
Evaluations of one training go to one worker back to back, because it keeps the loaded model; who has nothing else to
do helps with another's. The most urgent training that finds no room has machines held for it: what else is put there
meanwhile must end before it could begin.
"""

import heapq
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from orchestrator.nodes import ANY, Demand
from orchestrator.running import failures
from orchestrator.running.fleet import Fleet, Seat
from orchestrator.running.jobs import Outcome
from orchestrator.steps import Step

EVALUATIONS = frozenset({"score", "search"})
Heap = list[tuple[float, int, str]]
"""(less is more urgent, place in the graph, key)"""
WANTED = 1000
"""Steps that a cluster is asked to grow for at a time."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One attempt at a step, and where it is made."""

    step: Step
    demand: Demand
    seat: Seat
    attempt: int
    """From 1, in this sweep."""
    halvings: int
    """How often memory was short: batches are cut in half so often."""


@dataclass
class Scheduler:
    """The state of a sweep's steps; `finished` and steps outside `steps` count as there already."""

    steps: Mapping[str, Step]
    finished: Iterable[str]
    priority: Mapping[str, float]
    """Step key -> larger runs earlier."""
    demands: Mapping[str, Demand] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Step key -> how long it will take, roughly; without it nothing is put on machines that are held."""
    max_attempts: int = 3
    may_halve: Callable[[Step, Demand, int], bool] = lambda step, demand, halvings: False
    """Whether a step that ran out of memory, cut in half so often, can be cut once more."""

    attempts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    failed: dict[str, Outcome] = field(default_factory=dict)
    """Steps that have failed for good, with the last outcome."""
    running: dict[str, Task] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._settled: set[str] = set(self.finished) & self.steps.keys()
        self._times: dict[tuple[str, str], int] = defaultdict(int)  # (step, kind of failure) -> how often
        self._ends: dict[str, float] = {}  # running step -> when it is expected to end
        self._missing: dict[str, int] = {}
        self._dependents: dict[str, list[str]] = defaultdict(list)
        self._prepare: dict[Demand, Heap] = {}
        self._train: dict[Demand, Heap] = {}
        self._groups: dict[str, Heap] = {}
        self._owners: dict[str, int] = {}
        self._owned: dict[int, str] = {}
        self._later: list[tuple[float, int, str]] = []
        self._hold: _Hold | None = None
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

    @property
    def waits(self) -> bool:
        """Whether steps are put off to a later time."""
        return bool(self._later)

    def demand(self, key: str) -> Demand:
        """What the step takes."""
        return self.demands.get(key, ANY)

    def ready(self) -> list[str]:
        """Steps that could run if there were room: the first of every size."""
        heads = [heap[0][2] for heap in (*self._prepare.values(), *self._train.values()) if heap]
        return heads + [group[0][2] for group in self._groups.values()]

    def wanted(self) -> list[Demand]:
        """What runs and what could run now takes, up to `WANTED` steps of it."""
        heaps = (*self._prepare.values(), *self._train.values(), *self._groups.values())
        ready = [key for heap in heaps for _, _, key in heap]
        running = [task.demand for task in self.running.values()]
        return running + [self.demand(key) for key in ready[:WANTED]]

    def _make_ready(self, key: str) -> None:
        step = self.steps[key]
        if step.kind in EVALUATIONS:
            heap = self._groups.setdefault(dict(step.needs)["train"], [])
        else:
            heaps = self._train if step.kind == "train" else self._prepare
            heap = heaps.setdefault(self.demand(key), [])
        heapq.heappush(heap, (-self.priority.get(key, 0.0), self._order[key], key))

    def put_off(self, key: str, until: float) -> None:
        """A step that was assigned is not to run before `until`; the attempt does not count."""
        self._drop_running(key)
        self.attempts[key] -= 1
        heapq.heappush(self._later, (until, self._order[key], key))

    # ---------------------------------------------------------------- choosing

    def assign(self, fleet: Fleet, now: float = 0.0) -> list[Task]:
        """Attempts to begin now, each with the seat that was taken for it."""
        while self._later and self._later[0][0] <= now:
            self._make_ready(heapq.heappop(self._later)[2])
        round_ = _Round(fleet=fleet, now=now)
        chosen: list[Task] = []
        while (pick := self._pick(round_)) is not None:
            key, seat = pick
            for worker in seat.stop:
                self.forget(worker)
            self.attempts[key] += 1
            task = Task(
                step=self.steps[key],
                demand=self.demand(key),
                seat=seat,
                attempt=self.attempts[key],
                halvings=self._times[key, failures.OUT_OF_MEMORY],
            )
            self.running[key] = task
            self._ends[key] = now + self.seconds.get(key, float("inf"))
            chosen.append(task)
        return chosen

    def _pick(self, round_: "_Round") -> tuple[str, Seat] | None:
        if pick := self._pick_from(self._prepare, round_):
            return pick
        self._hold_room(round_)
        return self._pick_evaluation(round_) or self._pick_from(self._train, round_) or self._help(round_)

    def _pick_evaluation(self, round_: "_Round") -> tuple[str, Seat] | None:
        """The next of a worker's own training, else the first of a training that nobody evaluates yet."""
        for worker in [one for one in round_.fleet.idle if one in self._owned]:
            train = self._owned[worker]
            if not self._groups.get(train):
                self.forget(worker)
            elif seat := self._seat_evaluation(round_, train, prefer=worker):
                return self._take(train), seat
        for train in self._groups:
            if train not in self._owners and (seat := self._seat_evaluation(round_, train)):
                self._owners[train], self._owned[seat.workers[0]] = seat.workers[0], train
                return self._take(train), seat
        return None

    def _seat_evaluation(self, round_: "_Round", train: str, prefer: int | None = None) -> Seat | None:
        key = self._groups[train][0][2]
        return round_.seat(self.demand(key), prefer=prefer, seconds=self.seconds.get(key))

    def _pick_from(self, heaps: Mapping[Demand, Heap], round_: "_Round") -> tuple[str, Seat] | None:
        """The most urgent that finds room; each size is asked once."""
        for demand, heap in sorted(((one, heap) for one, heap in heaps.items() if heap), key=lambda one: one[1]):
            key = heap[0][2]
            seat = round_.seat(demand, seconds=self.seconds.get(key), key=key)
            if seat is not None:
                heapq.heappop(heap)
                return key, seat
        return None

    def _hold_room(self, round_: "_Round") -> None:
        """Keep machines for the most urgent training, where it must wait for them."""
        heads = [heap[0] for heap in self._train.values() if heap]
        if not heads:
            round_.hold = self._hold = None
            return
        key = min(heads)[2]
        held = self._hold
        if held is None or held.key != key or held.until < round_.now or not held.nodes <= round_.fleet.nodes.keys():
            self._hold = self._held_for(key, round_.fleet)
        round_.hold = self._hold

    def _held_for(self, key: str, fleet: Fleet) -> "_Hold | None":
        demand = self.demand(key)
        if demand.workers == 1 and demand.gpus <= 1:
            return None  # any that becomes free will do
        ends = {worker: self._ends[one] for one, task in self.running.items() for worker in task.seat.workers}
        found = fleet.soonest(demand, ends)
        return None if found is None else _Hold(key=key, nodes=found[0], until=found[1])

    def _help(self, round_: "_Round") -> tuple[str, Seat] | None:
        """An evaluation of the training that has most of them left, though another worker is at it."""
        for train in sorted(self._groups, key=lambda one: -len(self._groups[one])):
            if seat := self._seat_evaluation(round_, train):
                return self._take(train), seat
        return None

    def _take(self, train: str) -> str:
        waiting = self._groups[train]
        key = heapq.heappop(waiting)[2]
        if not waiting:
            del self._groups[train]
        return key

    def forget(self, worker: int) -> None:
        """The worker keeps no training's model any more."""
        train = self._owned.pop(worker, None)
        if train is not None and self._owners.get(train) == worker:
            del self._owners[train]

    # ---------------------------------------------------------------- what came of it

    def settle(self, outcome: Outcome, now: float = 0.0) -> list[tuple[Step, Outcome]]:
        """Take in one outcome; returns the steps that ended with it: itself, or itself and all that needed it.

        Nothing ended where the step is tried again.
        """
        key = outcome.key
        self._drop_running(key)
        if key in self._settled or key in self.failed:
            return []
        if outcome.status != "failed":
            return self._finish(outcome)
        if outcome.kind == failures.INTERRUPTED:
            self.attempts[key] -= 1
            heapq.heappush(self._later, (now + failures.delay(outcome.kind, 1), self._order[key], key))
            return []
        self._times[key, outcome.kind] += 1
        times = self._times[key, outcome.kind]
        if outcome.kind == failures.OUT_OF_MEMORY:
            again = self.may_halve(self.steps[key], self.demand(key), times - 1)
        else:
            again = failures.may_retry(outcome.kind, times, self.max_attempts)
        if not again:
            return self.give_up(outcome)
        delay = failures.delay(outcome.kind, times)
        if delay:
            heapq.heappush(self._later, (now + delay, self._order[key], key))
        else:
            self._make_ready(key)
        return []

    def _drop_running(self, key: str) -> None:
        self.running.pop(key, None)
        self._ends.pop(key, None)

    def _finish(self, outcome: Outcome) -> list[tuple[Step, Outcome]]:
        self._settled.add(outcome.key)
        for dependent in self._dependents.pop(outcome.key, ()):
            self._missing[dependent] -= 1
            if self._missing[dependent] == 0 and dependent not in self.failed:
                self._make_ready(dependent)
        return [(self.steps[outcome.key], outcome)]

    def give_up(self, outcome: Outcome) -> list[tuple[Step, Outcome]]:
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
                replace(outcome, key=dependent, kind=failures.NEEDED_STEP, error=reason, seconds=0.0)
                for dependent in self._dependents.pop(one.key, ())
            )
        return ended

    def exclude(self, outcomes: Iterable[Outcome]) -> list[tuple[Step, Outcome]]:
        """Steps that have failed for good before the sweep, with all that needs them; for before the first `assign`."""
        ended = [one for outcome in outcomes for one in self.give_up(outcome)]
        for heaps in (self._prepare, self._train, self._groups):
            for name, heap in list(heaps.items()):
                kept = [one for one in heap if one[2] not in self.failed]
                heapq.heapify(kept)
                heaps[name] = kept  # type: ignore[index]
        self._groups = {train: heap for train, heap in self._groups.items() if heap}
        return ended

    def settle_elsewhere(self, outcome: Outcome) -> list[tuple[Step, Outcome]]:
        """A step that was put off has ended by another driver's doing."""
        self._later = [one for one in self._later if one[2] != outcome.key]
        heapq.heapify(self._later)
        if outcome.key in self._settled or outcome.key in self.failed:
            return []
        return self._finish(outcome) if outcome.status != "failed" else self.give_up(outcome)

    def put_off_steps(self) -> list[str]:
        """Steps that wait for their time."""
        return [key for _, _, key in self._later]


@dataclass(frozen=True, kw_only=True)
class _Hold:
    """Machines that are kept for a training until it can begin."""

    key: str
    nodes: frozenset[str]
    until: float


@dataclass
class _Round:
    """One go at handing out work: sizes that found no room once are not asked again in it."""

    fleet: Fleet
    now: float
    hold: _Hold | None = None
    refused: set[tuple[Demand, bool]] = field(default_factory=set)

    def seat(
        self, demand: Demand, prefer: int | None = None, seconds: float | None = None, key: str | None = None
    ) -> Seat | None:
        """As `Fleet.seat`; on machines that are kept for another step only what will have left them in time."""
        hold = self.hold
        avoids = hold is not None and hold.key != key and (seconds is None or self.now + seconds > hold.until)
        if (demand, avoids) in self.refused:
            return None
        seat = self.fleet.seat(demand, prefer=prefer, avoid=hold.nodes if hold is not None and avoids else ())
        if seat is None:
            self.refused.add((demand, avoids))
        return seat
