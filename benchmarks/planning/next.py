"""What to run next against the cheapest first and against a random order, on known truths with noise.

A grid of six N and six D, of which the trials with the four smallest N and the three smallest D are done. The target
has ten times the grid's largest N, and its largest D. For each budget of FLOPs each way chooses trials, their outcomes
are measured (the truth, times exp of noise), the law is fitted to all that is measured then, and the width of its band
at the target is taken. Widths are geometric means over noises; the random order is one for each noise. A row says how
many FLOPs a way needs until the width is a share of what it was, interpolated between budgets in logarithms.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from benchmarks.laws.truths import formula
from benchmarks.rows import Options, Row, cost
from laws.fitting import Law, fit
from laws.fitting.options import Options as FitOptions
from laws.forms import Additive, Array, Form, Joint
from laws.planning.design import design_of
from laws.planning.next import choose, field_of
from laws.points import Points

N, D = np.geomspace(1e6, 3e8, 6), np.geomspace(1e5, 1e7, 6)
DONE_N, DONE_D = 4, 3
TARGET = (10 * N[-1], D[-1])
NOISE = 0.01
PETA = 1e15
SHARES = (0.5, 0.25)
"""Of the width before, that rows are about."""
WAYS = ("chosen", "cheapest first", "random order")
TRUTHS: dict[str, tuple[Form, dict[str, float]]] = {
    "additive": (Additive(), {"E": 1.0, "A": 200.0, "alpha": 0.35, "B": 300.0, "beta": 0.4}),
    "joint": (Joint(), {"delta": 0.5, "A": 1e4, "alpha": 0.35, "B": 1e5, "beta": 0.3}),
}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One cell of the grid as a candidate."""

    number: int
    flops: float

    @property
    def trial(self) -> str:
        """Its name."""
        return str(self.number)

    @property
    def run(self) -> str:
        """Each cell is a training."""
        return str(self.number)

    @property
    def steps(self) -> dict[str, float]:
        """One, its training."""
        return {self.run: self.flops}


@dataclass(frozen=True)
class Sweep:
    """The grid measured once, of which a part is done."""

    form: Form
    truth: dict[str, float]
    seed: int
    bootstraps: int

    @cached_property
    def axes(self) -> tuple[Array, Array]:
        """N and D of every cell."""
        n, d = (column.ravel() for column in np.meshgrid(N, D, indexing="ij"))
        return n, d

    @cached_property
    def flops(self) -> Array:
        """Of every cell."""
        return 6 * self.axes[0] * self.axes[1]

    @cached_property
    def done(self) -> NDArray[np.int64]:
        """Numbers of the cells that are done."""
        n, d = self.axes
        return np.flatnonzero((n < N[DONE_N] * 0.99) & (d < D[DONE_D] * 0.99))

    @cached_property
    def left(self) -> NDArray[np.int64]:
        """Numbers of the others."""
        return np.setdiff1d(np.arange(len(self.flops)), self.done)

    @cached_property
    def measured(self) -> Array:
        """What every cell would give."""
        noise = np.random.default_rng(self.seed).standard_normal(len(self.flops))
        n, d = self.axes
        return formula(self.form, self.truth, {"n": n, "d": d}) * np.exp(NOISE * noise)

    def law(self, more: Sequence[int], bootstraps: int) -> Law:
        """Fitted to what is done and more."""
        return fit(self.form, self.points(more), FitOptions(loss="relative", bootstraps=bootstraps, seed=self.seed))

    def points(self, more: Sequence[int]) -> Points:
        """Of what is done and more."""
        there = np.sort(
            np.concatenate([self.done, np.array(more, dtype=int)])
        )  # in one order: equal cells, equal bands
        n, d = self.axes
        return Points(n=n[there], d=d[there], y=self.measured[there], run=tuple(map(str, there)))

    def width(self, more: Sequence[int]) -> float:
        """Of the band at the target."""
        band = self.law(more, self.bootstraps).band([np.array([value]) for value in TARGET])
        assert band is not None
        return float(band[1][0] - band[0][0])

    def way(self, name: str) -> Callable[[float], Sequence[int]]:
        """From a budget to the cells that are run with it."""
        if name == "chosen":
            return self._chosen()
        if name == "cheapest first":
            order = self.left[np.argsort(self.flops[self.left])]
        else:
            order = np.random.default_rng(1000 + self.seed).permutation(self.left)
        return lambda budget: order[np.cumsum(self.flops[order]) <= budget].tolist()

    def _chosen(self) -> Callable[[float], Sequence[int]]:
        law = self.law((), 0)
        cells = [Trial(number=int(number), flops=float(self.flops[number])) for number in self.left]
        axes = [axis[self.left] for axis in self.axes]
        field = field_of(law, design_of(law, self.points(()), TARGET), cells, axes)
        return lambda budget: [int(one.cell.trial) for one in choose([field], flops=budget)]


@dataclass(frozen=True, kw_only=True)
class Race:
    """Widths (budgets,) of each way, as shares of the width before; the budgets in FLOPs."""

    name: str
    budgets: Array
    widths: dict[str, Array]

    def needed(self, way: str, share: float) -> float:
        """FLOPs until the width is that share of what it was; infinite where no budget is enough."""
        width = np.minimum.accumulate(self.widths[way])
        if width[-1] > share:
            return float("inf")
        at = int(np.argmax(width <= share))
        if at == 0:
            return float(self.budgets[0])
        x, y = np.log(self.budgets[at - 1 : at + 1]), np.log(width[at - 1 : at + 1])
        return float(np.exp(np.interp(np.log(share), y[::-1], x[::-1])))

    def mean(self, way: str) -> float:
        """The geometric mean of its widths over the budgets."""
        return float(np.exp(np.log(self.widths[way]).mean()))


def race(name: str, *, noises: int, budgets: int, bootstraps: int) -> Race:
    """All ways on one truth."""
    form, truth = TRUTHS[name]
    sweeps = [Sweep(form, truth, seed, bootstraps) for seed in range(noises)]
    total = float(sweeps[0].flops[sweeps[0].left].sum())
    spent = np.geomspace(total / 1000, total * (1 + 1e-9), budgets)
    before = [sweep.width(()) for sweep in sweeps]
    widths = {}
    for way in WAYS:
        shares = []
        for sweep, width in zip(sweeps, before, strict=True):
            cells = sweep.way(way)
            shares.append([sweep.width(cells(budget)) / width for budget in spent])
        widths[way] = np.exp(np.log(np.array(shares)).mean(axis=0))
    return Race(name=name, budgets=spent, widths=widths)


def measure(options: Options) -> Iterator[Row]:
    """Rows of both truths, and the figure where a folder is given for it."""
    size = {"noises": 3, "budgets": 6, "bootstraps": 100} if options.quick else {
        "noises": 16, "budgets": 12, "bootstraps": 400,
    }  # fmt: skip
    races = []
    for name in TRUTHS:
        found = race(name, **size)
        races.append(found)
        for other in WAYS[1:]:
            for share in SHARES:
                yield cost(
                    f"{name} law: to narrow the band to {share:.0%}, against {other}",
                    found.needed("chosen", share) / PETA,
                    "PFLOPs",
                    found.needed(other, share) / PETA,
                    1.0,
                )
            yield cost(
                f"{name} law: mean width over budgets, against {other}",
                found.mean("chosen"),
                "of the width before",
                found.mean(other),
                1.0,
            )
    if options.figures is not None:
        from benchmarks.planning.drawing import draw

        draw(races, options.figures / "next.png")
