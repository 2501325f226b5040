"""What a person sees while a sweep runs: a live view on a terminal, plain lines elsewhere."""

import math
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.keys import RECIPES
from orchestrator.plan import Plan, plain_table
from orchestrator.running import failures
from orchestrator.running.fleet import Fleet
from orchestrator.running.jobs import Outcome
from orchestrator.running.scheduler import Scheduler, Task
from orchestrator.steps import Step
from orchestrator.watching.console import describe, duration, row_table
from orchestrator.watching.progress import Progress
from orchestrator.watching.status import progress

EVERY_LINE = 300
"""Steps up to which each one that ends gets a plain line; above, a line a second."""
QUIET_SECONDS = 60.0
"""After so long without a line there is one that says how it stands."""
NOTE_SECONDS = 5.0
"""Between two looks at the curve of a training that is shown."""
RUNNING_SHOWN = 12
NODES_SHOWN = 16
LAW_EVERY = 60.0
"""Seconds between looks for a newer law, at least."""


class PlainView:
    """One line a finished step at most."""

    def __init__(self, plan: Plan, progress: Progress, console: Console, law: Callable[[], str]) -> None:
        self.plan, self.console, self.progress, self.law = plan, console, progress, law
        self._last_line = time.monotonic()

    def __enter__(self) -> "PlainView":
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave the console as it is."""

    def started(self, task: Task) -> None:
        """An attempt has begun."""

    def retried(self, task: Task, outcome: Outcome) -> None:
        """An attempt has failed, and there will be another."""
        what = describe(self.plan.graph, task.step)
        delay = failures.delay(outcome.kind, task.attempt)
        how = f"trying again in {duration(delay)}" if delay else "trying again"
        if outcome.kind == failures.OUT_OF_MEMORY:
            how += " with batches half as large"
        self.line(f"{what}: {outcome.kind}: {outcome.error}; {how} after attempt {task.attempt}")

    def ended(self, step: Step, outcome: Outcome) -> None:
        """A step has ended for good."""
        self.progress.end(step, outcome)
        what = describe(self.plan.graph, step)
        if outcome.kind == failures.NEEDED_STEP:
            return  # the step that it needed has been told of
        if outcome.status == "failed":
            self.line(f"[{self.progress.counts()}] {what}: failed: {outcome.kind}: {outcome.error}")
        elif sum(self.progress.total.values()) <= EVERY_LINE or time.monotonic() - self._last_line > 1:
            eta = self.progress.eta()
            took = f" in {duration(outcome.seconds)}" if outcome.status == "done" else " by another driver"
            self.line(f"[{self.progress.counts()}] {what}: done{took}" + (f"; {eta}" if eta else ""))

    def row(self, row: Mapping[str, Any]) -> None:
        """A trial's row has been written."""

    def tick(self, fleet: Fleet, scheduler: Scheduler) -> None:
        """Called a few times a second."""
        first = {key: fleet.workers.get(task.seat.workers[0]) for key, task in scheduler.running.items()}
        running = {key: worker.node for key, worker in first.items() if worker}
        self.progress.look(list(fleet.nodes.values()), running)
        self._say_how_it_stands(fleet, scheduler)

    def _say_how_it_stands(self, fleet: Fleet, scheduler: Scheduler) -> None:
        """A line where there was none for a while."""
        if time.monotonic() - self._last_line < QUIET_SECONDS or not scheduler.running:
            return
        running = len(scheduler.running)
        waiting = sum(self.progress.total.values()) - sum(self.progress.ended.values()) - running
        busy = sum(share(fleet, node) for node in fleet.nodes) / max(1, len(fleet.nodes))
        said = [f"{running} running", f"{waiting} waiting", f"machines {busy:.0%} busy"]
        said += [part for part in (self.progress.eta(), self.law()) if part]
        self.line(f"[{self.progress.counts()}] {'; '.join(said)}")

    def line(self, text: str) -> None:
        """Print one line."""
        self._last_line = time.monotonic()
        self.console.print(text, soft_wrap=True)


class Utilisation:
    """Which share of every machine has worked, now and since the beginning."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._busy: dict[str, float] = defaultdict(float)
        self._there: dict[str, float] = defaultdict(float)

    def look(self, fleet: Fleet) -> None:
        """Count the time since the last look as what is seen now."""
        now = time.monotonic()
        for node in fleet.nodes:
            self._there[node] += now - self._last
            self._busy[node] += (now - self._last) * share(fleet, node)
        self._last = now

    def so_far(self, node: str) -> float:
        """From 0 to 1."""
        return self._busy[node] / self._there[node] if self._there[node] else 0.0


def share(fleet: Fleet, node: str) -> float:
    """Of a machine's GPUs, or of its cores where it has none, that work now."""
    here = [fleet.workers[worker] for worker in fleet.busy if fleet.workers[worker].node == node]
    machine = fleet.nodes[node]
    if machine.gpus:
        return sum(worker.gpus for worker in here) / machine.gpus
    return min(1.0, sum(worker.cpus for worker in here) / machine.cpus) if machine.cpus else 0.0


class NewestLaw:
    """The newest law of the rows so far, looked for now and then beside the sweep, so that nothing waits for it."""

    def __init__(self, law: Callable[[], str]) -> None:
        self._law, self._newest = law, ""
        self._next = time.monotonic() + LAW_EVERY
        self._thread: threading.Thread | None = None

    def __call__(self) -> str:
        """What was found last; nothing before there are enough points."""
        busy = self._thread is not None and self._thread.is_alive()
        if not busy and time.monotonic() > self._next:
            self._thread = threading.Thread(target=self._look, name="newest law", daemon=True)
            self._thread.start()
        return self._newest

    def _look(self) -> None:
        began = time.monotonic()
        with suppress(Exception):  # a law is a comfort here: fit_laws.py says what is wrong with the rows
            self._newest = self._law()
        spent = time.monotonic() - began
        self._next = time.monotonic() + max(LAW_EVERY, 20 * spent)


class LiveView(PlainView):
    """Bars by step kind, machines, what runs now, the newest trials and law; redrawn in place."""

    def __init__(self, plan: Plan, progress: Progress, console: Console, law: Callable[[], str]) -> None:
        super().__init__(plan, progress, console, law)
        self._since: dict[str, float] = {}
        self._notes: dict[str, tuple[float, str]] = {}
        self._rows: deque[Mapping[str, Any]] = deque(maxlen=8)
        self._used = Utilisation()
        self._live = Live(console=console, auto_refresh=False)
        self._drawn = 0.0
        self._picture: RenderableType = Text()

    def __enter__(self) -> "LiveView":
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave the last picture on the screen."""
        self._live.update(self._picture, refresh=True)
        self._live.stop()

    def started(self, task: Task) -> None:
        """An attempt has begun."""
        self._since[task.step.key] = time.monotonic()

    def ended(self, step: Step, outcome: Outcome) -> None:
        """A step has ended for good."""
        if outcome.status == "failed":
            super().ended(step, outcome)
        else:
            self.progress.end(step, outcome)

    def row(self, row: Mapping[str, Any]) -> None:
        """A trial's row has been written."""
        self._rows.append(row)

    def tick(self, fleet: Fleet, scheduler: Scheduler) -> None:
        """Redraw, at most four times a second."""
        super().tick(fleet, scheduler)
        if time.monotonic() - self._drawn > 0.25:
            self._drawn = time.monotonic()
            self._used.look(fleet)
            self._picture = self._draw(fleet, scheduler)
            self._live.update(self._picture, refresh=True)

    def _draw(self, fleet: Fleet, scheduler: Scheduler) -> RenderableType:
        parts: list[RenderableType] = [self._bars(scheduler), Text(), self._machines(fleet)]
        if scheduler.running:
            parts += [Text(), self._running(fleet, scheduler)]
        if self._rows:
            parts += [Text(), row_table(list(self._rows))]
        if law := self.law():
            parts += [Text(), Text(f"newest law: {law}")]
        return Group(*parts)

    def _bars(self, scheduler: Scheduler) -> Table:
        table = Table(box=None, pad_edge=False, show_header=False)
        running = Counter(task.step.kind for task in scheduler.running.values())
        for kind in RECIPES:
            total, ended = self.progress.total[kind], self.progress.ended[kind]
            if total:
                state = [f"{running[kind]} running"] if running[kind] else []
                state += [f"{waiting} waiting"] if (waiting := total - ended - running[kind]) else []
                bar = ProgressBar(total=total, completed=ended, width=40)
                table.add_row(kind, bar, f"{ended}/{total}", ", ".join(state))
        failed = Counter(outcome.kind for outcome in scheduler.failed.values())
        said = ", ".join(f"{count} {kind}" for kind, count in failed.most_common())
        table.add_row("", "", self.progress.counts(), self.progress.eta())
        if said:
            table.add_row("failed", "", "", said)
        return table

    def _machines(self, fleet: Fleet) -> Table:
        table = plain_table("machine", "workers", "busy now", "so far")
        for node in list(fleet.nodes.values())[:NODES_SHOWN]:
            busy = sum(fleet.workers[worker].node == node.id for worker in fleet.busy)
            gpus = f" ({node.gpus} {node.device})" if node.gpus else ""
            now, so_far = share(fleet, node.id), self._used.so_far(node.id)
            table.add_row(f"{node.name}{gpus}", str(busy), f"{now:.0%}", f"{so_far:.0%}")
        if len(fleet.nodes) > NODES_SHOWN:
            table.add_row(f"and {len(fleet.nodes) - NODES_SHOWN} more", "", "", "")
        return table

    def _running(self, fleet: Fleet, scheduler: Scheduler) -> Table:
        table = Table(box=None, pad_edge=False, show_header=False)
        tasks = list(scheduler.running.values())
        for task in tasks[:RUNNING_SHOWN]:
            step = task.step
            note = self._note(step.key) if step.kind == "train" else ""
            first = fleet.workers.get(task.seat.workers[0])
            where = fleet.nodes[first.node].name if first else ""
            since = duration(time.monotonic() - self._since.get(step.key, time.monotonic()))
            table.add_row(describe(self.plan.graph, step), where, since, note)
        if len(tasks) > RUNNING_SHOWN:
            table.add_row(f"and {len(tasks) - RUNNING_SHOWN} more", "", "", "")
        return table

    def _note(self, train: str) -> str:
        """How far a training is, looked up now and then: an object store may take its time."""
        when, note = self._notes.get(train, (-math.inf, ""))
        if time.monotonic() - when > NOTE_SECONDS:
            with suppress(OSError):
                note = progress(self.plan.store, train)
            self._notes[train] = (time.monotonic(), note)
        return note

    def _say_how_it_stands(self, fleet: Fleet, scheduler: Scheduler) -> None:
        """The picture does."""


def make_view(plan: Plan, progress: Progress, console: Console, law: Callable[[], str]) -> PlainView:
    """A live view on a terminal that can show one, plain lines elsewhere."""
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveView(plan, progress, console, law)
    return PlainView(plan, progress, console, law)
