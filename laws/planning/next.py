"""What to run next: the cells that shrink the band at a target most for their FLOPs.

Cells are taken one at a time, each the one whose share of the remaining variance is largest for the FLOPs that it
still takes; steps that cells share, a training above all, are paid for once. Within a budget of FLOPs that order can
leave out one dear cell that is worth more than all cheap ones together, so the cells that are taken by variance alone
are tried too, and the better of both is the answer (Leskovec et al. 2007).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from laws.fitting import Law
from laws.forms import Array
from laws.planning.design import Design, sensitivities

WORTH = 0.1
"""With a number of cells to choose, one that alone takes less than this share of what the best takes is not worth its
place, however cheap it is."""
LEAST = 1e-4
"""Share of the variance below which a cell tells nothing."""


class Cell(Protocol):
    """A trial that could be run."""

    @property
    def trial(self) -> str:
        """Its name."""
        ...

    @property
    def run(self) -> str:
        """Its training."""
        ...

    @property
    def steps(self) -> Mapping[str, float]:
        """FLOPs of each step that is still to be done; cells may share steps."""
        ...


@dataclass(frozen=True, kw_only=True)
class Field:
    """The cells that tell of one law, and what is known of it."""

    law: Law
    design: Design
    cells: tuple[Cell, ...]
    rows: Array
    """(cells, p) gradients."""


def field_of(law: Law, design: Design, cells: Sequence[Cell], axes: Sequence[Array]) -> Field:
    """Cells of a law; `axes`: of its form, the cells' values (cells,)."""
    return Field(law=law, design=design, cells=tuple(cells), rows=sensitivities(law, axes))


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """One cell, in the order in which cells are worth running."""

    cell: Cell
    field: int
    """Which law it tells of."""
    flops: float
    """That it adds to the cells before it."""
    narrowing: float
    """The band of its law after it and all before it, as a share of what it is now."""


@dataclass
class _State:
    """How far the choice is. Changed in place: it lives within one function."""

    fields: list[Field]
    taken: set[str] = field(default_factory=set)
    paid: set[str] = field(default_factory=set)
    spent: float = 0.0
    chosen: list[Chosen] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    """Variances before any cell."""

    def price(self, cell: Cell) -> float:
        """FLOPs of the cell's steps that no cell before it has paid for."""
        return sum(flops for key, flops in cell.steps.items() if key not in self.paid)

    def take(self, at: int, number: int, flops: float) -> None:
        """Cell `number` of field `at`."""
        mine = self.fields[at]
        cell = mine.cells[number]
        design = mine.design.after(mine.rows[number], cell.run)
        self.fields[at] = replace(mine, design=design)
        self.taken.add(cell.trial)
        self.paid |= cell.steps.keys()
        self.spent += flops
        narrowing = math.sqrt(design.variance / self.first[at])
        self.chosen.append(Chosen(cell=cell, field=at, flops=flops, narrowing=narrowing))


def choose(fields: Sequence[Field], *, flops: float = math.inf, cells: int | None = None) -> tuple[Chosen, ...]:
    """The cells to run next, in order.

    Args:
        fields: laws with the cells that tell of them.
        flops: that they may take together.
        cells: how many at most; as many as tell anything where left out.
    """
    by_price = _greedy(fields, flops, cells, by_price=True)
    if math.isinf(flops):
        return tuple(by_price.chosen)
    by_worth = _greedy(fields, flops, cells, by_price=False)
    return tuple(min((by_price, by_worth), key=_left).chosen)


def _left(state: _State) -> float:
    """Sum over laws of the logarithm of what variance is left."""
    return sum(math.log(one.design.variance) for one in state.fields)


def _greedy(fields: Sequence[Field], flops: float, cells: int | None, *, by_price: bool) -> _State:
    state = _State(fields=list(fields), first=[one.design.variance for one in fields])
    worth = WORTH if cells is not None and math.isinf(flops) else 0.0
    while cells is None or len(state.chosen) < cells:
        best = _best(state, flops - state.spent, worth=worth, by_price=by_price)
        if best is None:
            break
        state.take(*best)
    return state


def _best(state: _State, left: float, *, worth: float, by_price: bool) -> tuple[int, int, float] | None:
    """Field, number and FLOPs of the cell to take next; None where none that is left is affordable and worth it."""
    offers = []
    for at, mine in enumerate(state.fields):
        if not mine.cells:
            continue
        shares = mine.design.reductions(mine.rows, [cell.run for cell in mine.cells]) / mine.design.variance
        for number in map(int, np.flatnonzero(shares > LEAST)):
            cell = mine.cells[number]
            price = state.price(cell)
            if cell.trial not in state.taken and price <= left:
                offers.append((-math.log1p(-min(float(shares[number]), 1 - 1e-12)), price, at, number))
    least = worth * max((gain for gain, *_ in offers), default=0.0)
    offers = [offer for offer in offers if offer[0] >= least]
    if not offers:
        return None
    key = (lambda offer: offer[0] / max(offer[1], 1.0)) if by_price else (lambda offer: offer[0])
    _, price, at, number = max(offers, key=key)
    return at, number, price
