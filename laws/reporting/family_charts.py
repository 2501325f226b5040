"""Charts of several families, or of several budgets, at once."""

from collections.abc import Sequence

import numpy as np

from laws.points import comparable, describe, label, short
from laws.reporting.answers import Answer
from laws.reporting.charts import Array, Band, Chart, Dots, Line, Mark, Rule, Scale, value_scale
from laws.reporting.law_charts import AXIS_NAMES, GRID, common_range, dash_of, loss_scale, told
from laws.reporting.palette import category, ordered
from laws.reporting.words import family_name
from laws.tables import Baseline, Measured, Trial


def against(named: Sequence[tuple[str, Answer]], name: str) -> Chart:
    """The same law along one axis of several families: points, curves and bands in one chart."""
    findings = [answer.best for _, answer in named]
    held = {describe(finding.held) for finding in findings}
    shared = held.pop() if len(held) == 1 else ""
    names = [each if shared else f"{each} {answer.held}" for each, answer in named]
    axis = findings[0].form.axes[0]
    marks: list[Mark] = []
    for each, finding in zip(names, findings, strict=True):
        colour, symbol = category(each, names)
        x = finding.points.axis(axis)
        if finding.law is not None:
            grid = np.geomspace(x.min() / 1.25, x.max() * 1.25, GRID)
            if (band := finding.law.band([grid])) is not None:
                marks.append(Band(x=grid, lo=band[0], hi=band[1], colour=colour, belongs_to=each))
            fitted = finding.law.predict([grid])
            marks.append(
                Line(x=grid, y=fitted, colour=colour, dash=dash_of(finding), belongs_to=each, hover=f"{each}, law")
            )
        points, hover = finding.points, tuple(f"{each}, {line}" for line in told(finding.points, finding))
        marks.append(
            Dots(
                x=x,
                y=points.y,
                lo=points.lo,
                hi=points.hi,
                colour=colour,
                symbol=symbol,
                name=each,
                hover=hover,
            )
        )
    return Chart(
        name=name,
        title=", ".join(filter(None, (named[0][1].title, shared))),
        alt=f"{named[0][1].title} of {' and '.join(names)}: points with intervals and fitted curves in one chart.",
        x=value_scale(AXIS_NAMES[axis], np.concatenate([one.points.axis(axis) for one in findings]), short),
        y=loss_scale(findings[0], common_range(findings)),
        marks=tuple(marks),
    )


def budgets(trials: Sequence[Trial], metric: str, baselines: Sequence[Baseline], name: str) -> Chart | None:
    """A metric against beams, a line for each N, at the largest D; None where there is but one number of beams."""
    rows, _, _ = comparable(trials, metric)
    largest = max((trial.d_pairs for trial in rows), default=0.0)
    rows = [trial for trial in rows if trial.d_pairs == largest]
    if len({trial.beams for trial in rows}) < 2:
        return None
    sizes = sorted({trial.n_params for trial in rows})
    marks: list[Mark] = [
        Rule(at=baseline.measured[metric].value, text=baseline.baseline)
        for baseline in baselines
        if baseline.measured[metric].known
    ]
    for size, colour in zip(sizes, ordered(len(sizes)), strict=True):
        marks += _budget_line([trial for trial in rows if trial.n_params == size], metric, colour, f"N {short(size)}")
    shown = label(metric).removeprefix("1 - ")
    ticks = tuple((value, f"{value:.1f}") for value in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
    return Chart(
        name=name,
        title=f"{family_name(rows[0].family)}, D = {short(largest)}",
        alt=f"{shown} of {family_name(rows[0].family)} against the number of beams, a line for each of {len(sizes)} "
        "sizes, with the baselines.",
        x=value_scale("beams", [trial.beams for trial in rows], short),
        y=Scale(title=shown, limits=(0.0, 1.02), ticks=ticks, is_log=False),
        marks=tuple(marks),
    )


def _budget_line(rows: Sequence[Trial], metric: str, colour: str, name: str) -> list[Mark]:
    beams = np.array(sorted({trial.beams for trial in rows}), dtype=float)
    cells = [[trial.measured[metric] for trial in rows if trial.beams == value] for value in beams]
    mean, lo, hi = (_means(cells, end) for end in ("value", "lo", "hi"))
    hover = tuple(
        f"{name}, {short(value)} beams<br>{at:.3f} ({below:.3f} to {above:.3f})"
        for value, at, below, above in zip(beams, mean, lo, hi, strict=True)
    )
    line = Line(x=beams, y=mean, colour=colour, width=1.4, belongs_to=name)
    return [line, Dots(x=beams, y=mean, lo=lo, hi=hi, colour=colour, size=4.0, name=name, hover=hover)]


def _means(cells: Sequence[Sequence[Measured]], end: str) -> Array:
    return np.array([np.mean([getattr(measured, end) for measured in cell]) for cell in cells])
