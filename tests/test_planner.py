"""The planner: costs from tables, the best for a budget and the cheapest for a target against brute force."""

import math

import numpy as np
import pytest
from every_form import formula

from laws.fitting import Law, Options, fit
from laws.forms import AddedGain, Additive, Bounded, Form, InteractingGain, Joint, SaturatingGain, WithBudget
from laws.planning.costs import Costs, fit_costs
from laws.planning.planner import best_for_budget, cheapest_for_target
from laws.planning.space import Space, make_space, read_where
from laws.points import Points

N, D, BEAMS = np.geomspace(1e6, 1e9, 5), np.geomspace(1e5, 1e7, 5), np.array([1.0, 4, 16, 64])
TRAINED = {"E": 0.1, "A": 200.0, "alpha": 0.4, "B": 100.0, "beta": 0.45}
MIXED = {"delta": 0.1, "A": 1e4, "alpha": 0.35, "B": 1e5, "beta": 0.3}
GAINS = {
    AddedGain(): {"G": 0.3, "gamma": 0.5},
    InteractingGain(): {"G": 2.0, "gamma": 0.5, "kappa": 0.1},
    SaturatingGain(): {"G": 0.3, "gamma": 1.5, "C0": 8.0},
}
LAWS: dict[str, tuple[Form, dict[str, float]]] = {
    "additive": (Additive(), TRAINED),
    "joint": (Joint(), MIXED),
    "bounded": (Bounded(base=Additive()), TRAINED),
    **{f"additive, {gain.name}": (WithBudget(base=Additive(), gain=gain), TRAINED | p) for gain, p in GAINS.items()},
    **{f"joint, {gain.name}": (WithBudget(base=Joint(), gain=gain), MIXED | p) for gain, p in GAINS.items()},
}


def _points(form: Form, truth: dict[str, float], noise: float = 0.0) -> Points:
    axes = (N, D, BEAMS) if "beams" in form.axes else (N, D)
    n, d, *rest = (column.ravel() for column in np.meshgrid(*axes, indexing="ij"))
    where = {"n": n, "d": d} | ({"beams": rest[0]} if rest else {})
    y = formula(form, truth, where) * (1 + noise * np.random.default_rng(5).standard_normal(len(n)))
    return Points(n=n, d=d, y=y, beams=rest[0] if rest else None)


_FITTED: dict[tuple[str, float, int], tuple[Law, Points]] = {}


def fitted(name: str, noise: float = 0.0, bootstraps: int = 0) -> tuple[Law, Points]:
    """A law fitted once, and its points."""
    key = (name, noise, bootstraps)
    if key not in _FITTED:
        form, truth = LAWS[name]
        points = _points(form, truth, noise)
        _FITTED[key] = fit(form, points, Options(bootstraps=bootstraps)), points
    return _FITTED[key]


def costs() -> Costs:
    """6 N D and a small part in the square root of N; a query costs 20 tokens of N, and 10 for each beam."""
    n, d, beams = (column.ravel() for column in np.meshgrid(N, D, BEAMS))
    return fit_costs(n, d, beams, 6 * n * d + 4e3 * n**0.5 * d, 2 * n * (20 + 10 * beams), 2 + 1e-9 * n * (1 + beams))


def space_of(law: Law, points: Points, where: str) -> Space:
    return make_space(read_where(where), points, law.form.axes, costs())


CASES = [
    ("additive", "", 1e17, 0.0),
    ("joint", "", 1e19, 0.0),
    ("bounded", "N<=1e8", 1e18, 0.0),
    ("additive, gain", "", 1e18, 1e7),
    ("additive, gain by N", "beams=1|4|16|64", 1e17, 1e6),
    ("additive, saturating gain", "latency_ms<=5", 1e18, 1e6),
    ("joint, gain", "D=1e6", 1e17, 1e7),
    ("joint, gain by N", "N=measured, beams<=32", 1e18, 1e8),
    ("joint, saturating gain", "N<=1e8, D<=3e6, beams<=100", 1e18, 1e6),
    ("additive, gain by N", "N=1e7|1e8|1e9, D=1e6|1e7|1e8, beams=1|8|64", 1e19, 1e9),
]
"""A law, what is allowed, a budget of FLOPs and a number of queries."""


def _brute_axes(space: Space) -> dict[str, np.ndarray]:
    """Every combination of a fine grid: whole beams, N 0.6% and D 1.5% apart."""
    axes = {"n": space.ranges["n"].grid(1401)}
    if space.ranges["n"].is_free and space.ranges["n"].hi / space.ranges["n"].lo > 1e5:
        axes["n"] = np.geomspace(max(space.ranges["n"].lo, 1e4), min(space.ranges["n"].hi, 1e12), 1401)
    width = space.ranges["d"]
    axes["d"] = np.array(width.choices) if width.choices else np.geomspace(1e3, min(width.hi, 1e13), 801)
    if "beams" in space.ranges:
        beams = np.array(space.ranges["beams"].choices)
        axes["beams"] = np.array([*range(1, 25), *range(26, 65, 3), 160, 640.0]) if len(beams) > 20 else beams
        axes["beams"] = axes["beams"][axes["beams"] <= beams.max()]
    return axes


def _brute(space: Space, queries: float, law: Law) -> tuple[np.ndarray, np.ndarray]:
    """Cost and value of every allowed combination, both flat."""
    axes = _brute_axes(space)
    all_costs, all_values = [], []
    for beams in axes.get("beams", [np.nan]):  # one at a time: all at once would take gigabytes
        n, d = (column.ravel() for column in np.meshgrid(axes["n"], axes["d"]))
        at = {"n": n, "d": d} | ({} if math.isnan(beams) else {"beams": np.full(len(n), beams)})
        cost = 6 * n * d + 4e3 * n**0.5 * d
        if queries:
            cost = cost + queries * 2 * n * (20 + 10 * beams)
        kept = np.ones(len(n), dtype=bool)
        if math.isfinite(space.latency_ms):
            kept = 2 + 1e-9 * n * (1 + beams) <= space.latency_ms
        all_costs.append(cost[kept])
        all_values.append(law.predict([at[axis][kept] for axis in law.form.axes]))
    return np.concatenate(all_costs), np.concatenate(all_values)


@pytest.mark.parametrize(("name", "where", "budget", "queries"), CASES)
def test_plans_are_as_good_as_brute_force(name: str, where: str, budget: float, queries: float) -> None:
    law, points = fitted(name)
    space = space_of(law, points, where)
    found = best_for_budget(law, costs(), space, budget, queries)
    assert found is not None
    spent = found.best.train_flops + (queries * found.best.infer_flops if queries else 0.0)
    assert spent <= budget * (1 + 1e-6)
    cost, value = _brute(space, queries, law)
    floor = law[law.form.floor]
    best = value[cost <= budget].min()
    assert found.best.value - floor <= (best - floor) * 1.0001
    assert best - floor <= (found.best.value - floor) * 1.01  # what a grid as fine as that leaves
    # and the other way round: the cheapest that is as good as that
    target = floor + 1.05 * (found.best.value - floor)
    cheapest = cheapest_for_target(law, costs(), space, target, queries)
    assert cheapest is not None
    assert cheapest.best.value <= target * (1 + 1e-9)
    least = cost[value <= target].min()
    assert cheapest.total_flops <= least * 1.0001
    assert least <= cheapest.total_flops * 1.05
