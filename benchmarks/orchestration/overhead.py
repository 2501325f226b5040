"""Sweeps of steps that do nothing, on a real Ray with two workers, in a process of their own.

Timed is the driver's whole `carry_out`, less starting Ray: leases, handing out, outcomes, rows, views. A step's own
process is busy at the same time, so the driver's processor time is given too. The baseline is recorded: a no-op trial
of Ray Tune took 0.8 to 3.8 s on two other cores.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.rows import Options, Row, Skipped, at_most, cost_against_recorded

SIZES = (100, 1_000, 10_000)
QUICK_SIZES = (25,)
TUNE_MS = 800.0


@dataclass(frozen=True, kw_only=True)
class Swept:
    """What a sweep took."""

    steps: int
    seconds: float
    cpu_seconds: float
    """Of the driver's process."""
    peak_bytes: int
    """Of the driver's process."""

    def ms(self, seconds: float) -> float:
        """A step."""
        return 1000 * seconds / self.steps


def measure(options: Options) -> Iterator[Row | Skipped]:
    """Rows for each number of steps."""
    swept = [_sweep(size) for size in (QUICK_SIZES if options.quick else SIZES)]
    for one in swept:
        name = f"a step that does nothing, of {one.steps:,}"
        yield at_most(f"{name}: wall time", one.ms(one.seconds), "ms", 20)
        yield Row(name=f"{name}: the driver's processor time", value=one.ms(one.cpu_seconds), unit="ms")
        yield at_most(f"the driver's memory, {one.steps:,} steps", one.peak_bytes / 2**30, "GiB", 1)
    last = swept[-1]
    yield cost_against_recorded(
        f"a step that does nothing, of {last.steps:,}", last.ms(last.seconds), "ms", "Ray Tune", "2 cores", TUNE_MS
    )


def _sweep(steps: int) -> Swept:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.orchestration.sweep_of_nothing", folder, str(steps)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the sweep failed: {done.stdout[-500:]} {done.stderr[-500:]}")
        return Swept(**json.loads(done.stdout.splitlines()[-1]))
