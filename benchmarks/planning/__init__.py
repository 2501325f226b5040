"""Planning: how fast the band of a far prediction narrows when trials are run in the order that laws ask for."""

from collections.abc import Iterator
from importlib import import_module

from benchmarks.rows import Options, Row, Skipped

PARTS = {"next": "benchmarks.planning.next"}
"""Modules with `measure(Options)`; imported when asked for."""


def measure(options: Options) -> Iterator[Row | Skipped]:
    """All parts, or those asked for."""
    for part, module in PARTS.items():
        if not options.parts or part in options.parts:
            yield from import_module(module).measure(options)
