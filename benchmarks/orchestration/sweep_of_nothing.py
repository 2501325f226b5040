"""One sweep of steps that do nothing: `python -m benchmarks.orchestration.sweep_of_nothing FOLDER STEPS`."""

import json
import os
import resource
import sys
import time
from pathlib import Path

from benchmarks.orchestration.nothing import JOBS, write_grid


def main(folder: Path, steps: int) -> None:
    """Prints what it took as a line of JSON."""
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])  # for the workers
    grid = write_grid(folder, steps)
    from orchestrator import sweep
    from orchestrator.cluster import connection

    started = time.perf_counter()
    connect = connection._connect

    def timed(*arguments: object) -> None:
        nonlocal started
        began = time.perf_counter()
        connect(*arguments)  # type: ignore[arg-type]
        started += time.perf_counter() - began

    connection._connect = timed  # type: ignore[assignment]
    cpu = time.process_time()
    code = sweep.carry_out(sweep.Request(grid=grid, results=folder / "results"), JOBS)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    done = len(list((folder / "results" / "steps").glob("*/*")))
    assert code == 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"steps": done, "seconds": seconds, "cpu_seconds": cpu_seconds, "peak_bytes": peak}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
