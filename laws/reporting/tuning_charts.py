"""Charts of tuned learning rates: what each costs, and where the best one goes as models grow."""

import math

import numpy as np

from laws.points import short
from laws.reporting.charts import Chart, Dots, Line, Mark, Rule, decade_scale, plain_scale, value_scale
from laws.reporting.law_charts import AXIS_NAMES
from laws.reporting.palette import LAW, POINT, ordered
from laws.reporting.words import family_name, number
from laws.tuning import METRICS, Attempt, Study, Transfer, best_rate

HEADROOM = 0.6
"""Of the range of trained losses: how much more is shown above it; what is worse is cut off."""


def losses(transfer: Transfer, name: str) -> Chart:
    """The loss against the learning rate, a line a size; hollow where a trial was stopped on its way."""
    trained = [one.dev_loss for study in transfer.studies for one in study.trained]
    span = max(trained) - min(trained) or 1.0
    limits = (min(trained) - 0.08 * span, max(trained) + HEADROOM * span)
    marks: list[Mark] = []
    for study, colour in zip(transfer.studies, ordered(len(transfer.studies)), strict=True):
        marks += _line(study, colour)
    if math.isfinite(chance := transfer.studies[0].chance) and limits[0] < chance < limits[1]:
        marks.append(Rule(at=chance, text="chance"))
    rates = [one.learning_rate for study in transfer.studies for one in study.attempts]
    metric = METRICS.get(transfer.studies[0].metric, "loss")
    family = family_name(transfer.studies[0].family)
    return Chart(
        name=name,
        title=family,
        alt=f"{metric} of the dev queries against the learning rate, for {len(transfer.studies)} sizes of {family}.",
        x=decade_scale("learning rate", (min(rates) / 1.3, max(rates) * 1.3), _rate),
        y=plain_scale(f"{metric} of dev queries", limits, is_log=False),
        marks=tuple(marks),
    )


def _line(study: Study, colour: str) -> list[Mark]:
    alike = [one for one in study.attempts if one.batch == study.chosen.batch]
    stopped = [one for one in alike if one.state == "stopped" and math.isfinite(one.dev_loss)]
    name = study.model if math.isnan(study.n_params) else f"N {short(study.n_params)}"
    marks: list[Mark] = []
    if study.parabola is not None:
        grid = np.geomspace(*study.parabola.within, 60)
        fitted = np.array([study.parabola.at(rate) for rate in grid])
        marks.append(Line(x=grid, y=fitted, colour=colour, width=1.2, belongs_to=name, hover=f"{name}, parabola"))
    marks.append(_dots(list(study.trained), study, colour, name=name, size=4.5))
    if stopped:
        marks.append(_dots(stopped, study, colour, size=4.0, is_hollow=True))
    return [*marks, _dots([study.chosen], study, LAW, symbol="star", size=5.0)]


def _dots(attempts: list[Attempt], study: Study, colour: str, *, name: str = "", **shape: object) -> Dots:
    return Dots(
        x=np.array([one.learning_rate for one in attempts]),
        y=np.array([one.dev_loss for one in attempts]),
        colour=colour,
        name=name,
        hover=tuple(
            f"{study.model}, rate {one.learning_rate:.2g}<br>{number(one.dev_loss)}, {one.state}" for one in attempts
        ),
        **shape,  # type: ignore[arg-type]
    )


def rates(transfer: Transfer, name: str) -> Chart | None:
    """The best rate against N, with its interval, and the fitted trend; None with fewer than two sizes."""
    known = [study for study in transfer.studies if math.isfinite(study.n_params)]
    if len(known) < 2:
        return None
    n, best = np.array([study.n_params for study in known]), np.array([best_rate(study) for study in known])
    chosen = np.array([study.chosen.learning_rate for study in known])
    lo = np.array([study.parabola.lo if study.parabola else math.nan for study in known])
    hi = np.array([study.parabola.hi if study.parabola else math.nan for study in known])
    trend = np.exp(np.log(best).mean() + transfer.slope * (np.log(n) - np.log(n).mean()))
    every = np.concatenate([best, chosen, trend, lo[np.isfinite(lo)], hi[np.isfinite(hi)]])
    family = family_name(transfer.studies[0].family)
    return Chart(
        name=name,
        title=family,
        alt=f"The best learning rate of {len(known)} sizes of {family} against N, with intervals and the fitted trend.",
        x=value_scale(AXIS_NAMES["n"], n, short),
        y=decade_scale("best learning rate", (float(every.min()) / 1.3, float(every.max()) * 1.3), _rate),
        marks=(
            Line(x=n, y=trend, colour="muted", dash="dash", width=1.2, name="trend"),
            Dots(x=n, y=best, lo=lo, hi=hi, colour=POINT, name="optimum"),
            Dots(x=n, y=chosen, colour=LAW, symbol="star", name="chosen"),
        ),
    )


def _rate(value: float) -> str:
    return f"{value:.0e}".replace("e-0", "e-")
