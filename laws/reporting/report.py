"""The report: one self-contained page, its figures as files, and every number as JSON and Parquet."""

import tempfile
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import jinja2
from markupsafe import Markup

from laws.fitting import INTERVAL
from laws.forms import SYMBOLS
from laws.points import label, short
from laws.reporting import interactive, palette, words
from laws.reporting.found import Found, found
from laws.reporting.gallery import Gallery
from laws.reporting.numbers import as_numbers, write_json, write_parquet
from laws.reporting.provenance import provenance
from laws.reporting.sections import rates, sweeps
from laws.study import Finding
from laws.tables import Tables
from laws.together import Together

DATA = ("laws.json", "laws.parquet")
PAGE = "report.html"


def write(tables: Tables, findings: Sequence[Finding], out: Path) -> Path:
    """Write report.html, laws.json, laws.parquet and figures/ into `out`; returns the page's path.

    All is made in a temporary folder first: an error half-way leaves an earlier report as it was. Figures of an
    earlier report that this one has not (*.svg, *.png) are removed, other files stay. Raises OSError.
    """
    figures = out / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".writing-") as name:
        made = Path(name)
        drawn = made / "figures"
        drawn.mkdir()
        all_of_it = found(tables, findings)
        numbers = as_numbers(all_of_it)
        write_json(numbers, made / DATA[0])
        write_parquet(numbers, made / DATA[1])
        (made / PAGE).write_text(_page(all_of_it, Gallery(drawn)), encoding="utf-8")
        names = {path.name for path in drawn.iterdir()}
        for path in drawn.iterdir():
            path.replace(figures / path.name)
        for file in (*DATA, PAGE):
            (made / file).replace(out / file)
    for path in figures.iterdir():
        if path.suffix in (".svg", ".png") and path.name not in names and path.is_file():
            path.unlink()
    return out / PAGE


def _page(all_of_it: Found, gallery: Gallery) -> str:
    """The text of report.html; its figures go as files into the gallery's folder."""
    tables = all_of_it.tables
    parts = files("laws.reporting") / "page"
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            sweeps=sweeps(all_of_it, gallery),
            rates=rates(tables, gallery),
            tables=tables,
            provenance=provenance(tables),
            interval=f"{INTERVAL:.0%}",
            title=", ".join(sorted({trial.grid for trial in tables.trials}) or tables.folders),
            style=Markup(_colours() + (parts / "style.css").read_text(encoding="utf-8")),
            script=Markup((parts / "script.js").read_text(encoding="utf-8")),
            library=Markup(interactive.library()),
        )
    )


def _colours() -> str:
    """The palette as variables of the page, of both themes."""

    def block(theme: palette.Theme) -> str:
        return "".join(f"--{name}:{value};" for name, value in palette.colours(theme).items())

    return (
        f":root{{color-scheme:light dark;{block('light')}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{block('dark')}}}}}\n"
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("laws.reporting", "page"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "short": short,
        "number": words.number,
        "percent": words.percent,
        "metric": label,
        "formula": words.formula,
        "greek": words.greek,
        "family": words.family_name,
        "value": words.value,
        "ends": words.ends,
        "slug": words.slug,
        "sentence": words.sentence,
        "exact": exact,
        "r2": words.fit_quality,
        "typeset": words.typeset,
        "together_title": together_title,
    }
    return environment


def together_title(one: Together) -> str:
    """`CGL over N and D: T5, LLaMA`."""
    axes = " and ".join(SYMBOLS[axis] for axis in one.base.axes)
    families = ", ".join(words.family_name(group.family) for group in one.groups)
    return f"{words.typeset(label(one.metric, one.points.quantity))} over {axes}: {families}"


def exact(value: float | None) -> str:
    """A number for a spreadsheet: all that can matter, no thousands' marks; empty where there is none."""
    return "" if value is None or value != value else f"{value:.9g}"
