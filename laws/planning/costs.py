"""What a configuration costs: training FLOPs, inference FLOPs a query and latency, sums of powers of N, D and beams.

Fitted to what the rows of a table say they took. Weights cost in proportion to N, and attention and the output layer
in proportion to the width, which grows as the square root of N:

    training FLOPs            D (a N + b N^1/2)
    inference FLOPs a query   a N + b N^1/2 + beams (c N + e N^1/2)
    latency                   a + b N + beams (c + e N)

with no coefficient below zero and the sum of squared relative errors the least. Where a table says nothing of FLOPs,
training costs a constant times N D, by default the 6 of Kaplan et al. 2020, which counts D in tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from laws.forms import SYMBOLS, Array, Axis

Term = tuple[tuple[Axis, float], ...]
"""A product of powers; empty: a constant."""
Values = Mapping[Axis, Array | float]

TRAINING: tuple[Term, ...] = ((("n", 1.0), ("d", 1.0)), (("n", 0.5), ("d", 1.0)))
INFERENCE: tuple[Term, ...] = (
    (("n", 1.0),),
    (("n", 0.5),),
    (("n", 1.0), ("beams", 1.0)),
    (("n", 0.5), ("beams", 1.0)),
)
LATENCY: tuple[Term, ...] = ((), (("n", 1.0),), (("beams", 1.0),), (("n", 1.0), ("beams", 1.0)))
FLOPS_PER_ND = 6.0
LEAST_SIZES = 2
"""Distinct N that terms in the square root of N need: with fewer nothing tells them from those in N."""
NOTHING = 1e-9
"""A term that is no more than this share of the cost is rounding."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """A cost as a sum of non-negative multiples of terms."""

    terms: tuple[Term, ...]
    coefficients: tuple[float, ...]
    unit: str
    n_points: int = 0
    """Rows that it was fitted to; 0 where it is assumed."""
    typical_error: float = 0.0
    """Median of |cost / measured - 1| over the rows."""
    worst_error: float = 0.0

    def at(self, values: Values) -> Array:
        """The cost where the axes have these values (all of one shape, or numbers)."""
        shape = np.broadcast_shapes(*(np.shape(value) for value in values.values()))
        total = np.zeros(shape)
        for term, coefficient in zip(self.terms, self.coefficients, strict=True):
            if coefficient:
                total = total + coefficient * _power(term, values)
        return total

    @property
    def text(self) -> str:
        """`5.9 N D + 120 N^0.5 D`."""
        parts = [
            " ".join([f"{coefficient:.3g}", *(_factor(axis, power) for axis, power in term)])
            for term, coefficient in zip(self.terms, self.coefficients, strict=True)
            if coefficient
        ]
        return " + ".join(parts) or "0"

    @property
    def basis(self) -> str:
        """What it stands on, in words."""
        if not self.n_points:
            return "assumed"
        return f"{self.n_points} rows, within {self.typical_error:.1%} typically and {self.worst_error:.1%} at worst"


@dataclass(frozen=True, kw_only=True)
class Costs:
    """All that is known of what a configuration costs. Training is linear in D."""

    training: Cost
    inference: Cost | None = None
    """A query; None where it is not known."""
    latency: Cost | None = None
    """Milliseconds a query."""

    def per_pair(self, n: Array) -> Array:
        """Training FLOPs of one unit of D."""
        return self.training.at({"n": n, "d": 1.0})


def assumed_training(per_nd: float = FLOPS_PER_ND) -> Cost:
    """A constant times N D."""
    return Cost(terms=TRAINING[:1], coefficients=(per_nd,), unit="FLOPs")


def compute_itself() -> Cost:
    """Of a table whose budget axis is the inference FLOPs a query."""
    return Cost(terms=((("c", 1.0),),), coefficients=(1.0,), unit="FLOPs a query")


def fit_cost(terms: tuple[Term, ...], values: Mapping[Axis, Array], measured: Array, unit: str) -> Cost | None:
    """The non-negative coefficients with the least squared relative errors; None where no row was measured.

    Args:
        values: axis -> its value at each row (rows,).
        measured: (rows,); rows without a positive finite number are left out.
    """
    known = np.isfinite(measured) & (measured > 0)
    if not known.any():
        return None
    rows = {axis: np.asarray(column, dtype=float)[known] for axis, column in values.items()}
    if len(np.unique(rows["n"])) < LEAST_SIZES:
        terms = tuple(term for term in terms if dict(term).get("n", 1.0) == 1.0)
    relative = np.stack([_power(term, rows) * np.ones(known.sum()) / measured[known] for term in terms], axis=1)
    scale = np.sqrt((relative**2).mean(axis=0))
    scaled, _ = nnls(relative / scale, np.ones(len(relative)))
    scaled[scaled < NOTHING] = 0.0
    errors = np.abs(relative @ (scaled / scale) - 1)
    return Cost(
        terms=terms,
        coefficients=tuple(float(value) for value in scaled / scale),
        unit=unit,
        n_points=int(known.sum()),
        typical_error=float(np.median(errors)),
        worst_error=float(errors.max()),
    )


def fit_costs(
    n: Array,
    d: Array,
    beams: Array | None,
    train_flops: Array | None,
    infer_flops: Array | None = None,
    latency_ms: Array | None = None,
    per_nd: float | None = None,
) -> Costs:
    """Costs from the columns of a table, (rows,) each; `per_nd` overrides what it says of training."""
    by_training: dict[Axis, Array] = {"n": n, "d": d}
    training = None
    if per_nd is None and train_flops is not None:
        training = fit_cost(TRAINING, by_training, train_flops, "FLOPs")
    if training is None:
        training = assumed_training(FLOPS_PER_ND if per_nd is None else per_nd)
    inference = latency = None
    if beams is not None:
        by_search: dict[Axis, Array] = {"n": n, "beams": beams}
        if infer_flops is not None:
            inference = fit_cost(INFERENCE, by_search, infer_flops, "FLOPs a query")
        if latency_ms is not None:
            latency = fit_cost(LATENCY, by_search, latency_ms, "ms a query")
    return Costs(training=training, inference=inference, latency=latency)


def _power(term: Term, values: Values) -> Array:
    product = np.asarray(1.0)
    for axis, power in term:
        column = np.asarray(values[axis], dtype=float)
        product = product * (column if power == 1.0 else column**power)
    return product


def _factor(axis: Axis, power: float) -> str:
    return SYMBOLS.get(axis, axis.upper()) + ("" if power == 1.0 else f"^{power:g}")
