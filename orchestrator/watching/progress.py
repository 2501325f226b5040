"""How far a running sweep is, and when it will have ended."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from orchestrator.forecasting.estimates import Estimates
from orchestrator.forecasting.eta import Ended, Running, calibrated, is_trusted, seconds_left
from orchestrator.nodes import ANY, Node
from orchestrator.rows import last_line
from orchestrator.running.jobs import Outcome
from orchestrator.steps import Step
from orchestrator.watching.console import duration
from results.store import Store

EVERY = 3.0
"""Seconds between two looks ahead, at least."""
SHARE = 0.05
"""Of the driver's time that looking ahead may take."""
SEEN = 0.05
"""Share of a training that must be over before it tells how fast it is: the first steps are slower."""
READERS = 16
"""Curves that are read at a time."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """The newest line of a training's curve."""

    step: int
    steps: int
    seconds: float
    """Of training, in all attempts."""
    seen: float
    """When the line was first seen."""


class Progress:
    """Counts of steps by kind, and how long the rest will take.

    `look` must be called now and then with what runs where; it recalculates when that is due.
    """

    def __init__(
        self,
        new: Sequence[Step],
        estimates: Estimates,
        store: Store,
        *,
        limit: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`estimates`: calibrated from earlier sweeps where there were any. `limit`: workers that may work at once."""
        self._open = {step.key: step for step in new}
        self.total = Counter(step.kind for step in new)
        self.ended: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self._estimates, self._store, self._limit, self._clock = estimates, store, limit, clock
        self._done: list[Ended] = []
        self._devices: dict[str, str] = {}
        self._since: dict[str, float] = {}
        self._marks: dict[str, Mark] = {}
        self._began = clock()
        self._due = self._began
        self._end: float | None = None

    def end(self, step: Step, outcome: Outcome) -> None:
        """Take in a step that has ended."""
        self.ended[step.kind] += 1
        self.failed[step.kind] += outcome.status == "failed"
        self._open.pop(step.key, None)
        self._since.pop(step.key, None)
        self._marks.pop(step.key, None)
        if outcome.status == "done":
            device = self._devices.get(step.key, self._estimates.device(step))
            at = self._clock() - self._began
            self._done.append(Ended(step=step, device=device, seconds=outcome.seconds, at=at))

    def look(self, nodes: Sequence[Node], running: Mapping[str, str]) -> None:
        """Take in which machines there are, and what runs on which: step key -> the id of its node."""
        now = self._clock()
        devices = {node.id: node.device for node in nodes}
        for key, node in running.items():
            self._since.setdefault(key, now)
            takes_gpu = self._estimates.demands.get(key, ANY).gpus > 0
            self._devices[key] = devices.get(node, "cpu") if takes_gpu else "cpu"
        for key in self._since.keys() - running.keys():
            del self._since[key]  # it failed, and will be tried again
        if now >= self._due and nodes and self._open:
            self._foretell(nodes)
            took = self._clock() - now
            self._due = now + took + max(EVERY, took / SHARE)

    def left(self) -> float | None:
        """Seconds that the rest will take; None while too little has been measured to tell."""
        if self._end is None:
            return None
        return max(0.0, self._end - self._clock())

    def counts(self) -> str:
        """`12/60`."""
        total = sum(self.total.values())
        return f"{sum(self.ended.values()):>{len(str(total))}}/{total}"

    def eta(self) -> str:
        """`about 3 min left`; nothing where it is not known or nothing is left."""
        left = self.left()
        if left is None or sum(self.ended.values()) == sum(self.total.values()):
            return ""
        return f"about {duration(left)} left"

    def _foretell(self, nodes: Sequence[Node]) -> None:
        now = self._clock()
        with ThreadPoolExecutor(READERS) as readers:
            running = list(readers.map(self._running, [key for key in self._since if key in self._open]))
        calibration = calibrated(self._estimates, self._done, running, now - self._began)
        if not is_trusted(self._estimates, calibration, self._open.values()):
            self._end = None
            return
        estimates = self._estimates.calibrated(calibration)
        self._end = now + seconds_left(estimates, dict(self._open), running, nodes, self._limit)

    def _running(self, key: str) -> Running:
        step, now = self._open[key], self._clock()
        seconds, left = now - self._since[key], self._tells(step, now)
        return Running(step=step, device=self._devices[key], seconds=seconds, left=left)

    def _tells(self, step: Step, now: float) -> float | None:
        """Seconds that a training has left by its own curve; None where it says nothing yet."""
        if step.kind != "train":
            return None
        line = last_line(self._store.peek(step.kind, step.key, "curve.jsonl"))
        if line is None:
            return None
        mark = self._marks.get(step.key)
        if mark is None or mark.step != line["step"]:
            mark = Mark(step=line["step"], steps=line["steps"], seconds=line["seconds"], seen=now)
            self._marks[step.key] = mark
        if mark.step < SEEN * mark.steps:
            return None
        each = mark.seconds / mark.step
        return max(0.0, each * (mark.steps - mark.step) - (now - mark.seen))
