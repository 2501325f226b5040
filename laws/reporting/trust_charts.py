"""Charts of how far to trust a law: what it predicts of what was held out, and how sharply its parameters are known."""

import math

import numpy as np

from laws.reporting.answers import value_name
from laws.reporting.charts import Chart, Dots, Rule, Scale, plain_scale, spread
from laws.reporting.palette import LAW, POINT
from laws.reporting.words import family_name, number, percent
from laws.study import Finding
from laws.trust.holdouts import HoldOut


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
            title="held out",
            limits=(0.5, len(held) + 0.5),
            ticks=tuple((float(index), one.what.removeprefix("the ")) for index, one in zip(at, held, strict=True)),
            is_log=False,
        ),
        y=plain_scale(f"predicted − measured {value_name(finding)}, %", spread(ends), is_log=False),
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
