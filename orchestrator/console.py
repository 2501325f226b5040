"""What a person sees while a sweep runs: a live view on a terminal, plain lines elsewhere, a table at the end."""

import sys
import time
from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator import failures, tuned
from orchestrator.jobs import Outcome
from orchestrator.plan import Plan, plain_table
from orchestrator.rows import budget_name
from orchestrator.status import progress
from orchestrator.steps import RECIPES, Graph, Step
from workers.settings import SearchJob, TrainJob

PIPE_WIDTH = 240
"""Columns where the output is no terminal: tables are not cut to a screen that is not there."""
EVERY_LINE = 300
"""Steps up to which each one that ends gets a plain line; above, a line a second."""


def make_console(error: bool = False) -> Console:
    """For standard output (or standard error): as wide as the terminal; plain text where it is piped."""
    file = sys.stderr if error else sys.stdout
    return Console(file=file, highlight=False, markup=False, width=None if file.isatty() else PIPE_WIDTH)


def describe(graph: Graph, step: Step) -> str:
    """`train ngram t5-29k d4000 s0`, `search ngram t5-29k d4000 s0 b16`, `tune ngram t5-29k`; kind and key else."""
    if step.kind == "tune" and (named := tuned.named(graph).get(step.key)):
        return f"tune {named.identifiers} {named.model}"
    training = graph.steps[dict(step.needs)["train"]] if "train" in dict(step.needs) else step
    if not isinstance(training.settings, TrainJob):
        return f"{step.kind} {step.key[:8]}"
    job = training.settings
    budget = f" {step.settings.budget.label}" if isinstance(step.settings, SearchJob) else ""
    label = next((trial.identifiers for trial in graph.trials if trial.train == training.key), "")
    return f"{step.kind} {label} {job.model.label} d{job.pairs} s{job.seed}{budget}"


def duration(seconds: float) -> str:
    """`8 s`, `3 min`, `2 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 9.5 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


class Progress:
    """Counts of steps by kind, and how long the rest will take, from what the steps so far took."""

    def __init__(self, new: Sequence[Step], costs: Mapping[str, float]) -> None:
        self._costs = costs
        self._kinds = {step.key: step.kind for step in new}
        self.total = Counter(self._kinds.values())
        self.ended: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self._left: dict[str, float] = defaultdict(float)
        self._spent: dict[str, float] = defaultdict(float)
        self._worked: dict[str, float] = defaultdict(float)
        self._began = time.monotonic()
        self._busy = 0.0
        for key, kind in self._kinds.items():
            self._left[kind] += costs[key]

    def end(self, step: Step, outcome: Outcome) -> None:
        """Take in a step that has ended."""
        self.ended[step.kind] += 1
        self.failed[step.kind] += outcome.status == "failed"
        self._left[step.kind] -= self._costs[step.key]
        if outcome.status == "done":
            self._spent[step.kind] += outcome.seconds
            self._worked[step.kind] += self._costs[step.key]
            self._busy += outcome.seconds

    def left(self) -> float | None:
        """Seconds that the rest will take; None before a step has ended of the kinds that most of the work is.

        The result is divided by how many steps have run side by side on average.
        """
        rates = {kind: self._spent[kind] / worked for kind, worked in self._worked.items() if worked}
        work = {kind: max(left, 0.0) for kind, left in self._left.items()}
        known = sum(work[kind] for kind in rates)
        if not rates or known < 0.5 * sum(work.values()):
            return None
        overall = sum(self._spent.values()) / sum(self._worked.values())
        seconds = sum(left * rates.get(kind, overall) for kind, left in work.items())
        side_by_side = max(1.0, self._busy / max(time.monotonic() - self._began, 1e-3))
        return seconds / side_by_side

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


class PlainView:
    """One line a finished step at most."""

    def __init__(self, plan: Plan, costs: Mapping[str, float], console: Console) -> None:
        self.plan, self.console = plan, console
        self.progress = Progress(plan.new, costs)
        self._last_line = 0.0

    def __enter__(self) -> "PlainView":
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave the console as it is."""

    def started(self, step: Step, workers: tuple[int, ...]) -> None:
        """A step has been handed to workers."""

    def retried(self, step: Step, outcome: Outcome, attempt: int) -> None:
        """A step has failed and is tried again."""
        what = describe(self.plan.graph, step)
        self.line(f"{what}: {outcome.kind}: {outcome.error}; trying again after attempt {attempt}")

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
            took = f" in {duration(outcome.seconds)}" if outcome.status == "done" else " by another process"
            self.line(f"[{self.progress.counts()}] {what}: done{took}" + (f"; {eta}" if eta else ""))

    def row(self, row: Mapping[str, Any]) -> None:
        """A trial's row has been written."""

    def tick(self) -> None:
        """Called a few times a second."""

    def line(self, text: str) -> None:
        """Print one line."""
        self._last_line = time.monotonic()
        self.console.print(text, soft_wrap=True)


class LiveView(PlainView):
    """Bars by step kind, what runs now, the newest trials; redrawn in place."""

    def __init__(self, plan: Plan, costs: Mapping[str, float], console: Console) -> None:
        super().__init__(plan, costs, console)
        self._running: dict[str, tuple[Step, float]] = {}
        self._rows: deque[Mapping[str, Any]] = deque(maxlen=8)
        self._live = Live(console=console, auto_refresh=False)
        self._drawn = 0.0

    def __enter__(self) -> "LiveView":
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave the last picture on the screen."""
        self._live.update(self._picture(), refresh=True)
        self._live.stop()

    def started(self, step: Step, workers: tuple[int, ...]) -> None:
        """A step has been handed to workers."""
        self._running[step.key] = (step, time.monotonic())

    def retried(self, step: Step, outcome: Outcome, attempt: int) -> None:
        """A step has failed and is tried again."""
        self._running.pop(step.key, None)
        super().retried(step, outcome, attempt)

    def ended(self, step: Step, outcome: Outcome) -> None:
        """A step has ended for good."""
        self._running.pop(step.key, None)
        if outcome.status == "failed":
            super().ended(step, outcome)
        else:
            self.progress.end(step, outcome)

    def row(self, row: Mapping[str, Any]) -> None:
        """A trial's row has been written."""
        self._rows.append(row)

    def tick(self) -> None:
        """Redraw, at most four times a second."""
        if time.monotonic() - self._drawn > 0.25:
            self._drawn = time.monotonic()
            self._live.update(self._picture(), refresh=True)

    def _picture(self) -> RenderableType:
        parts: list[RenderableType] = [self._bars()]
        if self._running:
            parts += [Text(), self._running_table()]
        if self._rows:
            parts += [Text(), row_table(list(self._rows))]
        return Group(*parts)

    def _bars(self) -> Table:
        table = Table(box=None, pad_edge=False, show_header=False)
        for kind in RECIPES:
            total, ended = self.progress.total[kind], self.progress.ended[kind]
            if total:
                failed = f"{self.progress.failed[kind]} failed" if self.progress.failed[kind] else ""
                table.add_row(kind, ProgressBar(total=total, completed=ended, width=40), f"{ended}/{total}", failed)
        table.add_row("", "", self.progress.counts(), self.progress.eta())
        return table

    def _running_table(self) -> Table:
        table = Table(box=None, pad_edge=False, show_header=False)
        shown = list(self._running.values())[:12]
        for step, since in shown:
            note = progress(self.plan.store, step.key) if step.kind == "train" else ""
            table.add_row(describe(self.plan.graph, step), duration(time.monotonic() - since), note)
        if len(self._running) > len(shown):
            table.add_row(f"and {len(self._running) - len(shown)} more", "", "")
        return table


def make_view(plan: Plan, costs: Mapping[str, float], console: Console) -> PlainView:
    """A live view on a terminal that can show one, plain lines elsewhere."""
    live = console.is_terminal and not console.is_dumb_terminal
    return (LiveView if live else PlainView)(plan, costs, console)


# ---------------------------------------------------------------- tables of rows


def row_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Trials with their main metrics."""
    table = plain_table("trial", "N", "D", "budget", "CGL", "chance", "Hit@1", "Hit@10", "state")
    for row in rows:
        n, pairs = row.get("n_params"), row.get("d_pairs")
        table.add_row(
            row["trial"],
            f"{n:,}" if n else "?",
            f"{pairs:,}" if pairs else "?",
            budget_name(row),
            *(_figure(row.get(name)) for name in ("cgl", "cgl_chance", "hit@1", "hit@10")),
            row["status"],
        )
    return table


def summary_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A line for each (corpus, identifiers, family): how many trials, and the best of them."""
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["corpus"], row["identifiers"], row["family"]].append(row)
    left = ("identifiers", "family")
    table = plain_table("corpus", *left, "trials", "failed", "lowest CGL", "chance", "best Hit@10", left=left)
    for group, members in groups.items():
        failed = sum(row["status"] == "failed" for row in members)
        scored = [row for row in members if row.get("cgl") is not None]
        best = min(scored, key=lambda row: float(row["cgl"]), default={})
        hits = [row["hit@10"] for row in members if row.get("hit@10") is not None]
        cgl, chance = _figure(best.get("cgl")), _figure(best.get("cgl_chance"))
        table.add_row(*group, str(len(members)), str(failed), cgl, chance, _figure(max(hits, default=None)))
    return table


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
