"""Charts of how far to trust a law: what it predicts of what was held out, and how sharply its parameters are known."""

import math

import numpy as np

from laws.fitting import Profile
from laws.reporting.charts import Array, Chart, Dots, Line, Mark, Rule, Scale, plain_scale, ratio_scale, spread
from laws.reporting.palette import CATEGORIES, LAW, POINT, SYMBOLS
from laws.reporting.words import family_name, greek, number, percent
from laws.study import Finding
from laws.trust.holdouts import HoldOut

FARTHEST = 100.0
"""Parameters are shown from a hundredth of their best value to a hundred times that."""
HIGHEST = 2.5
"""Of the rise that the interval allows."""


def hold_outs(finding: Finding, name: str) -> Chart:
    """Error of the prediction of what was held out, in per cent, with its interval; zero is what was measured."""
    held = finding.holdouts
    error = np.array([100 * one.error for one in held])
    lo, hi = (np.array([_off(one, end) for one in held]) for end in ("lo", "hi"))
    at = np.arange(1.0, len(held) + 1)
    inside = np.array([one.inside is not False for one in held])
    marks = [
        Dots(
            x=at[mask],
            y=error[mask],
            lo=lo[mask],
            hi=hi[mask],
            colour=POINT if is_inside else LAW,
            symbol="circle" if is_inside else "diamond",
            name="measured within the interval" if is_inside else "outside",
            hover=tuple(_told(one) for one, stays in zip(held, mask, strict=True) if stays),
        )
        for is_inside, mask in ((True, inside), (False, ~inside))
        if mask.any()
    ]
    ends = [*error, *lo[np.isfinite(lo)], *hi[np.isfinite(hi)], 0.0]
    family = family_name(finding.group.family)
    return Chart(
        name=name,
        title=f"Held out, {family}",
        alt=f"{finding.title}: errors of predictions of what was held out: "
        + "; ".join(f"{one.what}: {percent(one.error)}" for one in held),
        x=Scale(
            title="without the largest",
            limits=(0.5, len(held) + 0.5),
            ticks=tuple((float(index), one.axis) for index, one in zip(at, held, strict=True)),
            is_log=False,
        ),
        y=plain_scale("predicted − measured, %", spread(ends), is_log=False),
        marks=(Rule(at=0.0, colour="ink", dash="solid"), *marks),
    )


def _off(held: HoldOut, end: str) -> float:
    value = getattr(held, end)
    return math.nan if value is None or not held.measured else 100 * (value - held.measured) / held.measured


def _told(held: HoldOut) -> str:
    line = f"without {held.what}<br>predicted {number(held.predicted)}"
    if held.lo is not None and held.hi is not None:
        line += f" ({number(held.lo, 3)} to {number(held.hi, 3)})"
    return f"{line}<br>measured {number(held.measured)}, error {percent(held.error)}"


def profiles(finding: Finding, name: str) -> Chart | None:
    """How the misfit rises as each parameter leaves its best value, all others fitted again; None where none is known.

    The rise is in units of what the interval allows, so that every curve crosses 1 at the ends of its interval.
    """
    marks: list[Mark] = []
    reach: list[float] = []
    for index, one in enumerate(finding.profiles):
        found = _relative(one, one.name in finding.form.signed)
        if found is not None:
            (x, rise, ends), letter = found, greek(one.name)
            hover = tuple(f"{letter} = {number(float(value))}" for value in one.values)
            colour, symbol = CATEGORIES[index % len(CATEGORIES)], SYMBOLS[index % len(SYMBOLS)]
            near = (x > 1 / FARTHEST) & (x < FARTHEST) & (rise < HIGHEST)
            told = tuple(line for line, stays in zip(hover, near, strict=True) if stays)
            marks.append(Line(x=x[near], y=rise[near], colour=colour, width=1.3, belongs_to=letter))
            marks.append(Dots(x=x[near], y=rise[near], colour=colour, symbol=symbol, size=2.6, name=letter, hover=told))
            reach += [end for end in ends if 1 / FARTHEST < end < FARTHEST]
    if not marks:
        return None
    widest = min(max([*reach, *(1 / end for end in reach), 1.2]), FARTHEST) ** 1.3
    family = family_name(finding.group.family)
    interval = f"{finding.law.options.interval:.0%}" if finding.law else ""
    return Chart(
        name=name,
        title=f"Profiles, {family}",
        alt=f"{finding.title}: how the misfit rises as each of {len(finding.profiles)} parameters leaves its best "
        "value; a steep curve is a parameter that is known well.",
        x=ratio_scale("value / best value", (1 / widest, widest)),
        y=plain_scale("rise of the misfit", (0.0, HIGHEST), is_log=False),
        marks=(Rule(at=1.0, text=f"{interval} interval", colour="ink", dash="dash"), *marks),
    )


def _relative(one: Profile, is_signed: bool) -> tuple[Array, Array, tuple[float, float]] | None:
    """Values over the best one, the rise of the objective over what the interval allows, and the interval's ends."""
    lowest = int(np.argmin(one.objective))
    rise = one.objective - one.objective[lowest]
    best = one.values[lowest]
    allowed = [
        float(np.interp(end, one.values, rise))
        for end, is_open in ((one.lo, one.open_below), (one.hi, one.open_above))
        if not is_open and one.values[0] <= end <= one.values[-1]
    ]
    if not allowed or min(allowed) <= 0 or not (is_signed or best > 0):
        return None

    def ratio(values: Array) -> Array:
        return np.exp(np.clip(values - best, -50, 50)) if is_signed else values / best

    ends = ratio(np.array([one.lo, one.hi]))
    return ratio(one.values), rise / float(np.mean(allowed)), (float(ends[0]), float(ends[1]))
