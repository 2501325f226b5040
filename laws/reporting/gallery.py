"""The figures of a report: each drawn once, as files and for the page."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from markupsafe import Markup

from laws.reporting import drawn, interactive
from laws.reporting.charts import Chart


@dataclass(frozen=True, kw_only=True)
class Plate:
    """A figure on the page: the still picture, and what the page draws in its place where it can."""

    name: str
    title: str
    alt: str
    still: Markup
    live: Markup
    """JSON for plotly.js."""


LONGEST = 120
"""Letters of a name: file systems end at 255 bytes."""


class Gallery:
    """Draws charts into a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: set[str] = set()

    def hang(self, chart: Chart) -> Plate:
        """Draw it. Raises OSError where it cannot be written."""
        chart = replace(chart, name=self._free(chart.name))
        return Plate(
            name=chart.name,
            title=chart.title,
            alt=chart.alt,
            still=Markup(drawn.save(chart, self._folder)),
            live=Markup(interactive.specification(chart)),
        )

    def _free(self, name: str) -> str:
        """A name that no figure has yet, and that a file can have: a corpus may be called anything."""
        if len(name) > LONGEST:
            name = f"{name[: LONGEST - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        name = name or "figure"
        twins = (f"{name}-{count}" for count in range(2, 100_000))
        found = name if name not in self._names else next(each for each in twins if each not in self._names)
        self._names.add(found)
        return found
