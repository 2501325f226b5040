"""Two sweeps as they ran on two idle cores of an AMD EPYC: when every step began and how long it took.

`quickstart.csv` is of `grids/quickstart.yaml`, `squad.csv` of `grids/squad.yaml`.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.forecasting.estimates import make_estimates
from orchestrator.grid import Grid, load
from orchestrator.nodes import Node
from orchestrator.placing.lengths import Lengths
from orchestrator.running.jobs import Outcome
from orchestrator.steps import Graph, Step, expand
from orchestrator.watching.console import describe
from orchestrator.watching.progress import Progress
from workers.settings import EmbeddingsJob, IdentifiersJob

HERE = Path(__file__).parent
MACHINE = Node(id="here", name="here", cpus=2, memory=8 * 2**30)
LENGTHS = {
    "quickstart": Lengths(
        documents=2000, train_pairs=6604, held_out={"test": 300}, query_bytes=92.1, document_bytes=589.3
    ),
    "squad": Lengths(documents=2000, train_pairs=8883, held_out={"test": 300}, query_bytes=64.4, document_bytes=746.9),
}
CURVE_STEPS = 1000


@dataclass(frozen=True, kw_only=True)
class Ran:
    """One step of a recorded sweep; seconds since its beginning."""

    step: Step
    started: float
    seconds: float

    @property
    def ended(self) -> float:
        return self.started + self.seconds


def _name(graph: Graph, step: Step) -> str:
    if isinstance(step.settings, EmbeddingsJob):
        return f"embeddings r{step.settings.rank}"
    if isinstance(step.settings, IdentifiersJob):
        return f"identifiers {step.settings.identifiers.kind}"
    return describe(graph, step) if step.kind in ("train", "score", "search") else step.kind


def recorded(name: str, folder: Path, slower: float) -> tuple[Graph, list[Ran]]:
    """The grid's graph and what was recorded of its steps, in the order in which they began.

    `folder`: for a corpus in the place of the one that was read, which nothing here depends on.
    """
    (folder / "corpus.jsonl").write_text('{"text": "a", "queries": ["b"]}\n')
    source = f"corpus={{source: jsonl, path: {folder / 'corpus.jsonl'}}}"
    grid: Grid = load(HERE.parent / "grids" / f"{name}.yaml", [source]).grid
    graph = expand(grid)
    with (HERE / "recorded" / f"{name}.csv").open() as file:
        rows = {row["step"]: row for row in csv.DictReader(file)}
    ran = []
    for step in graph.steps.values():
        row = rows.pop(_name(graph, step))
        started, seconds = slower * float(row["started"]), slower * float(row["seconds"])
        ran.append(Ran(step=step, started=started, seconds=seconds))
    assert not rows
    return graph, sorted(ran, key=lambda one: one.started)


class Replay:
    """A recorded sweep run again on a virtual clock, watched as a real one is. It is also the store that is watched:
    a training's curve grows evenly."""

    def __init__(self, name: str, folder: Path, slower: float = 1.0) -> None:
        """`slower`: how often as long everything takes."""
        self.graph, self.ran = recorded(name, folder, slower)
        self.now = 0.0
        self.total = max(one.ended for one in self.ran)
        self.work = sum(one.seconds for one in self.ran)
        self._of = {one.step.key: one for one in self.ran}
        estimates = make_estimates(self.graph, LENGTHS[name], {}, [MACHINE])
        self.progress = Progress([one.step for one in self.ran], estimates, self, clock=lambda: self.now)  # type: ignore[arg-type]

    def peek(self, kind: str, key: str, name: str) -> bytes | None:
        """As a store's."""
        assert (kind, name) == ("train", "curve.jsonl")
        one = self._of[key]
        step = int(CURVE_STEPS * (self.now - one.started) / one.seconds)
        line = {"step": step, "steps": CURVE_STEPS, "seconds": one.seconds * step / CURVE_STEPS}
        return json.dumps(line).encode() + b"\n" if step else None

    def moments(self, every: float) -> Iterator[tuple[float, float | None, float]]:
        """(share of the work done, seconds left as foretold, seconds that were left), every so many seconds."""
        waiting = sorted(self.ran, key=lambda one: one.ended)
        while self.now + every < self.total:
            self.now += every
            while waiting and waiting[0].ended <= self.now:
                one = waiting.pop(0)
                self.progress.end(one.step, Outcome(key=one.step.key, status="done", seconds=one.seconds))
            running = {one.step.key: MACHINE.id for one in waiting if one.started <= self.now}
            self.progress.look([MACHINE], running)
            done = sum(min(one.seconds, max(0.0, self.now - one.started)) for one in self.ran)
            yield done / self.work, self.progress.left(), self.total - self.now
