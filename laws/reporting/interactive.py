"""A chart as a page shows it to those who point at it: what plotly.js is given, and the library itself.

Colours stay names ("$c0", "$c0/0.16"): the page puts in those of its theme. All that charts have in common (fonts,
margins, legend) is the page's too.
"""

import base64
import gzip
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np

from laws.reporting.charts import Array, Band, Chart, Contours, Dots, Line, Rule, Scale, arms
from laws.reporting.palette import FILLS

_SYMBOLS = {"triangle": "triangle-up"}
_BIGGER = 1.45
"""Pixels of a marker for a point of print."""
DIGITS = 6
"""Significant digits of a coordinate: more than a screen can show."""


def specification(chart: Chart) -> str:
    """JSON with plotly's `data` and `layout`; fit to stand in a script element."""
    traces = [trace for mark in chart.marks for trace in _traces(mark, chart)]
    layout = {
        "title": {"text": chart.title},
        "xaxis": _axis(chart.x),
        "yaxis": _axis(chart.y),
        "showlegend": len(chart.legend) > 0,
    }
    rules = [mark for mark in chart.marks if isinstance(mark, Rule)]
    if rules:
        layout["shapes"] = [_shape(rule) for rule in rules]
        layout["annotations"] = [_annotation(rule, chart) for rule in rules if rule.text]
    text = json.dumps({"data": traces, "layout": layout}, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("</", "<\\/")


@cache
def library() -> str:
    """plotly.js, compressed and as base64: a third of its size, and read by a browser only where a figure is drawn."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode()


def _axis(scale: Scale) -> dict[str, Any]:
    limits = np.log10(scale.limits) if scale.is_log else np.array(scale.limits)
    return {
        "title": {"text": scale.title},
        "type": "log" if scale.is_log else "linear",
        "range": _plain(limits),
        "tickvals": _plain(np.array([at for at, _ in scale.ticks])),
        "ticktext": [text for _, text in scale.ticks],
    }


def _traces(mark: Any, chart: Chart) -> Iterator[dict[str, Any]]:
    match mark:
        case Dots():
            yield _dots(mark, chart)
        case Line():
            yield _line(mark)
        case Band():
            # one closed outline: `tonexty` would fill to whatever trace stands before it
            yield {
                "x": _plain(np.concatenate([mark.x, mark.x[::-1]])),
                "y": _plain(np.concatenate([mark.lo, mark.hi[::-1]])),
                "mode": "lines",
                "fill": "toself",
                "fillcolor": f"${mark.colour}/0.18",
                "line": {"width": 0},
                "hoverinfo": "skip",
                "showlegend": False,
                **({"legendgroup": mark.belongs_to} if mark.belongs_to else {}),
            }
        case Contours():
            yield _contours(mark, chart)


def _dots(mark: Dots, chart: Chart) -> dict[str, Any]:
    trace: dict[str, Any] = {
        "x": _plain(mark.x),
        "y": _plain(mark.y),
        "mode": "markers",
        "marker": {
            "size": round(mark.size * _BIGGER, 1),
            "symbol": _SYMBOLS.get(mark.symbol, mark.symbol) + ("-open" if mark.is_hollow else ""),
        },
        **_named(mark.name),
    }
    if mark.shades is not None and chart.shades is not None:
        lo, hi = chart.shades
        trace["marker"] |= {"color": _plain(mark.shades), "colorscale": "Viridis", "cmin": lo, "cmax": hi}
        trace["marker"]["line"] = {"color": "$ground", "width": 1}
    else:
        trace["marker"]["color"] = f"${mark.colour}"
    if (lengths := arms(mark)) is not None:
        trace["error_y"] = {
            "array": _plain(lengths[1]),
            "arrayminus": _plain(lengths[0]),
            "color": f"${mark.colour}",
            "thickness": 1.3,
            "width": 3,
        }
    if mark.hover:
        trace |= {"text": list(mark.hover), "hovertemplate": "%{text}<extra></extra>"}
    return trace


def _line(mark: Line) -> dict[str, Any]:
    told = mark.hover or mark.name
    return {
        "x": _plain(mark.x),
        "y": _plain(mark.y),
        "mode": "lines",
        "line": {"color": f"${mark.colour}", "width": round(mark.width * 1.25, 2), "dash": mark.dash},
        **_named(mark.name, mark.belongs_to),
        **({"hovertemplate": f"{told}<br>%{{x:.4~s}}: %{{y:.4g}}<extra></extra>"} if told else {"hoverinfo": "skip"}),
    }


def _named(name: str, belongs_to: str = "") -> dict[str, Any]:
    group = {"legendgroup": belongs_to or name} if belongs_to or name else {}
    return {"name": name, **group} if name else {"showlegend": False, **group}


def _contours(mark: Contours, chart: Chart) -> dict[str, Any]:
    lo, hi = chart.shades or (mark.levels[0], mark.levels[-1])
    step = (mark.levels[-1] - mark.levels[0]) / max(len(mark.levels) - 1, 1)
    return {
        "type": "contour",
        "x": _plain(mark.x),
        "y": _plain(mark.y),
        "z": [_plain(row) for row in mark.z],
        "colorscale": [[i / (FILLS - 1), f"$v{i}"] for i in range(FILLS)],
        "zmin": lo,
        "zmax": hi,
        "showscale": False,
        "contours": {
            "start": mark.levels[0],
            "end": mark.levels[-1],
            "size": step,
            "showlabels": True,
            "labelformat": ".4~g",
            "labelfont": {"color": "$ink", "size": 11},
        },
        "line": {"color": "$ink", "width": 0.8},
        "hovertemplate": f"{mark.name} %{{z:.4g}}<extra></extra>",
    }


def _shape(rule: Rule) -> dict[str, Any]:
    across, along = ("x", "y") if rule.axis == "y" else ("y", "x")
    return {
        "type": "line",
        f"{across}ref": "paper",
        f"{across}0": 0,
        f"{across}1": 1,
        f"{along}0": rule.at,
        f"{along}1": rule.at,
        "line": {"color": f"${rule.colour}", "width": 1, "dash": rule.dash},
        "layer": "below",
    }


def _annotation(rule: Rule, chart: Chart) -> dict[str, Any]:
    # annotations, unlike shapes, take the logarithm on a logarithmic axis
    scale = chart.y if rule.axis == "y" else chart.x
    at = float(np.log10(rule.at)) if scale.is_log else rule.at
    where: dict[str, Any] = (
        {"xref": "paper", "x": 1, "y": at, "xanchor": "right", "yanchor": "bottom"}
        if rule.axis == "y"
        else {"yref": "paper", "y": 1, "x": at, "xanchor": "left", "yanchor": "top"}
    )
    return {"text": rule.text, "showarrow": False, "font": {"size": 11, "color": f"${rule.colour}"}, **where}


def _plain(values: Array) -> list[float | None]:
    """Numbers of few digits; None where there is none."""
    return [float(f"{value:.{DIGITS}g}") if np.isfinite(value) else None for value in values]
