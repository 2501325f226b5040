"""Answers as tables for a terminal."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from laws.forms import SYMBOLS, Axis
from laws.planning.answers import (
    Answer,
    Answering,
    Inquiry,
    Plan,
    Predict,
    Prediction,
    Reach,
    Reply,
    Spend,
    Ways,
    metric_words,
)
from laws.planning.choosing import AXES, configuration_words, count_words, far
from laws.planning.costs import Cost, Costs
from laws.planning.planner import Cheapest, Configuration
from laws.planning.quality import IsoQuality


def plain(*columns: str, left: Sequence[str] = (), title: str = "") -> Table:
    """A table without lines; the first column and those in `left` are aligned to the left."""
    table = Table(title=escape(title) or None, title_justify="left", box=None, pad_edge=False, title_style="bold")
    for position, column in enumerate(columns):
        justify: Literal["left", "right"] = "left" if not position or column in left else "right"
        table.add_column(column, justify=justify, overflow="fold")
    return table


def add(table: Table, *cells: str) -> None:
    """A row of plain text: rich would take an interval in brackets for its own markup."""
    table.add_row(*map(Text, cells))


def show(reply: Reply, asked: Inquiry, console: Console) -> None:
    """One table, then what warns of it, then what was refused."""
    if reply.answers:
        console.print(_table(reply.answers, asked))
    for one in reply.answers:
        if isinstance(one, Ways) and one.iso is not None:
            console.print(_iso_table(one, one.iso))
    for line in _notes(reply, asked):
        console.print(line, markup=False, highlight=False, soft_wrap=True, style="dim")
    for refusal in reply.refused:
        console.print(f"{refusal.title}: {refusal.reason}", markup=False, highlight=False, soft_wrap=True)


def _table(answers: Sequence[Answer], asked: Inquiry) -> Table:
    if isinstance(asked, Predict):
        table = plain(
            "law",
            "predicted",
            "beyond the points",
            "verdict",
            left=("beyond the points", "verdict"),
            title=_title(asked),
        )
        for one in answers:
            if isinstance(one, Prediction):
                rival = "" if one.is_best else "  (rival)"
                add(table, one.by.title + rival, metric_words(one.by, one.at), _far(one.by, one.at), _verdict(one.by))
        return table
    if isinstance(asked, Spend):
        names = ("N", "D", "budget", *(("training",) if asked.queries else ()))
        table = plain("law", *names, "predicted", "beyond the points", left=("beyond the points",), title=_title(asked))
        for one in answers:
            if isinstance(one, Plan):
                bands = one.optimum.bands
                cells = [
                    _with_band(one.optimum.best.values["n"], bands.get("n")),
                    _with_band(one.optimum.best.values["d"], bands.get("d")),
                ]
                cells += [_gain(one.optimum.best.values, bands)]
                cells += [f"{one.optimum.training_share:.0%}"] if asked.queries else []
                add(table, one.by.title, *cells, metric_words(one.by, one.optimum.best), _far(one.by, one.optimum.best))
        return table
    columns = ("reaches it", "N", "D", "budget", "FLOPs", "predicted")
    table = plain("law", *columns, "beyond the points", left=("beyond the points",), title=_title(asked))
    for one in answers:
        if isinstance(one, Ways):
            for way in (one.likely, one.sure):
                if way is not None:
                    add(table, *_way_cells(one, way))
    return table


def _way_cells(ways: Ways, way: Cheapest) -> list[str]:
    values = way.best.values
    probability = "-" if math.isnan(way.probability) else f"{way.probability:.0%}"
    return [
        ways.by.title if way is ways.likely else "",
        probability,
        count_words(values["n"]),
        count_words(values["d"]),
        _gain(values, {}),
        f"{way.total_flops:.3g}",
        metric_words(ways.by, way.best),
        _far(ways.by, way.best),
    ]


def _title(asked: Inquiry) -> str:
    match asked:
        case Predict():
            return f"At {configuration_words(asked.point)}"
        case Spend():
            queries = f" of training and {count_words(asked.queries)} queries" if asked.queries else " of training"
            return f"Best for {asked.budget:.3g} FLOPs{queries}"
        case Reach():
            queries = f", with {count_words(asked.queries)} queries" if asked.queries else ""
            return f"Cheapest for {asked.metric} = {asked.value:g}{queries}"


def _iso_table(ways: Ways, iso: IsoQuality) -> Table:
    """N down, inference budgets across, and the D that each pair needs."""
    gain = next((axis for axis in ways.by.law.form.axes if axis in ("beams", "c")), None)
    across = [f"{SYMBOLS[gain]} = {count_words(value)}" if gain else "D" for value in iso.gains]
    table = plain("N", *across, title=f"D that reaches it: {ways.by.title}")
    for row, n in enumerate(iso.n):
        cells = [_needed(iso.d[row, at], iso.lo[row, at], iso.hi[row, at]) for at in range(len(across))]
        add(table, count_words(n), *cells)
    return table


def _needed(d: float, lo: float, hi: float) -> str:
    if math.isnan(d):
        return "never"
    if math.isnan(lo):
        return count_words(d)
    ends = ["never" if math.isinf(end) else count_words(end) for end in (lo, hi)]
    return f"{count_words(d)} [{', '.join(ends)}]"


def _with_band(value: float, band: tuple[float, float] | None) -> str:
    return count_words(value) + (f" [{count_words(band[0])}, {count_words(band[1])}]" if band else "")


def _gain(values: Mapping[Axis, float], bands: Mapping[Axis, tuple[float, float]]) -> str:
    axis = next((axis for axis in AXES[2:] if axis in values), None)
    if axis is None:
        return "-"
    band = bands.get(axis)
    unit = "beams" if axis == "beams" else "FLOPs a query"
    return f"{_with_band(values[axis], band if band and band[0] != band[1] else None)} {unit}"


def _far(by: Answering, at: Configuration) -> str:
    return far(by.beyond(at.values))


def _verdict(by: Answering) -> str:
    return by.finding.verdict.word


def _notes(reply: Reply, asked: Inquiry) -> list[str]:
    """Verdicts that are no plain yes, edges of what was searched, and where costs come from."""
    best = [one for one in reply.answers if not isinstance(one, Prediction) or one.is_best]
    notes = [f"{one.by.title}: {one.by.warning}" for one in best if one.by.warning]
    for one in reply.answers:
        edges = one.optimum.edges if isinstance(one, Plan) else one.likely.edges if isinstance(one, Ways) else ()
        if edges:
            names = " and ".join(SYMBOLS[axis] for axis in edges)
            notes.append(f"{one.by.title}: {names} at the end of what was allowed")
        if isinstance(one, Ways) and one.sure is None and asked_probability(asked) and len(one.by.law.resampled):
            notes.append(f"{one.by.title}: nothing allowed reaches it with probability {asked_probability(asked):.0%}")
    if not isinstance(asked, Predict):
        for one in reply.answers:
            notes += [f"{one.by.name}: {line}".removeprefix(": ") for line in _cost_lines(one.costs, asked)]
    return list(dict.fromkeys(notes))


def asked_probability(asked: Inquiry) -> float:
    """Of a target; 0 of other questions."""
    return asked.probability if isinstance(asked, Reach) else 0.0


def _cost_lines(costs: Costs, asked: Inquiry) -> list[str]:
    if not costs.training.n_points:
        lines = [
            f"training FLOPs taken as {costs.training.text}: right where D counts tokens, else give --flops-per-nd"
        ]
    else:
        lines = [_cost_line("training FLOPs", costs.training)]
    queries = asked.queries if isinstance(asked, Spend | Reach) else 0.0
    return lines + ([_cost_line("inference FLOPs a query", costs.inference)] if queries and costs.inference else [])


def _cost_line(what: str, cost: Cost) -> str:
    return f"{what}: {cost.text} ({cost.basis})"
