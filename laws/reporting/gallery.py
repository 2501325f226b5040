"""The figures of a report: each drawn once, as files and for the page."""

from dataclasses import dataclass
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


class Gallery:
    """Draws charts into a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: set[str] = set()

    def hang(self, chart: Chart) -> Plate:
        """Draw it. Raises OSError where it cannot be written, ValueError where the name is taken."""
        if chart.name in self._names:
            raise ValueError(f"two figures are called {chart.name}")
        self._names.add(chart.name)
        return Plate(
            name=chart.name,
            title=chart.title,
            alt=chart.alt,
            still=Markup(drawn.save(chart, self._folder)),
            live=Markup(interactive.specification(chart)),
        )
