"""Lines of equal quality over N, D and the inference budget, and how the best configuration moves with a budget."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from laws.fitting import Law
from laws.forms import Array, Axis
from laws.planning.costs import Costs
from laws.planning.curves import curve_of, ends, meet, quantile_of
from laws.planning.planner import FARTHEST, ROUGH, Optimum, best_for_budget
from laws.planning.space import Space


@dataclass(frozen=True, kw_only=True)
class IsoQuality:
    """The D at which each N and inference budget reach a value; NaN where none does."""

    target: float
    n: Array
    """(k,)"""
    gains: Array
    """(j,) of the law's inference budget; one NaN where it has none."""
    d: Array
    """(k, j)"""
    lo: Array
    hi: Array
    """(k, j) ends of the interval of D over the bootstraps; infinite where that share of them never reaches it, NaN
    where there are no bootstraps."""


def iso_quality(law: Law, target: float, n: Array, gains: Array | None = None, least_d: float = 1.0) -> IsoQuality:
    """Solve the law for D.

    Args:
        target: in the units that the law is fitted to.
        n: (k,); gains: (j,) beams or FLOPs a query, for a law over them.
        least_d: less than this is not looked for.
    """
    gain = next((axis for axis in law.form.axes if axis in ("beams", "c")), None)
    others: dict[Axis, Array] = {"n": np.asarray(n, dtype=float)[:, None]}
    if gain is not None:
        assert gains is not None
        others[gain] = np.asarray(gains, dtype=float)[None, :]
    farthest = least_d * FARTHEST
    d = meet(curve_of(law), target, others, least_d, farthest)
    lo = hi = np.full(d.shape, np.nan)
    if len(law.resampled):
        # D_b <= d where bootstrap b is at the target by d: a quantile of D is where that quantile of values meets it
        low, high = ends(law.options.interval)
        met = [meet(quantile_of(law, share), target, others, least_d, farthest, ROUGH) for share in (low, high)]
        lo, hi = (np.where(np.isnan(one), np.inf, one) for one in met)
    return IsoQuality(
        target=target,
        n=others["n"][:, 0],
        gains=np.array([np.nan]) if gain is None else others[gain][0],
        d=d.reshape(len(n), -1),
        lo=lo.reshape(len(n), -1),
        hi=hi.reshape(len(n), -1),
    )


def frontier(law: Law, costs: Costs, space: Space, budgets: Sequence[float], queries: float = 0.0) -> list[Optimum]:
    """The best configuration for each budget of FLOPs that allows any."""
    found = (best_for_budget(law, costs, space, budget, queries) for budget in budgets)
    return [optimum for optimum in found if optimum is not None]


def trade_off(law: Law, costs: Costs, space: Space, budget: float, queries: Sequence[float]) -> list[Optimum]:
    """The best split of one budget between training and inference, for each number of queries that it allows."""
    found = (best_for_budget(law, costs, space, budget, count) for count in queries)
    return [optimum for optimum in found if optimum is not None]
