"""The planner: costs from tables, the best for a budget and the cheapest for a target against brute force."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.laws.truths import formula
from laws.fitting import Law, Options, fit
from laws.forms import AddedGain, Additive, Bounded, Form, InteractingGain, Joint, SaturatingGain, WithBudget
from laws.planning.costs import Costs, fit_costs
from laws.planning.planner import best_for_budget, best_reachable, cheapest_for_target, configuration, reached
from laws.planning.quality import frontier, iso_quality, trade_off
from laws.planning.space import BadQuestion, Space, make_space, read_point, read_where
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
    """Every combination of a fine grid: whole beams, N 1.5% and D 2.3% apart at most."""
    axes = {"n": space.ranges["n"].grid(901)}
    if space.ranges["n"].is_free and space.ranges["n"].hi / space.ranges["n"].lo > 1e5:
        axes["n"] = np.geomspace(max(space.ranges["n"].lo, 1e5), min(space.ranges["n"].hi, 1e11), 901)
    width = space.ranges["d"]
    axes["d"] = np.array(width.choices) if width.choices else np.geomspace(1e4, min(width.hi, 1e12), 801)
    if "beams" in space.ranges:
        beams = np.array(space.ranges["beams"].choices)
        some = [*range(1, 13), *range(14, 65, 3), 160, beams.max()]
        axes["beams"] = np.array([float(one) for one in some if one <= beams.max()]) if len(beams) > 40 else beams
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


# ---------------------------------------------------------------- what an optimum is known to


def test_bands_hold_the_optimum_of_the_truth() -> None:
    exact, points = fitted("additive")
    space = space_of(exact, points, "")
    truth = best_for_budget(exact, costs(), space, 1e18)
    assert truth is not None
    assert truth.bands == {}
    held, rng = 0, np.random.default_rng(1)
    for _ in range(20):
        noisy = replace(points, y=points.y * np.exp(0.01 * rng.standard_normal(len(points))))
        law = fit(Additive(), noisy, Options(bootstraps=200, loss="relative"))
        found = best_for_budget(law, costs(), space, 1e18)
        assert found is not None
        assert all(lo <= found.best.values[axis] <= hi < 10 * lo for axis, (lo, hi) in found.bands.items())
        held += found.bands["n"][0] < truth.best.values["n"] < found.bands["n"][1]
    assert held >= 15  # of 18 to be expected; 15 or more in 98% of all such tests


def test_a_budget_for_queries_goes_to_inference_as_they_grow() -> None:
    law, points = fitted("additive, gain", noise=0.01, bootstraps=100)
    space = space_of(law, points, "")
    plans = trade_off(law, costs(), space, 1e19, [1e4, 1e6, 1e8, 1e10])
    assert len(plans) == 4
    shares = [plan.training_share for plan in plans]
    assert shares == sorted(shares, reverse=True)
    assert [plan.best.values["n"] for plan in plans] == sorted((plan.best.values["n"] for plan in plans), reverse=True)
    for plan in plans:
        total = plan.best.train_flops + plan.queries * plan.best.infer_flops
        assert total == pytest.approx(1e19, rel=1e-6)
        assert plan.bands["beams"][0] <= plan.best.values["beams"] <= plan.bands["beams"][1]


def test_more_compute_is_never_worse() -> None:
    law, points = fitted("joint", noise=0.01, bootstraps=0)
    plans = frontier(law, costs(), space_of(law, points, ""), [1e5, 1e16, 1e18, 1e20])
    assert len(plans) == 3  # 1e5 FLOPs allow nothing
    assert [plan.best.value for plan in plans] == sorted((plan.best.value for plan in plans), reverse=True)
    assert all(plan.best.values["n"] > 0 for plan in plans)


def test_edges_are_told() -> None:
    law, points = fitted("additive, gain")
    held = best_for_budget(law, costs(), space_of(law, points, "N<=1e7, D<=1e6"), 1e20, 1.0)
    assert held is not None
    assert set(held.edges) == {"n", "d", "beams"}


# ---------------------------------------------------------------- targets


def test_the_probability_of_a_target_is_what_was_asked() -> None:
    law, points = fitted("additive, gain", noise=0.02, bootstraps=300)
    space, target = space_of(law, points, ""), 0.45
    likely = cheapest_for_target(law, costs(), space, target, 1e6)
    sure = cheapest_for_target(law, costs(), space, target, 1e6, 0.95)
    assert likely is not None
    assert sure is not None
    assert 0.2 < likely.probability < 0.8
    assert 0.94 <= sure.probability <= 0.97
    assert likely.total_flops < sure.total_flops < 3 * likely.total_flops
    assert reached(law, sure.best.values, target) == sure.probability
    # a plan of the same cost that puts it elsewhere is no more probable
    for factor in (0.5, 2.0):
        elsewhere = dict(sure.best.values)
        elsewhere["n"] *= factor
        left = sure.total_flops - 1e6 * configuration(law, costs(), elsewhere).infer_flops
        elsewhere["d"] = left / float(costs().per_pair(np.array(elsewhere["n"])))
        assert elsewhere["d"] < 1 or reached(law, elsewhere, target) <= sure.probability + 0.01


def test_what_cannot_be_reached_has_no_plan() -> None:
    law, points = fitted("additive")
    assert cheapest_for_target(law, costs(), space_of(law, points, ""), 0.0999) is None
    held = space_of(law, points, "N<=1e7, D<=1e6")
    assert cheapest_for_target(law, costs(), held, 0.2) is None
    best = best_reachable(law, costs(), held)
    assert best is not None
    assert best.values == pytest.approx({"n": 1e7, "d": 1e6})


def test_a_plan_without_bootstraps_has_no_probability() -> None:
    law, points = fitted("additive")
    plan = cheapest_for_target(law, costs(), space_of(law, points, ""), 0.3)
    assert plan is not None
    assert math.isnan(plan.probability)
    assert math.isnan(plan.best.lo)


@pytest.mark.parametrize("name", ["additive", "joint, gain by N"])
def test_lines_of_equal_quality_meet_their_value(name: str) -> None:
    law, _ = fitted(name, noise=0.01, bootstraps=200)
    target, n, beams = 0.5, np.geomspace(1e7, 1e10, 6), np.array([1.0, 16.0, 64.0])
    iso = iso_quality(law, target, n, beams if "beams" in law.form.axes else None)
    assert iso.d.shape == iso.lo.shape == (6, len(iso.gains))
    for row, size in enumerate(iso.n):
        for column, gain in enumerate(iso.gains):
            d, at = iso.d[row, column], {"n": size, "beams": gain}
            values = [np.array([at.get(axis, d)]) for axis in law.form.axes]
            if math.isnan(d):
                far = [np.array([at.get(axis, 1e11)]) for axis in law.form.axes]
                assert law.predict(far)[0] > target
                continue
            assert law.predict(values)[0] == pytest.approx(target, rel=1e-6)
            assert iso.lo[row, column] <= d <= iso.hi[row, column]
            if math.isfinite(iso.hi[row, column]):
                values[law.form.axes.index("d")] = np.array([iso.hi[row, column]])
                assert np.mean(law.draws(values) <= target) == pytest.approx(0.95, abs=0.015)
    assert np.isfinite(iso.d).sum() >= 4
    assert (np.diff(np.nan_to_num(iso.d, nan=1e99), axis=0) <= 0).all()  # a larger model needs less data


# ---------------------------------------------------------------- costs


@settings(deadline=None, max_examples=40)
@given(
    coefficients=st.lists(st.floats(0, 100), min_size=4, max_size=4),
    training=st.tuples(st.floats(0.1, 100), st.floats(0, 1e5)),
    seed=st.integers(0, 99),
)
def test_costs_of_their_own_form_are_found_exactly(
    coefficients: list[float], training: tuple[float, float], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    n, d, beams = 10 ** rng.uniform(4, 9, 40), 10 ** rng.uniform(3, 6, 40), rng.integers(1, 100, 40).astype(float)
    train = d * (training[0] * n + training[1] * n**0.5)
    a, b, c, e = coefficients
    infer = n * (a + c * beams + 0.1) + n**0.5 * (b + e * beams)
    found = fit_costs(n, d, beams, train, infer)
    assert found.inference is not None
    assert found.training.worst_error < 1e-6
    assert found.inference.worst_error < 1e-6
    assert found.training.at({"n": n, "d": d}) == pytest.approx(train, rel=1e-6)
    assert found.per_pair(n) * d == pytest.approx(train, rel=1e-6)


def test_costs_say_what_they_stand_on() -> None:
    n, d = np.array([1e6, 1e7]), np.array([1e5, 1e5])
    assumed = fit_costs(n, d, None, np.array([math.nan, 0.0]))
    assert assumed.training.text == "6 N D"
    assert assumed.training.basis == "assumed"
    assert assumed.inference is assumed.latency is None
    said = fit_costs(n, d, None, np.array([1e12, 1e13]), per_nd=20)
    assert said.training.text == "20 N D"
    measured = fit_costs(n, d, None, np.array([1e12, 2e13]))
    assert measured.training.n_points == 2
    assert "2 rows" in measured.training.basis


def test_a_cost_of_another_form_says_by_how_much_it_misses() -> None:
    n = np.geomspace(1e6, 1e9, 7)
    found = fit_costs(n, np.full(7, 1e5), None, 1e5 * n**1.5)
    assert found.training.worst_error > 0.5


# ---------------------------------------------------------------- what is allowed


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("N<7e9", "--where N<7e9: write it as N<=7e9, D=588800 or beams=1|4|16"),
        ("M<=7", "--where M: unknown; there are N, D, beams, C and latency_ms"),
        ("N<=x", "--where N: 'x' is not a positive number"),
        ("beams=1|zwei", "--where beams: 'zwei' is not a positive number"),
        ("D<=-3", "--where D: '-3' is not a positive number"),
        ("N<=inf", "--where N: 'inf' is not a positive number"),
        ("latency_ms=50", "--where latency_ms=50: write it as latency_ms<=50"),
    ],
)
def test_wrong_conditions_are_one_line(text: str, line: str) -> None:
    with pytest.raises(BadQuestion) as error:
        read_where(text)
    assert str(error.value) == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("N=7e9,N=3", "--at N: stands there twice"),
        ("N", "--at N: write it as N=7e9,D=588800,beams=100"),
        ("N<=3", "--at N<=3: write it as N=7e9,D=588800,beams=100"),
        (" , ", "--at: names no point; write it as N=7e9,D=588800,beams=100"),
        ("size=3", "--at size: unknown; there are N, D, beams, C"),
    ],
)
def test_wrong_points_are_one_line(text: str, line: str) -> None:
    with pytest.raises(BadQuestion) as error:
        read_point("--at", text)
    assert str(error.value) == line


def test_points_and_conditions_are_read() -> None:
    assert read_point("--at", "n=7e9, D=588_800,BEAMS=100") == {"n": 7e9, "d": 588800, "beams": 100}
    where = read_where("N<=7e9, N>=1e6, D=588800, beams=16|4|4, latency_ms<=50")
    assert where.most == {"n": 7e9}
    assert where.least == {"n": 1e6}
    assert where.choices == {"d": (588800.0,), "beams": (4.0, 16.0)}
    assert where.latency_ms == 50


def test_spaces_follow_the_points_and_refuse_what_leaves_nothing() -> None:
    law, points = fitted("additive, gain")
    assert space_of(law, points, "N=measured").ranges["n"].choices == tuple(N)
    beams = space_of(law, points, "beams<=10").ranges["beams"].choices
    assert beams == tuple(range(1, 11))
    for where, line in (
        ("N>=1e9, N<=1e6", "--where N: no value is left between 1e+09 and 1e+06"),
        ("beams=64, beams<=8", "--where beams: no value is left"),
        ("beams>=1.2, beams<=1.7", "--where beams: no whole number is left between 1.2 and 1.7"),
        ("C<=1e9", "--where C: the law does not have that axis"),
    ):
        with pytest.raises(BadQuestion) as error:
            space_of(law, points, where)
        assert str(error.value) == line
    blind = fit_costs(points.n, points.d, points.beams, None)
    with pytest.raises(BadQuestion, match="no latency was measured"):
        make_space(read_where("latency_ms<=5"), points, law.form.axes, blind)
