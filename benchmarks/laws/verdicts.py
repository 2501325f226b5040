"""Are verdicts right? On pure noise, on true laws with 1% noise, and on laws with a hidden break.

The grids are those of `benchmarks.laws.truths`. A break changes the middle of an axis: the exponents are multiplied
from there on (by 0 for a plateau), or the loss drops by a sixth. A break that a law without it follows to within the
noise is not hidden but absent, and is left out: see `VISIBLE`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.laws.truths import TRUTHS, Truth, formula
from benchmarks.rows import Options, Row, at_least
from laws.fitting import Options as FitOptions
from laws.fitting import fit
from laws.forms import SYMBOLS, Additive, Array, Axis, Joint, PowerLaw
from laws.points import Points
from laws.trust.verdict import Word, judge

REPEATS, SEVERAL = 200, 50
"""Of noise, and of laws that take longer to test."""
NOISE = 0.01
VISIBLE = 50.0
"""Sum of squares by which the best law must miss the broken one, in units of the noise's square."""
BARE = FitOptions(bootstraps=0, intervals=False, starts=24)
WHOLE = FitOptions(bootstraps=60, starts=24)
PLAIN = (PowerLaw, Additive, Joint)


@dataclass(frozen=True, kw_only=True)
class Break:
    """What happens in the middle of an axis."""

    name: str
    pace: float = 1.0
    """What exponents are multiplied with from there on."""
    drop: float = 1.0
    """What the loss is multiplied with from there on."""

    def values(self, truth: Truth, axis: Axis) -> Array:
        """The truth with the break along an axis."""
        columns = truth.columns()
        x = columns[axis]
        middle = float(np.sqrt(x.min() * x.max())) * 1.1  # between two values, not on one
        bent = columns | {axis: np.where(x <= middle, x, middle * (x / middle) ** self.pace)}
        return formula(truth.form, truth.parameters, bent) * np.where(x > middle, self.drop, 1.0)


BREAKS = (
    Break(name="plateau", pace=0.0),
    Break(name="slower", pace=0.3),
    Break(name="faster", pace=2.5),
    Break(name="step", drop=5 / 6),
)


def measure(options: Options) -> Iterator[Row]:
    """Shares of repeats in which the verdict is what it should be."""
    repeats, several = (2, 2) if options.quick else (REPEATS, SEVERAL)
    truths = [truth for truth in TRUTHS if isinstance(truth.form, PLAIN) or not options.quick]
    for truth in truths:
        share = _share(truth, _noise, "no law", repeats, BARE)
        yield at_least(f"pure noise is no law: {_name(truth)}", share, f"share of {repeats}", 0.95)
    for truth in truths:
        share = _share(truth, lambda one, rng: _noisy(one.values(), rng), "supported", several, WHOLE)
        yield Row(name=f"a true law is supported: {_name(truth)}", value=share, unit=f"share of {several}")
    for truth in truths[: 1 if options.quick else None]:
        for axis in truth.form.axes if isinstance(truth.form, PLAIN) else ():
            for kind in BREAKS:
                yield from _broken(truth, axis, kind, several)


def _name(truth: Truth) -> str:
    return f"{truth.form.name} over {', '.join(SYMBOLS[axis] for axis in truth.form.axes)}"


def _broken(truth: Truth, axis: Axis, kind: Break, repeats: int) -> Iterator[Row]:
    clean = kind.values(truth, axis)
    points = truth.points(clean)
    law = fit(truth.form, points, BARE)
    missed = law.predict([points.axis(each) for each in truth.form.axes]) / clean - 1
    if float((missed**2).sum()) >= VISIBLE * NOISE**2:
        share = 1 - _share(truth, lambda _, rng: _noisy(clean, rng), "supported", repeats, WHOLE)
        name = f"a hidden break is not supported: {_name(truth)}, {kind.name} in {SYMBOLS[axis]}"
        yield Row(name=name, value=share, unit=f"share of {repeats}")


def _share(
    truth: Truth, draw: Callable[[Truth, np.random.Generator], Array], word: Word, repeats: int, options: FitOptions
) -> float:
    words = []
    for seed in range(repeats):
        points: Points = truth.points(draw(truth, np.random.default_rng(seed)))
        words.append(judge(fit(truth.form, points, options), points).word)
    return words.count(word) / repeats


def _noise(truth: Truth, rng: np.random.Generator) -> Array:
    return 4 + 0.1 * rng.standard_normal(len(truth.values()))


def _noisy(clean: Array, rng: np.random.Generator) -> Array:
    return clean * (1 + NOISE * rng.standard_normal(len(clean)))
