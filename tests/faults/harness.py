"""A real sweep, small and slow enough to be disturbed, in a process of its own; and what must hold afterwards."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

PROJECT = Path(__file__).resolve().parents[2]
GRID = """
name: faults
corpus: {source: jsonl, path: corpus.jsonl, dev: 10, test: 30}
tokenizer: {vocabulary: 400}
identifiers: {kind: ngram, length: 5, per_query: 4}
models:
  - {family: t5, size: 7k}
  - {family: llama, size: 6k}
data: {pairs: [400]}
inference: {beams: [4, 64]}
training: {epochs: 12, batch: 16, checkpoint_every: 20, log_every: 5}
evaluation: {negatives: 20, bootstrap: 100}
resources: {workers: 2, cpus_per_worker: 0.5}
tracking: {wandb: "off"}
"""
UNLIKE = frozenset(
    {
        *("latency_ms", "queries_per_s", "train_seconds", "eval_seconds", "peak_memory_bytes"),
        *("attempts", "started", "finished", "versions", "git_commit"),
    }
)
"""Columns that no two runs have in common."""
CUT = frozenset({"micro_batch", "accumulation"})
"""Columns that say how a step was cut to fit."""
SECONDS = 240.0
"""A sweep that takes longer is stuck."""


def write_corpus(path: Path) -> None:
    """80 documents about made-up names, four queries each."""
    rng = np.random.default_rng(0)
    names = ["".join(rng.choice(list("bdfgklmn")) + rng.choice(list("aeiou")) for _ in range(3)) for _ in range(80)]
    verbs, things = ("carries", "guards", "paints", "follows"), ("river", "violin", "planet", "orchid", "castle")
    with path.open("w") as file:
        for number, name in enumerate(names):
            text = " ".join(f"{name} {rng.choice(verbs)} the {rng.choice(things)} of {name}." for _ in range(6))
            asked = [
                f"{word} {rng.choice(verbs)} {name} {rng.choice(things)}" for word in ("what", "who", "where", "how")
            ]
            file.write(json.dumps({"id": f"d{number}", "title": name, "text": text, "queries": asked}) + "\n")


@dataclass
class Sweep:
    """A folder with a grid, its results, and the drivers started on it."""

    folder: Path
    results: str = "results"
    overrides: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    drivers: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_corpus(self.folder / "corpus.jsonl")
        (self.folder / "faults.yaml").write_text(GRID)

    def start(self, *more: str, **environment: str) -> subprocess.Popen[str]:
        """A driver; its output goes to `driver<n>.log`."""
        log = (self.folder / f"driver{len(self.drivers)}.log").open("w")
        overrides = [part for override in self.overrides for part in ("--set", override)]
        command = [sys.executable, str(Path(__file__).with_name("driver.py")), "faults.yaml", "--results", self.results]
        paths = os.pathsep.join([str(PROJECT), str(Path(__file__).parent)])
        driver = subprocess.Popen(
            [*command, *overrides, *more],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": paths} | self.environment | environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.drivers.append(driver)
        return driver

    def run(self, *more: str, **environment: str) -> int:
        """A driver to its end; its exit code."""
        return self.end(self.start(*more, **environment))

    def end(self, driver: subprocess.Popen[str]) -> int:
        """Wait for a driver; its exit code."""
        try:
            return driver.wait(SECONDS)
        except subprocess.TimeoutExpired:
            driver.kill()
            raise AssertionError(f"the sweep is stuck:\n{self.said()}") from None

    def said(self, number: int = -1) -> str:
        """What a driver has printed."""
        return (self.folder / f"driver{number % len(self.drivers)}.log").read_text()

    def close(self) -> None:
        """End what is left."""
        for driver in self.drivers:
            if driver.poll() is None:
                driver.kill()
                driver.wait()

    # ---------------------------------------------------------------- looking at the results folder

    @property
    def steps(self) -> Path:
        return self.folder / self.results / "steps"

    def finished(self) -> dict[str, int]:
        """`<kind>/<key>` of the finished steps and the number of the file that says so."""
        there = [path for path in self.steps.glob("*/*") if path.is_dir() and "." not in path.name]
        return {f"{path.parent.name}/{path.name}": (path / "attempts.json").stat().st_ino for path in there}

    def partial(self, kind: str) -> list[Path]:
        """Folders of steps that are worked on, or were."""
        return sorted(self.steps.glob(f"{kind}/*.partial"))

    def attempts(self, kind: str) -> list[list[dict[str, Any]]]:
        """Of every step of a kind, finished or not."""
        found = self.steps.glob(f"{kind}/*/attempts.json")
        return [attempts for path in found if (attempts := _read(path))]

    def rows(self) -> list[dict[str, Any]]:
        """The rows of the grid, by trial."""
        parts = sorted((self.folder / self.results / "faults" / "trials").glob("*.parquet"))
        return [row for part in parts for row in pq.read_table(part).to_pylist()]

    def queries(self) -> dict[str, list[dict[str, Any]]]:
        """The rows of every trial's queries."""
        parts = sorted((self.folder / self.results / "faults" / "queries").glob("*.parquet"))
        return {part.stem: [_alike(row) for row in pq.read_table(part).to_pylist()] for part in parts}

    def curves(self) -> dict[str, list[dict[str, Any]]]:
        """The logged steps of every training."""
        parts = sorted((self.folder / self.results / "faults" / "curves").glob("*.parquet"))
        return {part.stem: [_without(row, {"seconds"}) for row in pq.read_table(part).to_pylist()] for part in parts}

    # ---------------------------------------------------------------- disturbing

    def wait_for(self, what: str, seen: Callable[[], Any], seconds: float = SECONDS) -> Any:
        """What `seen` returns as soon as that is something."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if found := seen():
                return found
            if self.drivers and self.drivers[-1].poll() is not None:
                raise AssertionError(f"the sweep ended before {what}:\n{self.said()}")
            time.sleep(0.01)
        raise AssertionError(f"never saw {what}:\n{self.said()}")

    def training(self, checkpoint: bool = True) -> Path:
        """The folder of a training that runs and has a checkpoint."""
        return self.wait_for("a checkpoint", lambda: next(self._trainings(checkpoint), None))

    def _trainings(self, checkpoint: bool) -> Iterator[Path]:
        for folder in self.partial("train"):
            done = any(folder.glob("step-*/whole.json")) or not checkpoint
            if done and _pid(folder) and len(_read(folder / "curve.jsonl", lines=True)) > 6:
                yield folder

    def worker(self, kind: str) -> int:
        """The process that is at a step of the kind now."""
        return self.wait_for(f"a {kind}", lambda: next((pid for at in self.partial(kind) if (pid := _pid(at))), None))


def _read(path: Path, lines: bool = False) -> Any:
    try:
        text = path.read_text()
        return text.splitlines() if lines else json.loads(text)
    except (OSError, ValueError):
        return []


def _pid(folder: Path) -> int | None:
    """Of the process that works in a step's folder."""
    attempts = _read(folder / "attempts.json")
    return attempts[-1]["pid"] if attempts and attempts[-1]["status"] == "running" else None


def _without(row: dict[str, Any], names: frozenset[str] | set[str]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


def _alike(row: dict[str, Any]) -> dict[str, Any]:
    return _without(row, UNLIKE)


def kill(pid: int) -> None:
    """SIGKILL."""
    os.kill(pid, signal.SIGKILL)


def check(sweep: Sweep, undisturbed: Sweep, before: dict[str, int] | None = None, exactly: bool = True) -> None:
    """Every row is there once and says what it says undisturbed; what was finished `before` is untouched.

    Args:
        exactly: to the bit; else to 1e-4, for runs whose batches were cut otherwise.
    """
    rows, wanted = sweep.rows(), undisturbed.rows()
    assert [row["trial"] for row in rows] == [row["trial"] for row in wanted], sweep.said()
    assert len(rows) == 4
    for row, other in zip(rows, wanted, strict=True):
        _check_row(_alike(row), _alike(other), exactly)
    if exactly:
        assert sweep.queries() == undisturbed.queries()
        assert sweep.curves() == undisturbed.curves()
    finished = sweep.finished()
    assert finished.keys() == undisturbed.finished().keys()
    for step, number in (before or {}).items():
        assert finished[step] == number, f"{step} was done again"
    assert not sweep.partial("*")
    for kind in ("train", "score", "search"):
        for attempts in sweep.attempts(kind):
            assert [attempt["status"] for attempt in attempts].count("done") == 1


def _check_row(row: dict[str, Any], other: dict[str, Any], exactly: bool) -> None:
    if exactly:
        assert row == other
        return
    for name in row.keys() - CUT:
        if isinstance(row[name], float) and name.partition("_")[0] in ("cgl", "nll"):
            assert np.isclose(row[name], other[name], rtol=1e-3), name
        elif not isinstance(row[name], float):
            assert row[name] == other[name], name


@contextmanager
def sweep_in(folder: Path, **settings: Any) -> Iterator[Sweep]:
    """A sweep whose drivers are ended with the block."""
    sweep = Sweep(folder, **settings)
    try:
        yield sweep
    finally:
        sweep.close()
