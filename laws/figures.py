"""Figures of a report: small single panels, so that a page can set them side by side or below each other."""

import io
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.axis import Axis as MatplotlibAxis
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from laws.forms import Array, Axis
from laws.points import Points, comparable, describe, label, short
from laws.study import Finding
from laws.tables import Baseline, Trial

SIZE = (4.3, 3.2)
INK = "#22262b"
MUTED = "#7a828c"
POINT = "#1f5fa8"
LAW = "#c2410c"
AXIS_NAMES: dict[Axis, str] = {"n": "N, parameters", "d": "D, training pairs", "beams": "beams"}
CHANCE_NAMES = {"cgl_published": "chance of one identifier"}
"""What the line of chance is called, where it is not chance itself."""
FAMILIES = {"t5": "T5", "llama": "LLaMA"}

STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 8.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "gridlaw",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
}


def family_name(family: str) -> str:
    """As it is written in a heading."""
    return FAMILIES.get(family, family)


def common_range(findings: Iterable[Finding]) -> tuple[float, float]:
    """One range of y for panels that stand side by side, chance included where it is near."""
    values: list[float] = []
    for finding in findings:
        values += _extent(finding.points)
    lo, hi = min(values), max(values)
    if lo > 0 and hi / lo > 1.05:
        return lo / (hi / lo) ** 0.06, hi * (hi / lo) ** 0.08
    margin = 0.08 * (hi - lo) or 0.05 * abs(hi) or 1.0
    return lo - margin, hi + margin


def value_range(findings: Iterable[Finding]) -> tuple[float, float]:
    """The values themselves, for the colours of surfaces that stand side by side."""
    values = np.concatenate([finding.points.y for finding in findings])
    return float(values.min()), float(values.max())


def _extent(points: Points) -> list[float]:
    ends = [points.y] + [end for end in (points.lo, points.hi) if end is not None]
    values = [float(value) for end in ends for value in end if math.isfinite(value) and value > 0]
    if math.isfinite(points.chance) and points.chance < 2 * max(values, default=0.0):
        values.append(points.chance)
    return values or [0.1, 1.0]


def curve(finding: Finding, limits: tuple[float, float]) -> Figure:
    """Points with intervals and the fitted curve with its band along one axis, on logarithmic axes."""
    with matplotlib.rc_context(STYLE):
        figure, axes = panel()
        points, axis = finding.points, finding.form.axes[0]
        x = points.axis(axis)
        if finding.law is not None:
            grid = np.geomspace(x.min() / 1.25, x.max() * 1.25, 120)
            if (band := finding.law.band([grid])) is not None:
                axes.fill_between(grid, *band, color=LAW, alpha=0.14, linewidth=0)
            solid = finding.verdict.word in ("supported", "weak")
            axes.plot(grid, finding.law.predict([grid]), color=LAW, linewidth=1.6, linestyle="-" if solid else "--")
        _with_intervals(axes, x, points, POINT)
        _chance(axes, points)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(x.min() / 1.35, x.max() * 1.35)
        axes.set_ylim(*limits)
        value_ticks(axes.xaxis, x)
        _plain_ticks(axes, limits)
        axes.set_xlabel(AXIS_NAMES[axis])
        axes.set_ylabel(label(finding.metric) + _unit(limits)[1])
        axes.set_title(", ".join(filter(None, (family_name(finding.group.family), describe(finding.held)))))
        axes.grid(axis="y", color="#e5e7eb", linewidth=0.6)
        return figure


def surface(finding: Finding, limits: tuple[float, float]) -> Figure:
    """Contours of a fitted law over N and D, with the points coloured by their values on the same scale."""
    assert finding.law is not None
    with matplotlib.rc_context(STYLE):
        figure, axes = panel()
        points = finding.points
        n = np.geomspace(points.n.min() / 1.6, points.n.max() * 1.6, 40)
        d = np.geomspace(points.d.min() / 1.6, points.d.max() * 1.6, 40)
        columns, rows = np.meshgrid(n, d)
        values = finding.law.predict([columns.ravel(), rows.ravel()]).reshape(columns.shape)
        thousand, unit = _unit(limits)
        norm, colours = Normalize(*limits), colormaps["viridis"]
        levels = MaxNLocator(9).tick_values(points.y.min(), points.y.max())
        axes.contourf(columns, rows, values, levels=levels, cmap=colours, norm=norm, alpha=0.55, extend="both")
        lines = axes.contour(columns, rows, values, levels=levels, colors=INK, linewidths=0.6)
        axes.scatter(points.n, points.d, c=points.y, cmap=colours, norm=norm, s=46, edgecolors="white", zorder=3)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.clabel(lines, fontsize=7, fmt=lambda value: f"{value * thousand:.4g}")
        value_ticks(axes.xaxis, points.n)
        value_ticks(axes.yaxis, points.d)
        axes.set_xlabel(AXIS_NAMES["n"])
        axes.set_ylabel(AXIS_NAMES["d"])
        axes.set_title(f"{family_name(finding.group.family)}, {label(finding.metric)}{unit}, {finding.form.name} form")
        return figure


def budgets(trials: Sequence[Trial], metric: str, baselines: Sequence[Baseline]) -> Figure | None:
    """A metric against beams, a line for each N, at the largest D; None where there is but one number of beams."""
    rows, _, _ = comparable(trials, metric)
    largest = max((trial.d_pairs for trial in rows), default=0.0)
    rows = [trial for trial in rows if trial.d_pairs == largest]
    if len({trial.beams for trial in rows}) < 2:
        return None
    with matplotlib.rc_context(STYLE):
        figure, axes = panel()
        sizes = sorted({trial.n_params for trial in rows})
        for index, size in enumerate(sizes):
            colour = colormaps["viridis"](0.85 * (1 - index / max(len(sizes) - 1, 1)))
            _budget_line(axes, [trial for trial in rows if trial.n_params == size], metric, colour, f"N {short(size)}")
        for baseline in baselines:
            if baseline.measured[metric].known:
                value = baseline.measured[metric].value
                axes.axhline(value, color=MUTED, linewidth=0.8, linestyle=":", zorder=1)
                axes.annotate(
                    baseline.baseline, (1, value), xycoords=("axes fraction", "data"), fontsize=6.8, color=MUTED,
                    xytext=(-1, 1.5), textcoords="offset points", ha="right",
                )  # fmt: skip
        axes.set_xscale("log")
        value_ticks(axes.xaxis, np.array([trial.beams for trial in rows]))
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("beams")
        axes.set_ylabel(label(metric).removeprefix("1 - "))
        axes.set_title(f"{family_name(rows[0].family)}, D = {short(largest)}", pad=19)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.985), ncols=5, handlelength=1.2, columnspacing=1.0)
        return figure


def _budget_line(axes: Axes, rows: Sequence[Trial], metric: str, colour: Any, name: str) -> None:
    beams = np.array(sorted({trial.beams for trial in rows}))
    at = [[trial.measured[metric] for trial in rows if trial.beams == value] for value in beams]
    mean = np.array([np.mean([measured.value for measured in cell]) for cell in at])
    lo = np.array([np.mean([measured.lo for measured in cell]) for cell in at])
    hi = np.array([np.mean([measured.hi for measured in cell]) for cell in at])
    axes.errorbar(
        beams, mean, yerr=_arms(mean, lo, hi), color=colour, marker="o", markersize=4, linewidth=1.4, elinewidth=0.8,
        label=name,
    )  # fmt: skip


def save(figure: Figure, folder: Path, name: str) -> str:
    """Write `<name>.svg` and `<name>.png` into the folder; returns the SVG for embedding in a page."""
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        figure.savefig(folder / f"{name}.png", dpi=140)
    text = buffer.getvalue()
    (folder / f"{name}.svg").write_text(text, encoding="utf-8")
    return embeddable(text, name)


def embeddable(svg: str, name: str) -> str:
    """An SVG document as an element of a page: no prolog, no outside addresses, ids of its own, scalable."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'\sxmlns(:xlink)?="[^"]*"', "", svg)
    svg = svg.replace("xlink:href=", "href=")
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    return re.sub(r'(<svg[^>]*?) height="[^"]*"', r'\1 role="img"', svg, count=1)


def _unit(limits: tuple[float, float]) -> tuple[float, str]:
    """What values are multiplied by on the figure, and how that is written: small losses are shown in thousandths."""
    return (1000.0, " × 1000") if 0 < limits[1] < 0.05 else (1.0, "")


def panel() -> tuple[Figure, Axes]:
    """One figure with room for its labels; to be called with STYLE in force."""
    figure = Figure(figsize=SIZE)
    axes = figure.add_subplot()
    figure.subplots_adjust(left=0.165, right=0.97, bottom=0.155, top=0.88)  # a layout engine takes as long as drawing
    return figure, axes


def _arms(y: Array, lo: Array, hi: Array) -> Array:
    """Lengths of error bars (2, points): none where an end is unknown."""
    return np.nan_to_num(np.clip(np.stack([y - lo, hi - y]), 0, None))


def _with_intervals(axes: Axes, x: Array, points: Points, colour: str) -> None:
    arms = None if points.lo is None or points.hi is None else _arms(points.y, points.lo, points.hi)
    axes.errorbar(x, points.y, yerr=arms, fmt="o", color=colour, markersize=5, elinewidth=1.1, capsize=2.5, zorder=3)


def _chance(axes: Axes, points: Points) -> None:
    if math.isfinite(points.chance) and points.chance < 2 * points.y.max():
        axes.axhline(points.chance, color=MUTED, linewidth=1, linestyle=":")
        axes.annotate(
            CHANCE_NAMES.get(points.metric, "chance"), (1, points.chance), xycoords=("axes fraction", "data"),
            xytext=(-2, 2), fontsize=7.5, color=MUTED, textcoords="offset points", ha="right",
        )  # fmt: skip


def value_ticks(axis: MatplotlibAxis, values: Array) -> None:
    """Ticks at the points themselves, thinned where they would touch."""
    kept: list[float] = []
    least = max(np.log(values.max() / values.min()) / 7, 1e-9) if len(values) else 0
    for value in np.unique(values)[::-1]:
        if not kept or np.log(kept[-1] / value) > least:
            kept.append(float(value))
    axis.set_major_locator(FixedLocator(kept))
    axis.set_major_formatter(FixedFormatter([short(value) for value in kept]))
    axis.set_minor_locator(NullLocator())


def _plain_ticks(axes: Axes, limits: tuple[float, float]) -> None:
    """Few round numbers on a logarithmic axis that may span less than a decade."""
    lo, hi = limits
    if lo > 0 and hi / lo > 30:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        ticks = [tick for tick in MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(lo, hi) if lo <= tick <= hi]
        axes.yaxis.set_major_locator(FixedLocator(ticks))
        axes.yaxis.set_major_formatter(FixedFormatter([f"{tick * _unit(limits)[0]:.5g}" for tick in ticks]))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_minor_locator(NullLocator())
