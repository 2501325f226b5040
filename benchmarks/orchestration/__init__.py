"""Orchestration: what a step that does nothing costs, how long a look at the results takes, how full GPUs are."""

from collections.abc import Iterator
from importlib import import_module

from benchmarks.rows import Options, Row, Skipped

PARTS = {
    "overhead": "benchmarks.orchestration.overhead",
    "scan": "benchmarks.orchestration.scan",
    "simulation": "benchmarks.orchestration.simulation",
}
"""Modules with `measure(Options)`; imported when asked for."""


def measure(options: Options) -> Iterator[Row | Skipped]:
    """All parts, or those asked for."""
    for part, module in PARTS.items():
        if not options.parts or part in options.parts:
            yield from import_module(module).measure(options)
