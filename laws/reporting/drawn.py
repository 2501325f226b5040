"""A chart as a still picture: SVG and PNG by matplotlib, and the SVG as an element of a page."""

import io
import re
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from laws.reporting.charts import Array, Band, Chart, Contours, Dots, Line, Mark, Rule, Scale, arms
from laws.reporting.palette import FILL_SHARES, colours

WIDTH, HEIGHT = 4.4, 3.15
"""Inches, but for the rows of the legend."""
LEFT, RIGHT, BELOW, ABOVE = 0.72, 0.14, 0.5, 0.34
"""Room around the panel, in inches."""
LEGEND_ROW = 0.19
CHARACTERS = 66
"""Of a row of the legend, a handle counted as five."""
DPI = 150
MOST_CAPS = 60
"""Intervals of one mark that are drawn with caps."""

_LIGHT = colours("light")
_DASHES = {"solid": "-", "dash": (0, (4, 2)), "dot": (0, (1, 1.8))}
_MARKERS = {"circle": "o", "square": "s", "diamond": "D", "triangle": "^", "star": "*"}
_SIZES = {"square": 0.92, "diamond": 0.85, "star": 1.7}
"""Of a symbol, so that all look equally large."""
_STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 8.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "gridlaw",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _LIGHT["muted"],
    "axes.labelcolor": _LIGHT["ink"],
    "text.color": _LIGHT["ink"],
    "xtick.color": _LIGHT["muted"],
    "ytick.color": _LIGHT["muted"],
    "xtick.labelcolor": _LIGHT["ink"],
    "ytick.labelcolor": _LIGHT["ink"],
    "legend.frameon": False,
    "legend.fontsize": 7.5,
}


def save(chart: Chart, folder: Path) -> str:
    """Write `<name>.svg` and `<name>.png` into the folder; returns the SVG for embedding in a page."""
    with matplotlib.rc_context(_STYLE):
        figure = picture(chart)
        buffer = io.StringIO()
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Title": chart.title})
        canvas = FigureCanvasAgg(figure)
        figure.set_dpi(DPI)
        canvas.print_png(folder / f"{chart.name}.png", pil_kwargs={"compress_level": 4})
    text = buffer.getvalue()
    (folder / f"{chart.name}.svg").write_text(text, encoding="utf-8")
    return embeddable(text, chart)


def picture(chart: Chart) -> Figure:
    """The chart as matplotlib draws it."""
    rows = _legend_rows(chart)
    top = ABOVE + LEGEND_ROW * len(rows)
    height = HEIGHT + LEGEND_ROW * len(rows)
    figure = Figure(figsize=(WIDTH, height), dpi=72)
    axes = figure.add_axes(
        (LEFT / WIDTH, BELOW / height, 1 - (LEFT + RIGHT) / WIDTH, 1 - (BELOW + top) / height)
    )  # a layout engine takes as long as drawing
    axes.set_axisbelow(True)
    for which, scale in (("x", chart.x), ("y", chart.y)):
        _scale(axes, which, scale)
    for mark in chart.marks:
        _draw(axes, mark, chart)
    # a title of the axes would be moved out of the way of ticks, for which all of them are measured
    figure.text(LEFT / WIDTH, 1 - 0.24 / height, chart.title, fontsize=9.5, fontweight="bold")
    _legend(axes, rows)
    return figure


def _scale(axes: Axes, which: str, scale: Scale) -> None:
    axis = getattr(axes, f"{which}axis")
    if scale.is_log:
        getattr(axes, f"set_{which}scale")("log")
    getattr(axes, f"set_{which}lim")(*scale.limits)
    getattr(axes, f"set_{which}label")(scale.title)
    axis.set_major_locator(FixedLocator([at for at, _ in scale.ticks]))
    axis.set_major_formatter(FixedFormatter([text for _, text in scale.ticks]))
    axis.set_minor_locator(NullLocator())
    axis.grid(True, color=_LIGHT["line"], linewidth=0.6)


def _draw(axes: Axes, mark: Mark, chart: Chart) -> None:
    match mark:
        case Dots():
            _dots(axes, mark, chart)
        case Line():
            axes.plot(
                mark.x, mark.y, color=_LIGHT[mark.colour], linestyle=_DASHES[mark.dash], linewidth=mark.width,
                label=mark.name or None,
            )  # fmt: skip
        case Band():
            axes.fill_between(mark.x, mark.lo, mark.hi, color=_LIGHT[mark.colour], alpha=0.16, linewidth=0)
        case Rule():
            _rule(axes, mark)
        case Contours():
            _contours(axes, mark, chart)


def _dots(axes: Axes, mark: Dots, chart: Chart) -> None:
    size = mark.size * _SIZES.get(mark.symbol, 1.0)
    if mark.shades is not None:
        norm = Normalize(*(chart.shades or (None, None)))
        axes.scatter(
            mark.x, mark.y, c=mark.shades, cmap=colormaps["viridis"], norm=norm, s=size**2, zorder=3,
            marker=_MARKERS[mark.symbol], edgecolors=_LIGHT["ground"], linewidths=0.9,
        )  # fmt: skip
        return
    colour = _LIGHT[mark.colour]
    if (lengths := arms(mark)) is not None:
        _intervals(axes, mark.x, mark.y - lengths[0], mark.y + lengths[1], colour)
    axes.plot(
        mark.x, mark.y, linestyle="none", marker=_MARKERS[mark.symbol], color=colour, markersize=size, zorder=3,
        fillstyle="none" if mark.is_hollow else "full", label=mark.name or None,
    )  # fmt: skip


def _intervals(axes: Axes, x: Array, lo: Array, hi: Array, colour: str) -> None:
    """All intervals as one broken line, which a page has in one element; caps where they would not crowd."""
    gaps = np.full(len(x), np.nan)
    axes.plot(
        np.stack([x, x, gaps], axis=1).ravel(), np.stack([lo, hi, gaps], axis=1).ravel(), color=colour, linewidth=1.0,
        zorder=2.5,
    )  # fmt: skip
    if len(x) <= MOST_CAPS:
        ends = (np.tile(x, 2), np.concatenate([lo, hi]))
        axes.plot(*ends, linestyle="none", marker="_", markersize=4.4, color=colour, zorder=2.5)


def _rule(axes: Axes, mark: Rule) -> None:
    colour, is_level = _LIGHT[mark.colour], mark.axis == "y"
    draw = axes.axhline if is_level else axes.axvline
    draw(mark.at, color=colour, linewidth=1, linestyle=_DASHES[mark.dash], zorder=1.5)
    if not mark.text:
        return
    where: dict[str, Any] = (
        {"xy": (1, mark.at), "xycoords": ("axes fraction", "data"), "xytext": (-2, 2), "ha": "right"}
        if is_level
        else {"xy": (mark.at, 1), "xycoords": ("data", "axes fraction"), "xytext": (3, -3), "va": "top"}
    )
    axes.annotate(mark.text, textcoords="offset points", fontsize=7.2, color=colour, annotation_clip=True, **where)


def _contours(axes: Axes, mark: Contours, chart: Chart) -> None:
    norm = Normalize(*(chart.shades or (mark.levels[0], mark.levels[-1])))
    shared: dict[str, Any] = {"levels": mark.levels, "extend": "both"}
    axes.contourf(mark.x, mark.y, mark.z, cmap=colormaps["viridis"], norm=norm, alpha=FILL_SHARES["light"], **shared)
    lines = axes.contour(mark.x, mark.y, mark.z, levels=mark.levels, colors=_LIGHT["ink"], linewidths=0.6)
    axes.clabel(lines, fontsize=7, fmt=lambda value: f"{value:.4g}")


def _legend_rows(chart: Chart) -> list[list[str]]:
    """Names of the legend, as many a row as have room."""
    rows: list[list[str]] = []
    room = 0
    for name in chart.legend:
        length = len(name) + 5
        if not rows or room < length:
            rows.append([])
            room = CHARACTERS
        rows[-1].append(name)
        room -= length
    return rows


def _legend(axes: Axes, rows: list[list[str]]) -> None:
    """Above the panel, a legend a row: columns of one legend would be as wide as the longest name."""
    if not rows:
        return
    handles, labels = axes.get_legend_handles_labels()
    known = dict(zip(labels, handles, strict=True))
    height = axes.get_position().height * axes.figure.get_figheight()  # type: ignore[union-attr]
    for index, row in enumerate(rows):
        above = LEGEND_ROW * (len(rows) - 1 - index) / height
        made = axes.legend(
            [known[name] for name in row], row, loc="lower left", bbox_to_anchor=(-0.02, 1.0 + above - 0.015),
            ncols=len(row), handlelength=1.2, handletextpad=0.4, columnspacing=1.0, borderaxespad=0.1,
        )  # fmt: skip
        axes.add_artist(made)


_BY_COLOUR = {value: name for name, value in _LIGHT.items()}


def embeddable(svg: str, chart: Chart) -> str:
    """An SVG document as an element of a page: no prolog, no outside addresses, ids of its own, scalable, and with
    the page's colours, so that it is dark where the page is.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.S)
    svg = re.sub(r'\sxmlns(:xlink)?="[^"]*"', "", svg)
    svg = svg.replace("xlink:href=", "href=")
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{chart.name}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{chart.name}-\1)", svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{chart.name}-\1"', svg)
    svg = re.sub(r"<title>.*?</title>", "", svg, count=1, flags=re.S)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r'\1 aria-hidden="true"', svg, count=1)
    svg = re.sub(r"#[0-9a-f]{6}\b", _variable, svg)
    svg = re.sub(r"(\d\.\d\d)\d+", r"\1", svg)
    return re.sub(r"\s*\n\s*", " ", svg)


def _variable(found: re.Match[str]) -> str:
    name = _BY_COLOUR.get(found[0])
    return f"var(--{name},{found[0]})" if name else found[0]
