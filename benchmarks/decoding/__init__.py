"""Constrained decoding: steps, searches, retrieval, CGL, building an index, scoring evidence."""

from collections.abc import Iterator
from importlib import import_module

from benchmarks.rows import Options, Row, Skipped

PARTS = {
    "step": "benchmarks.decoding.step",
    "search": "benchmarks.decoding.search",
    "codes": "benchmarks.decoding.codes",
    "retrieval": "benchmarks.decoding.retrieval",
    "cgl": "benchmarks.decoding.cgl",
    "index": "benchmarks.decoding.index",
    "evidence": "benchmarks.decoding.evidence",
}
"""Modules with `measure(Options)`; imported when asked for."""


def measure(options: Options) -> Iterator[Row | Skipped]:
    """All parts, or those asked for."""
    for part, module in PARTS.items():
        if not options.parts or part in options.parts:
            yield from import_module(module).measure(options)
