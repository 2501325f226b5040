"""One measured figure a row, how it is timed, and on what machine."""

import json
import os
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

PACKAGES = ("numpy", "numba", "torch", "transformers", "pydivsufsort")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure. A baseline is in the same unit, and from the same run but where name and unit say "recorded"."""

    name: str
    value: float
    unit: str
    baseline: float | None = None
    ratio: float | None = None
    """How many times better than the baseline."""
    goal: str | None = None
    met: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """What was not measured, and why."""

    name: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line says to every area."""

    quick: bool = False
    """Sizes that show that everything runs; the figures mean nothing."""
    parts: tuple[str, ...] = ()
    """Parts of an area to measure; all where empty."""
    squad: Path | None = None
    """A jsonl file with `text`, plain or compressed, to measure on natural text too."""
    figures: Path | None = None
    """A folder for pictures, where an area draws some."""


def cost(name: str, value: float, unit: str, baseline: float, goal: float | None = None) -> Row:
    """A figure that is better where it is smaller, against a baseline; `goal`: the ratio to reach."""
    return _against(name, value, unit, baseline, baseline / value, goal)


def rate(name: str, value: float, unit: str, baseline: float, goal: float | None = None) -> Row:
    """A figure that is better where it is larger, against a baseline; `goal`: the ratio to reach."""
    return _against(name, value, unit, baseline, value / baseline, goal)


def cost_against_recorded(
    name: str, value: float, unit: str, whose: str, where: str, baseline: float, goal: float | None = None
) -> Row:
    """As `cost`, where the baseline is somebody's recorded figure that was not run here; the row says so."""
    return cost(f"{name}, against {whose}'s recorded figure", value, f"{unit} (recorded {where})", baseline, goal)


def at_most(name: str, value: float, unit: str, goal: float) -> Row:
    """A figure with a limit of its own."""
    return Row(name=name, value=value, unit=unit, goal=f"<= {goal:,g} {unit}", met=value <= goal)


def at_least(name: str, value: float, unit: str, goal: float) -> Row:
    """A figure with a floor of its own."""
    return Row(name=name, value=value, unit=unit, goal=f">= {goal:,g} {unit}", met=value >= goal)


def _against(name: str, value: float, unit: str, baseline: float, ratio: float, goal: float | None) -> Row:
    return Row(
        name=name,
        value=value,
        unit=unit,
        baseline=baseline,
        ratio=ratio,
        goal=None if goal is None else f">= {goal:g}x",
        met=None if goal is None else ratio >= goal,
    )


def medians(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each function over `repeats` rounds in which every function runs once.

    Each runs once before, untimed, so that nothing is compiled or first touched in the timed rounds.
    """
    for function in functions.values():
        function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            began = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - began)
    return {name: float(np.median(each)) for name, each in seconds.items()}


def machine(threads: int) -> str:
    """One line on what the figures were measured on."""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return f"{_processor()}, {os.cpu_count()} cores, {threads} used; Python {platform.python_version()}, {packages}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def as_json(rows: Iterable[Row]) -> str:
    """A list with an object a row."""
    return json.dumps([asdict(row) for row in rows], indent=1)


def show(rows: Iterable[Row], skipped: Iterable[Skipped], about: str) -> None:
    """A table, then what was skipped, then the machine."""
    table = Table("what", "value", "unit", "baseline", "ratio", "goal", "met")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(
            row.name,
            _number(row.value),
            row.unit,
            _number(row.baseline),
            "" if row.ratio is None else f"{row.ratio:,.2f}x",
            row.goal or "",
            {True: "yes", False: "NO", None: ""}[row.met],
        )
    console = Console() if Console().is_terminal else Console(width=160)
    console.print(table)
    for each in skipped:
        console.print(f"skipped: {each.name}: {each.why}", markup=False, highlight=False)
    console.print(about, markup=False, highlight=False)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
