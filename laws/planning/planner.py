"""The best configuration for a budget, and the cheapest for a target.

For a budget: the least value of the law where training and a lifetime's queries together cost no more. For a target:
the least cost where the law, or a quantile of its bootstraps, is at the target or below. Values are those that the law
is fitted to, lower being better.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from laws.fitting import Law
from laws.forms import Array, Axis
from laws.planning.costs import Costs
from laws.planning.curves import Curve, curve_of, draws, ends, meet, quantile_of, thinned
from laws.planning.search import evaluate, search
from laws.planning.space import Space

SLACK = 1 + 1e-9
"""By which a cost or a target may be missed in floating point."""
FARTHEST = 1e18
"""D is looked for up to this multiple of its least."""
WINDOW, WINDOW_VALUES, WINDOW_BUDGETS = 300.0, 121, 24
"""What is asked of bootstraps is looked for within this factor of the law's own optimum either way, with so many values
of N and so many inference budgets."""
ROUGH = 1e-5
"""Relative width of D there."""


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One configuration, what it costs, and what the law says of it."""

    values: Mapping[Axis, float]
    """N, D and, where the law has it, the inference budget."""
    train_flops: float
    infer_flops: float
    """A query; NaN where it is not known."""
    latency_ms: float
    """NaN where it was not measured."""
    value: float
    lo: float
    hi: float
    """The law's interval; NaN where there is none."""


@dataclass(frozen=True, kw_only=True)
class Optimum:
    """The best configuration for a budget."""

    best: Configuration
    queries: float
    bands: Mapping[Axis, tuple[float, float]] = field(default_factory=dict)
    """Of the optimal values, over the bootstraps; empty where there are none."""
    edges: tuple[str, ...] = ()
    """Axes whose optimum lies at an end of the range it was looked for in."""

    @property
    def training_share(self) -> float:
        """Of all FLOPs, those of training."""
        lifetime = self.queries * self.best.infer_flops if self.queries else 0.0
        return self.best.train_flops / (self.best.train_flops + lifetime)


@dataclass(frozen=True, kw_only=True)
class Cheapest:
    """The cheapest configuration that reaches a target."""

    best: Configuration
    queries: float
    probability: float
    """Share of the bootstraps in which it does; NaN where there are none."""
    asked: float | None
    """The probability that was asked for; None: that the law itself reaches it."""
    edges: tuple[str, ...] = ()

    @property
    def total_flops(self) -> float:
        """Of training and all queries."""
        return self.best.train_flops + (self.queries * self.best.infer_flops if self.queries else 0.0)


def best_for_budget(law: Law, costs: Costs, space: Space, budget: float, queries: float = 0.0) -> Optimum | None:
    """The best for so many FLOPs in all; None where the space allows nothing that cheap.

    Args:
        queries: that the trained model will answer; 0 leaves the cost of inference out of the budget.
    """
    problem = _Budget(curve=curve_of(law), costs=costs, space=space, budget=budget, queries=queries)
    found = search(problem, space)
    if found is None:
        return None
    return Optimum(
        best=configuration(law, costs, found),
        queries=queries,
        bands=_bands(law, problem, found),
        edges=_edges(space, found),
    )


def cheapest_for_target(
    law: Law, costs: Costs, space: Space, target: float, queries: float = 0.0, probability: float | None = None
) -> Cheapest | None:
    """The cheapest configuration whose value is at most `target`; None where there is none.

    Args:
        probability: the share of bootstraps that are to reach it; the law itself where left out.
    """
    problem = _Target(curve=curve_of(law), costs=costs, space=space, target=target, queries=queries)
    found = search(problem, space)
    if found is not None and probability is not None:
        near = space.within(_about(found, WINDOW), WINDOW_BUDGETS)
        found = search(replace(problem, curve=quantile_of(law, probability), tolerance=ROUGH), near, WINDOW_VALUES)
    if found is None:
        return None
    return Cheapest(
        best=configuration(law, costs, found),
        queries=queries,
        probability=reached(law, found, target),
        asked=probability,
        edges=_edges(space, found),
    )


def best_reachable(law: Law, costs: Costs, space: Space) -> Configuration | None:
    """What is best in the space whatever it costs: to say by how much a target is missed."""
    found = search(_Budget(curve=curve_of(law), costs=costs, space=space, budget=math.inf, queries=0.0), space)
    return None if found is None else configuration(law, costs, found)


def configuration(law: Law, costs: Costs, values: Mapping[Axis, float]) -> Configuration:
    """What a configuration costs and what the law says of it."""
    point: dict[Axis, Array] = {axis: np.array([value]) for axis, value in values.items()}
    axes = [point[axis] for axis in law.form.axes]
    band = law.band(axes)
    searched = costs.inference is not None and {"beams", "c"} & values.keys()
    return Configuration(
        values=dict(values),
        train_flops=float(costs.training.at(point)[0]),
        infer_flops=float(costs.inference.at(point)[0]) if costs.inference is not None and searched else math.nan,
        latency_ms=float(costs.latency.at(point)[0]) if costs.latency is not None and searched else math.nan,
        value=float(law.predict(axes)[0]),
        lo=float(band[0][0]) if band else math.nan,
        hi=float(band[1][0]) if band else math.nan,
    )


def reached(law: Law, values: Mapping[Axis, float], target: float) -> float:
    """Share of the bootstraps in which the configuration reaches the target; NaN where there are none."""
    if not len(law.resampled):
        return math.nan
    said = law.draws([np.array([values[axis]]) for axis in law.form.axes])[:, 0]
    return float(np.mean(said <= target * SLACK))


# ---------------------------------------------------------------- the two problems


@dataclass(frozen=True, kw_only=True)
class _Priced:
    """What both problems know."""

    curve: Curve
    costs: Costs
    space: Space
    queries: float

    def inference(self, values: Mapping[Axis, Array]) -> Array | float:
        """FLOPs of a lifetime's queries."""
        if not self.queries:
            return 0.0
        assert self.costs.inference is not None
        return self.queries * self.costs.inference.at(values)

    def total(self, values: Mapping[Axis, Array]) -> Array:
        """FLOPs of training and of a lifetime's queries."""
        return self.costs.training.at(values) + self.inference(values)


@dataclass(frozen=True, kw_only=True)
class _Budget(_Priced):
    budget: float

    def solve(self, others: dict[Axis, Array]) -> Array:
        """All that is left after inference goes into D."""
        width = self.space.ranges["d"]
        with np.errstate(invalid="ignore"):
            d = (self.budget - self.inference(others)) / self.costs.per_pair(others["n"])
        farthest = min(width.hi, width.lo * FARTHEST)
        return np.where(d >= width.lo, np.minimum(d, farthest), np.nan)

    def score(self, values: dict[Axis, Array]) -> Array:
        allowed = (self.total(values) <= self.budget * SLACK) & self.space.allows(self.costs, values)
        return np.where(allowed, self.curve(values), np.inf)


@dataclass(frozen=True, kw_only=True)
class _Target(_Priced):
    target: float
    tolerance: float = 1e-10

    def solve(self, others: dict[Axis, Array]) -> Array:
        """The least D that reaches the target."""
        width = self.space.ranges["d"]
        farthest = min(width.hi, width.lo * FARTHEST)
        return meet(self.curve, self.target, others, width.lo, farthest, self.tolerance)

    def score(self, values: dict[Axis, Array]) -> Array:
        allowed = (self.curve(values) <= self.target * SLACK) & self.space.allows(self.costs, values)
        return np.where(allowed, self.total(values), np.inf)


# ---------------------------------------------------------------- how well an optimum is known


def _about(found: Mapping[Axis, float], factor: float) -> dict[Axis, tuple[float, float]]:
    return {axis: (value / factor, value * factor) for axis, value in found.items()}


def _bands(law: Law, problem: _Budget, found: Mapping[Axis, float]) -> dict[Axis, tuple[float, float]]:
    """Quantiles of each bootstrap's own optimum: looked for far about the law's, then closely where they were."""
    if not len(law.resampled):
        return {}
    few, bounds = thinned(law), _about(found, WINDOW)
    for _ in range(2):
        near = problem.space.within(bounds, WINDOW_BUDGETS)
        values = _mesh(near, found)
        tried = evaluate(problem, {axis: value for axis, value in values.items() if axis != "d"}, values.get("d"))
        allowed = np.isfinite(tried.scores)
        values = {axis: column[allowed] for axis, column in tried.values.items()}
        at = draws(few, [values[axis] for axis in few.form.axes]).argmin(axis=1)
        bounds = {axis: _next_to(column, column[at]) for axis, column in values.items()}
    quantiles = ends(law.options.interval)
    return {
        axis: (float(low), float(high))
        for axis, column in values.items()
        for low, high in [np.quantile(column[at], quantiles, method="nearest")]
    }


def _mesh(space: Space, found: Mapping[Axis, float]) -> dict[Axis, Array]:
    """Every combination (m,) of some N, inference budgets and, where it has choices, D; the optimum's own are there."""
    axes: dict[Axis, Array] = {"n": space.ranges["n"].grid(WINDOW_VALUES)}
    if space.gain is not None:
        axes[space.gain] = space.ranges[space.gain].grid(0)
    axes = {axis: np.unique(np.append(values, found[axis])) for axis, values in axes.items()}
    if space.ranges["d"].choices:
        axes["d"] = np.array(space.ranges["d"].choices)
    return dict(zip(axes, (part.ravel() for part in np.meshgrid(*axes.values())), strict=True))


def _next_to(tried: Array, chosen: Array) -> tuple[float, float]:
    """From the value tried next below the least chosen to that next above the largest."""
    values = np.unique(tried)
    first, last = np.searchsorted(values, [chosen.min(), chosen.max()])
    return float(values[max(0, first - 1)]), float(values[min(len(values) - 1, last + 1)])


def _edges(space: Space, found: Mapping[Axis, float]) -> tuple[str, ...]:
    """Axes on which more, or less, than the range allows would be better."""
    at_edge = []
    for axis, width in space.ranges.items():
        if width.hi > width.lo and not (np.isinf(width.hi) and axis == "d"):
            near = [end for end in (width.lo, width.hi) if abs(math.log(found[axis] / end)) < 1e-3]
            at_edge += [axis] if near else []
    return tuple(at_edge)
