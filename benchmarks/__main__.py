"""`python -m benchmarks`: measure, and print a table or JSON.

Everything but the index part runs in one process with one thread. What a row times, and what it leaves out, is said at
the top of the module that measures it. Baselines are of three kinds:

- Run here, in turn with Gridlaw, both figures a median: all rows "against" something, but for the next two kinds.
- Recorded, not run here: rows "against SEAL's recorded figure", in the parts step and search. Their baseline, and so
  their ratio and whether they met the goal, is a constant that was measured elsewhere, on 2 CPU cores.
- None: most rows of the index part have a goal of their own (bytes a token, GB, tokens a second) or none, and those
  that are extrapolated are not measured at all. The build has a baseline in its own process: sorting the bytes alone.

The index part starts a process for each build: three of 10 M tokens, whose median is reported, and one of 50 M, whose
figures are of that one build.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path

from benchmarks.rows import Options, Row, Skipped, as_json, machine, show

AREAS = {
    "decoding": "benchmarks.decoding",
    "orchestration": "benchmarks.orchestration",
    "laws": "benchmarks.laws",
    "planning": "benchmarks.planning",
}
"""Modules with `PARTS` and `measure(Options)`, which yields rows and what it skipped; imported when asked for."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    line.add_argument("areas", metavar="AREA", nargs="*", help=f"what to measure: {', '.join(AREAS)} (default: all)")
    line.add_argument("--part", dest="parts", action="append", default=[], help="only this part; may be repeated")
    line.add_argument("--quick", action="store_true", help="small sizes, to see that it runs; figures mean nothing")
    line.add_argument("--squad", metavar="FILE", type=Path, help="jsonl with `text`: measure on natural text too")
    line.add_argument("--figures", metavar="DIR", type=Path, help="draw what is drawn (timelines) into this folder")
    line.add_argument("--json", action="store_true", help="print a list of rows as JSON")
    return line


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0, or 2 where the command line is wrong."""
    line = parser()
    options = line.parse_args(arguments)
    areas = options.areas or list(AREAS)
    if unknown := [each for each in areas if each not in AREAS]:
        line.error(f"no area '{unknown[0]}'; there is: {', '.join(AREAS)}")
    if options.squad is not None and not options.squad.exists():
        line.error(f"--squad: there is no file {options.squad}")
    modules = [import_module(AREAS[area]) for area in areas]
    parts = [part for module in modules for part in module.PARTS]
    if unknown := [each for each in options.parts if each not in parts]:
        line.error(f"no part '{unknown[0]}'; there are: {', '.join(parts)}")
    import torch

    torch.set_num_threads(1)
    chosen = Options(quick=options.quick, parts=tuple(options.parts), squad=options.squad, figures=options.figures)
    found = [each for module in modules for each in _reported(module.measure(chosen))]
    rows = [each for each in found if isinstance(each, Row)]
    skipped = [each for each in found if isinstance(each, Skipped)]
    if options.json:
        print(as_json(rows))
        for each in skipped:
            print(f"skipped: {each.name}: {each.why}", file=sys.stderr)
    else:
        show(rows, skipped, machine(torch.get_num_threads()))
    return 0


def _reported(found: Iterable[Row | Skipped]) -> Iterator[Row | Skipped]:
    """The same, each named on a terminal as it comes: a full run takes minutes."""
    for each in found:
        if sys.stderr.isatty():
            print(each.name, file=sys.stderr)
        yield each


if __name__ == "__main__":
    sys.exit(main())
