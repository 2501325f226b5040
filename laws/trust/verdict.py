"""How far to trust a law, in words.

    supported        clearly more distinct points than parameters, on four values or more of each axis; beats the
                     mean (F test), predicts left-out and held-out points well, leaves residuals without structure;
                     no parameter runs to its edge, and no rival form is far better
    weak             there is a trend, but one of those fails
    under-determined too few distinct points for the number of parameters: a curve through them proves nothing
    no law           at chance, not falling, or no better than the mean

All thresholds stand here, and each verdict says which of them decided.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import f as f_distribution
from scipy.stats import kendalltau

from laws.fitting import Law
from laws.forms import SYMBOLS, Form
from laws.points import Points, label, short
from laws.trust.comparison import Comparison
from laws.trust.holdouts import LEAST_VALUES, HoldOut, hold_outs
from laws.trust.residuals import independent, null_model
from laws.trust.structure import Structure, structure

Word = Literal["supported", "weak", "under-determined", "no law"]

CLEAR_VALUES = 4
"""Values on an axis that leave something over once its exponent and amplitude are fixed."""
FEW_PER_PARAMETER = 1.5
CLEAR_PER_PARAMETER = 2.0
"""Distinct points a parameter: below the first under-determined, below the second at most weak."""
SIGNIFICANCE = 0.01
"""Of the F test against the mean. It is made for linear models; a curve follows noise a little better than a line."""
STRUCTURE = {1: 0.1, 2: 0.05}
"""Of the test for structure in the residuals, by the number of axes: with one, few points are left to show it."""
LACK_OF_FIT = 0.05
"""Of the F test of the residuals against the scatter of seeds."""
SURPRISE = 0.01
"""A held-out mean that is less likely than this, were the law true, contradicts it."""
CLEAR_SKILL = 0.8
"""Share of the variance of left-out points that the law must predict."""
FAR = 10.0
"""AICc by which a rival form must be better to leave a law no support (Burnham and Anderson 2002)."""
CHANCE_TOLERANCE = 0.002
"""A value without an interval is at chance within this share of it."""
LEAST_FALL = 0.3
"""Kendall's rank correlation of a single axis with the loss must be at least this far below zero."""
WIDE = 3.0
"""An exponent whose interval spans more than this factor is not known."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One word and the reason for it."""

    word: Word
    reason: str


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a law was tested by."""

    holdouts: tuple[HoldOut, ...]
    structure: Structure | None
    """None where too few degrees of freedom are left to show any."""
    comparison: Comparison | None = None
    """None where it was compared with nothing but the mean."""
    caveats: tuple[str, ...] = ()
    """What stands in the way of reading the law as one of its axes; each allows `weak` at most."""


def evidence(law: Law, points: Points, comparison: Comparison | None = None, caveats: Sequence[str] = ()) -> Evidence:
    """Test a law by hold-outs and by the structure of its residuals."""
    return Evidence(
        holdouts=hold_outs(law.form, points, law.options),
        structure=structure(law, points, law.options.seed),
        comparison=comparison,
        caveats=tuple(caveats),
    )


def too_few(form: Form, points: Points) -> Verdict | None:
    """The verdict where not even a curve can be drawn: an axis with fewer than three values, or at chance."""
    if not len(points):
        return Verdict(word="no law", reason="no usable point")
    for axis in form.axes:
        values = np.unique(points.axis(axis))
        if len(values) < LEAST_VALUES:
            shown = ", ".join(short(value) for value in values)
            count = "one value" if len(values) == 1 else f"{len(values)} values"
            return Verdict(
                word="under-determined", reason=f"only {count} of {SYMBOLS[axis]} ({shown}), three are the least"
            )
    return None


def judge(law: Law, points: Points, tested: Evidence | None = None) -> Verdict:
    """The verdict on a law fitted to these points, tested here where it was not tested before."""
    return refused(law, points) or _weak(law, points, tested or evidence(law, points)) or _supported(law)


def refused(law: Law, points: Points) -> Verdict | None:
    """The verdict where there is nothing to test: `no law` or `under-determined`."""
    return _no_signal(law, points) or _no_better_than_mean(law, points) or _under_determined(law)


def at_chance(points: Points) -> bool:
    """Whether no point is better than chance; False where chance is unknown.

    The published CGL knows no "better than chance": its line holds for one relevant identifier, and the least over
    several lies below it whatever was learned. Of it this only says whether every point lies on the line.
    """
    if not math.isfinite(points.chance):
        return False
    if points.metric == "cgl_published":
        return _on_the_line(points)
    lower = points.y * 0 - math.inf if points.hi is None else points.hi
    better_by_interval = lower < points.chance
    better_by_value = points.y < points.chance * (1 - CHANCE_TOLERANCE)
    known = np.zeros(len(points), dtype=bool) if points.hi is None else np.isfinite(points.hi)
    return not np.where(known, better_by_interval, better_by_value).any()


def _on_the_line(points: Points) -> bool:
    near = np.abs(points.y - points.chance) <= CHANCE_TOLERANCE * points.chance
    if points.lo is not None and points.hi is not None:
        near |= (points.lo <= points.chance) & (points.chance <= points.hi)
    return bool(near.all())


def _no_signal(law: Law, points: Points) -> Verdict | None:
    if at_chance(points):
        told = "every value is at" if points.metric == "cgl_published" else "no value is better than"
        return Verdict(word="no law", reason=f"{told} chance ({points.chance:.4g})")
    if np.ptp(points.y) <= 1e-9 * np.abs(points.y).max():
        return Verdict(word="no law", reason="all values are equal")
    if len(law.form.axes) == 1:
        axis = law.form.axes[0]
        values, means = points.means(axis)
        tau = kendalltau(values, means).statistic
        if tau <= -LEAST_FALL and means[-1] < means[0]:
            return None
        name = label(points.metric, points.quantity)
        return Verdict(word="no law", reason=f"{name} does not fall with {SYMBOLS[axis]} (rank correlation {tau:+.2f})")
    return None


def _under_determined(law: Law) -> Verdict | None:
    count, needed = law.n_distinct, len(law.parameters)
    if count <= needed:
        return Verdict(
            word="under-determined",
            reason=f"an interpolation: {count} distinct points, {needed} parameters, nothing is left to check the fit",
        )
    if count < FEW_PER_PARAMETER * needed:
        return Verdict(
            word="under-determined",
            reason=f"{count} distinct points, {needed} parameters: a good fit proves little",
        )
    return None


def p_value(law: Law, points: Points) -> float:
    """Of the F test of the law against the mean; 1 where no degree of freedom is left.

    Where trainings are what counts, only the parameters count that it takes trainings to tell of: a gain from beams
    shows within each.
    """
    parameters = _decided(law)
    extra, left = parameters - 1, independent(law, points) - parameters
    share = null_model(law, points).explained
    if left < 1:
        return 1.0
    if share >= 1:
        return 0.0
    return float(f_distribution.sf(max(share, 0) / extra / ((1 - share) / left), extra, left))


def _decided(law: Law) -> int:
    """Parameters that the independent values decide: see `independent`."""
    return len(law.parameters) - len(law.form.of_budget)


def _no_better_than_mean(law: Law, points: Points) -> Verdict | None:
    if law.n_distinct < FEW_PER_PARAMETER * len(law.parameters) and _always_falls(law, points):
        return None  # too few points for the test to have any power: see `_under_determined`
    chance, share = p_value(law, points), null_model(law, points).explained
    if chance > SIGNIFICANCE:
        return Verdict(
            word="no law", reason=f"no better than the mean of the points (F test p = {chance:.2g}, R² {share:.2f})"
        )
    return None


def _always_falls(law: Law, points: Points) -> bool:
    """Whether there are no degrees of freedom to test, or the loss falls at every step along the only axis."""
    if independent(law, points) <= _decided(law):
        return True
    if len(law.form.axes) > 1:
        return False
    _, means = points.means(law.form.axes[0])
    return bool((np.diff(means) < 0).all())


def _weak(law: Law, points: Points, tested: Evidence) -> Verdict | None:
    doubts = [
        *_few(law, points),
        *_unpredicted(law, tested),
        *_structured(law, tested.structure),
        *_loose(law),
        *beaten(law, points, tested.comparison),
        *tested.caveats,
    ]
    return Verdict(word="weak", reason="; ".join(doubts)) if doubts else None


def _few(law: Law, points: Points) -> list[str]:
    doubts = []
    if law.n_distinct < CLEAR_PER_PARAMETER * len(law.parameters):
        doubts.append(f"{law.n_distinct} distinct points are few for {len(law.parameters)} parameters")
    axes = [axis for axis in law.form.axes if axis != "family"]
    short_axes = [SYMBOLS[axis] for axis in axes if len(np.unique(points.axis(axis))) < CLEAR_VALUES]
    if short_axes:
        doubts.append(f"with three values of {' and '.join(short_axes)} nothing is left to check the exponent")
    return doubts


def _unpredicted(law: Law, tested: Evidence) -> list[str]:
    doubts = []
    if law.leave_out is None:
        doubts.append("no point can be left out to test it")
    elif law.leave_out.skill < CLEAR_SKILL:
        doubts.append(f"it predicts left-out points badly (skill {law.leave_out.skill:.2f} of 1)")
    for held in tested.holdouts:
        if held.p is not None and held.p < SURPRISE:
            doubts.append(
                f"fitted without {held.what} it predicts {held.predicted:.4g} there, "
                f"and {held.measured:.4g} was measured (p = {held.p:.2g})"
            )
    return doubts


def _structured(law: Law, found: Structure | None) -> list[str]:
    if found is None:
        return []
    doubts = []
    if found.p < STRUCTURE[min(len(law.form.axes), max(STRUCTURE))]:
        doubts.append(
            f"its residuals are no noise: {found.what} explains {found.share:.0%} of them (p = {found.p:.2g})"
        )
    if found.lack_of_fit is not None and found.lack_of_fit < LACK_OF_FIT:
        doubts.append(f"it misses the points by more than their seeds scatter (p = {found.lack_of_fit:.2g})")
    return doubts


def _loose(law: Law) -> list[str]:
    """Parameters that the points do not hold; a floor that is not there is none of them."""
    doubts = [limit for limit in law.limits if not limit.startswith("the floor")]
    for parameter in law.parameters:
        if parameter.name not in law.form.exponents or parameter.lo is None or parameter.hi is None:
            continue
        if parameter.open_below or parameter.open_above:
            side = "above" if parameter.open_above else "below"
            doubts.append(f"{parameter.name} has no end {side}")
        elif parameter.name not in law.form.signed and parameter.hi > WIDE * parameter.lo:
            factor = parameter.hi / parameter.lo if parameter.lo > 0 else math.inf
            doubts.append(f"{parameter.name} is known only to a factor of {factor:.2g}")
    return doubts


def beaten(law: Law, points: Points, comparison: Comparison | None) -> list[str]:
    """That a rival form is far better, in words; empty where none is."""
    if comparison is None:
        return []
    behind = comparison.of(law.form, points.quantity).aicc - comparison.best.aicc
    if math.isfinite(behind) and behind > FAR:
        return [f"the {comparison.best.name} form describes the points far better (AICc lower by {behind:.0f})"]
    return []


def _supported(law: Law) -> Verdict:
    assert law.leave_out is not None
    return Verdict(
        word="supported",
        reason=f"{law.n_distinct} distinct points for {len(law.parameters)} parameters; left-out points predicted "
        f"with skill {law.leave_out.skill:.2f} of 1",
    )
