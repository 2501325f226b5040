"""How long it takes to see how far a sweep of 10,000 finished steps is: the scan alone, and `--status` as typed."""

import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

from benchmarks.orchestration.nothing import write_grid
from benchmarks.rows import Options, Row, Skipped, at_most
from orchestrator.grid import load
from orchestrator.plan import finished
from orchestrator.steps import Graph, expand
from orchestrator.sweep import Request, carry_out
from results.opening import open_store

STEPS = 10_000
QUICK_STEPS = 100
GOAL_SECONDS = 2.0


def measure(options: Options) -> Iterator[Row | Skipped]:
    """Three rows."""
    with tempfile.TemporaryDirectory() as folder:
        grid = write_grid(Path(folder), QUICK_STEPS if options.quick else STEPS)
        results = Path(folder) / "results"
        graph = _finish(grid, results)
        name = f"{len(graph.steps):,} finished steps"
        began = time.perf_counter()
        assert len(finished(open_store(results), graph)) == len(graph.steps)
        yield at_most(f"{name}: scan", time.perf_counter() - began, "s", GOAL_SECONDS)
        request = Request(grid=grid, results=results, mode="status")
        began = time.perf_counter()
        with redirect_stdout(io.StringIO()):
            carry_out(request)
        yield at_most(f"{name}: --status", time.perf_counter() - began, "s", GOAL_SECONDS)
        command = [sys.executable, "run_grid.py", str(grid), "--results", str(results), "--status"]
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).resolve().parents[2])
        took = time.perf_counter() - began
        yield Row(name=f"{name}: --status as typed, Python's start included", value=took, unit="s")


def _finish(grid: Path, results: Path) -> Graph:
    """Make folders as finished steps have them."""
    graph = expand(load(grid).grid)
    for key, step in graph.steps.items():
        folder = results / "steps" / step.kind / key
        folder.mkdir(parents=True)
        (folder / "attempts.json").write_text("[]")
    return graph
