"""A sweep on a virtual clock: the scheduler that runs sweeps, with pretended workers that take as long as estimated."""

import heapq
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.nodes import ANY, Demand, Node
from orchestrator.running.driving import Drive, Event
from orchestrator.running.fleet import Fleet, Worker
from orchestrator.running.jobs import Outcome
from orchestrator.running.scheduler import Scheduler, Task
from orchestrator.steps import Step


@dataclass(frozen=True, kw_only=True)
class Span:
    """One step on one worker, in seconds from the beginning."""

    key: str
    kind: str
    node: str
    devices: tuple[int, ...]
    gpus: float
    cpus: float
    start: float
    end: float


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """What ran when."""

    spans: tuple[Span, ...]
    stuck: tuple[str, ...] = ()
    """Steps that no machine has room for, and what needs them."""

    @property
    def seconds(self) -> float:
        """From the beginning to the end of the last step."""
        return max((span.end for span in self.spans), default=0.0)

    def gpu_seconds(self) -> float:
        """Of all GPUs together, busy."""
        return sum((span.end - span.start) * span.gpus for span in self.spans)


@dataclass
class _Pretended:
    """A `Pool` and its clock."""

    machines: Sequence[Node]
    seconds: Mapping[str, float]
    now: float = 0.0
    spans: list[Span] = field(default_factory=list)
    flying: list[tuple[float, int, Task]] = field(default_factory=list)
    begun: int = 0

    def nodes(self) -> Sequence[Node]:
        return self.machines

    def submit(self, task: Task, workers: Sequence[Worker], owner: str) -> None:
        end = self.now + self.seconds[task.step.key]
        self.begun += 1
        heapq.heappush(self.flying, (end, self.begun, task))
        for worker in workers:
            self.spans.append(
                Span(
                    key=task.step.key,
                    kind=task.step.kind,
                    node=worker.node,
                    devices=worker.devices,
                    gpus=worker.gpus,
                    cpus=worker.cpus,
                    start=self.now,
                    end=end,
                )
            )

    def dismiss(self, workers: Sequence[int]) -> None:
        """Pretended processes leave nothing behind."""

    def wait(self, timeout: float) -> list[Event]:
        if not self.flying:
            raise _Stuck
        ended: list[Event] = []
        self.now = self.flying[0][0]
        while self.flying and self.flying[0][0] == self.now:
            task = heapq.heappop(self.flying)[2]
            ended.append(Event(task=task, outcome=Outcome(key=task.step.key, status="done")))
        return ended

    def ask_for(self, demands: Sequence[Demand]) -> None:
        """Pretended machines are as many as they are."""

    def stop(self) -> None:
        """Nobody asks."""


class _Stuck(Exception):
    """Nothing runs and nothing finds room."""


class _Alone:
    """A `Ledger` without other drivers."""

    def admit(self, step: Step) -> Outcome | str | None:
        return "alone"

    def release(self, step: Step) -> None: ...

    def died(self, step: Step, outcome: Outcome) -> None: ...

    def gave_up(self, step: Step, outcome: Outcome) -> None: ...

    def news(self, steps: Sequence[Step]) -> list[Outcome]:
        return []


class _Unwatched:
    """A `Watch` that nobody looks at."""

    def started(self, task: Task) -> None: ...

    def retried(self, task: Task, outcome: Outcome) -> None: ...

    def ended(self, step: Step, outcome: Outcome) -> None: ...

    def tick(self, fleet: Fleet, scheduler: Scheduler) -> None: ...

    def line(self, text: str) -> None: ...


def simulate(
    steps: Mapping[str, Step],
    *,
    seconds: Mapping[str, float],
    priority: Mapping[str, float],
    nodes: Sequence[Node],
    demands: Mapping[str, Demand] | None = None,
    finished: Collection[str] = (),
    limit: int | None = None,
) -> Timeline:
    """Run the steps that are not finished as a sweep would, every one taking its `seconds`.

    Args:
        priority: as the scheduler's: larger runs earlier.
        limit: workers that may work at once.
    """
    pool = _Pretended(machines=nodes, seconds=seconds)
    scheduler = Scheduler(steps=steps, finished=finished, priority=priority, demands=demands or {}, seconds=seconds)
    drive = Drive(
        scheduler=scheduler,
        fleet=Fleet(limit=limit),
        pool=pool,
        ledger=_Alone(),
        watch=_Unwatched(),
        clock=lambda: pool.now,
    )
    try:
        drive.run()
    except _Stuck:
        ended = {span.key for span in pool.spans}
        return Timeline(spans=tuple(pool.spans), stuck=tuple(steps.keys() - ended - set(finished)))
    return Timeline(spans=tuple(pool.spans))


def lower_bound(
    steps: Mapping[str, Step],
    *,
    seconds: Mapping[str, float],
    demands: Mapping[str, Demand],
    gpus: int,
    finished: Collection[str] = (),
) -> float:
    """Seconds that no schedule can beat: the longest chain, or the GPUs' work over all GPUs, whichever is longer."""
    ends: dict[str, float] = {}
    work = 0.0
    for key, step in steps.items():
        own = 0.0 if key in finished else seconds[key]
        ends[key] = own + max((ends.get(needed, 0.0) for _, needed in step.needs), default=0.0)
        demand = demands.get(key, ANY)
        work += own * demand.workers * demand.gpus
    return max(max(ends.values(), default=0.0), work / gpus if gpus else 0.0)
