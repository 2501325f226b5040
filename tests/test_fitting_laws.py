"""The fitter against brute force: truths, minima, linear coordinates, losses, criteria, published points."""

from dataclasses import replace

import laws_data as data
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known_laws import ADDITIVE, BY_NAME, JOINT, LOSSES, ONLY, POWER, noisy, width
from scipy.integrate import quad
from scipy.optimize import nnls

from benchmarks.laws.optimum import excess
from benchmarks.laws.published import ALL, LLAMA, LLAMA_MINDER, LLAMA_N, SERIES, T5_OVER_N
from benchmarks.laws.repeats import repeat
from benchmarks.laws.truths import TRUTHS
from laws.fitting import Options, fit
from laws.fitting.criteria import _huber_unlikely
from laws.fitting.descent import minimise
from laws.fitting.objective import problem_of
from laws.fitting.starts import _by_turns, _every_subset
from laws.forms import Additive, Bounded, Joint, PowerLaw
from laws.points import Points


@pytest.mark.parametrize("truth", TRUTHS, ids=lambda truth: truth.name)
def test_without_noise_every_form_gives_its_truth_back(truth):
    law = fit(truth.form, noisy(truth, noise=0.0), Options(loss="relative", bootstraps=0))
    for parameter in law.parameters:
        value = truth.parameters[parameter.name]
        assert parameter.value == pytest.approx(value, rel=1e-11)
        assert parameter.lo <= value <= parameter.hi
        assert parameter.hi - parameter.lo <= 1e-9 * abs(value)
    assert law.agree > 0.1


@pytest.mark.parametrize(
    ("name", "loss"), [("power over n", "squared"), ("joint", "relative"), ("additive", "huber-log")]
)
def test_truth_lies_in_nine_of_ten_intervals(name, loss):
    """A short form of `benchmarks laws --part recovery`."""
    found = repeat(BY_NAME[name], Options(loss=loss, bootstraps=100), 0.01, 60)
    assert (found.known == 1).all()
    for shares in (found.shares, found.predicted.mean(axis=0), found.banded.mean(axis=0)):
        assert (shares >= 0.76).all(), shares  # 90% of 60 repeats, less three and a half standard deviations
        assert 0.82 <= shares.mean() <= 0.98, shares


def test_luck_of_runs_is_not_taken_for_evidence():
    """Points of a run share its luck: counted as independent, they would make intervals that are far too narrow."""
    truth = BY_NAME["additive + gain"]
    options = Options(loss="relative", bootstraps=100)
    known = repeat(truth, options, 0.01, 50, of_runs=0.8)
    assert (known.shares >= 0.78).all(), known.shares
    assert (known.banded.mean(axis=0) >= 0.76).all()
    points = noisy(truth, of_runs=0.8)
    of_runs, of_rows = fit(truth.form, points, options), fit(truth.form, replace(points, run=()), options)
    assert width(of_runs, "E") > 1.5 * width(of_rows, "E")
    # what all runs pay alike is known better than the runs themselves
    assert width(of_runs, "gamma") < width(of_rows, "gamma")


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("truth", [POWER, ADDITIVE, JOINT, BY_NAME["power + gain by N"]], ids=lambda truth: truth.name)
def test_no_random_start_ends_lower(truth, loss):
    """A short form of `benchmarks laws --part optimum`."""
    assert excess(truth.form, noisy(truth, loss), Options(loss=loss, bootstraps=0), 12) <= 1e-6


@pytest.mark.parametrize(("name", "form", "points"), SERIES, ids=[each[0] for each in SERIES])
def test_no_random_start_ends_lower_on_published_points(name, form, points):
    assert excess(form, points, ONLY, 40) <= 1e-6


@given(st.integers(0, 10_000), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_linear_coordinates_are_the_best_non_negative_ones(seed, size):
    rng = np.random.default_rng(seed)
    columns = rng.normal(size=(12, size)) + rng.normal()
    columns /= np.linalg.norm(columns, axis=0)
    wanted = rng.normal(size=12)
    expected, distance = nnls(columns, wanted)
    for way, close in ((_every_subset, 1e-6), (_by_turns, 1e-2)):
        factors, explained = way((columns.T @ columns)[None], (columns.T @ wanted)[None])
        assert wanted @ wanted - explained[0] == pytest.approx(distance**2, rel=close, abs=close)
        if way is _every_subset:
            np.testing.assert_allclose(columns @ factors[0], columns @ expected, atol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_batch_ends_where_its_members_do(loss):
    points = noisy(JOINT, loss)
    problem, _ = problem_of(JOINT.form, points, Options(loss=loss))
    law = fit(JOINT.form, points, Options(loss=loss, bootstraps=0))
    starts = law.theta + np.random.default_rng(0).normal(size=(5, 5)) * 0.3
    together = minimise(problem, starts, tolerance=1e-14)
    for index in range(5):
        alone = minimise(problem, starts[index : index + 1], tolerance=1e-14)
        np.testing.assert_allclose(together[1][index], alone[1][0], rtol=1e-9)
        assert together[1][index] == pytest.approx(problem.cost_at(together[0][index]), rel=1e-12)


def test_hubers_loss_does_not_follow_an_outlier():
    points = noisy(ADDITIVE, noise=0.002)
    bad = points.y.copy()
    bad[5] *= 1.5
    spoiled = replace(points, y=bad)
    moved = {}
    for loss in ("relative", "huber-log"):
        options = Options(loss=loss, bootstraps=0)
        before, after = fit(ADDITIVE.form, points, options), fit(ADDITIVE.form, spoiled, options)
        moved[loss] = abs(after["alpha"] / before["alpha"] - 1)
    assert moved["huber-log"] < 0.1 * moved["relative"]


def test_objectives_are_what_they_say():
    points = noisy(ADDITIVE)
    for loss in LOSSES:
        law = fit(ADDITIVE.form, points, Options(loss=loss, bootstraps=0))
        predicted = law.predict([points.n, points.d])
        residuals = np.log(points.y / predicted) if loss != "squared" else points.y - predicted
        size = np.abs(residuals)
        huber = np.where(size <= 1e-3, size**2 / 2, 1e-3 * (size - 1e-3 / 2))
        expected = huber.sum() if loss == "huber-log" else (residuals**2).sum()
        assert law.objective == pytest.approx(expected, rel=1e-9)
        assert law.rmse == pytest.approx(np.sqrt(np.mean((points.y - predicted) ** 2)), rel=1e-9)


def test_a_point_with_a_wide_interval_counts_little():
    points = noisy(ADDITIVE, noise=0.002)
    bad = points.y.copy()
    bad[5] *= 1.3
    narrow, wide = 0.002 * bad, np.where(np.arange(len(bad)) == 5, 0.3, 0.002) * bad
    weighted = Options(weights="intervals", bootstraps=0)
    clean = fit(ADDITIVE.form, points, ONLY)
    told = fit(ADDITIVE.form, replace(points, y=bad, lo=bad - wide, hi=bad + wide), weighted)
    untold = fit(ADDITIVE.form, replace(points, y=bad, lo=bad - narrow, hi=bad + narrow), weighted)
    assert abs(told["alpha"] - clean["alpha"]) < 0.1 * abs(untold["alpha"] - clean["alpha"])
    # without intervals, or with equal ones, weights change nothing
    assert fit(ADDITIVE.form, points, weighted).theta == pytest.approx(clean.theta, rel=1e-9)


def test_an_interval_without_width_does_not_take_over():
    points = noisy(ADDITIVE)
    lo, hi = points.y - 0.01, points.y + 0.01
    lo[3] = hi[3] = points.y[3]
    law = fit(ADDITIVE.form, replace(points, lo=lo, hi=hi), Options(weights="intervals", bootstraps=0))
    assert law["alpha"] == pytest.approx(ADDITIVE.parameters["alpha"], rel=0.5)


@pytest.mark.parametrize("loss", ["relative", "huber-log"])
def test_relative_residuals_need_positive_values(loss):
    with pytest.raises(ValueError, match="not positive"):
        fit(PowerLaw(axis="n"), data.points([1, 2, 3, 4], 10, [3, 2, 1, 0]), Options(loss=loss))


@pytest.mark.parametrize("wrong", [{"delta": 0}, {"interval": 1.0}, {"starts": 0}, {"bootstraps": -1}])
def test_options_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match=r"delta|interval|start"):
        Options(**wrong)


@pytest.mark.parametrize("value", [0.0, 2.0])
def test_equal_values_are_fitted_without_a_complaint(value):
    law = fit(PowerLaw(axis="n"), data.points(np.geomspace(1e3, 1e6, 8), 10, np.full(8, value)), Options(bootstraps=20))
    np.testing.assert_allclose(law.predict([np.array([1e4])]), value, atol=1e-9)
    assert law.r2 == 0


def test_left_out_points_are_predicted_by_fits_without_them():
    points = noisy(POWER, "squared", noise=0.02)
    law = fit(POWER.form, points, ONLY)
    misses = []
    for index in range(len(points)):
        kept = np.arange(len(points)) != index
        other = fit(POWER.form, points.where(kept), ONLY)
        misses.append(points.y[index] - other.predict([points.n[index : index + 1]])[0])
    assert law.leave_out.rmse == pytest.approx(np.sqrt(np.mean(np.square(misses))), rel=1e-3)


def test_aicc_is_that_of_gaussian_residuals():
    points = noisy(POWER, "squared")
    law = fit(POWER.form, points, ONLY)
    count, size = len(points), 4
    likely = count * np.log(2 * np.pi * law.objective / count) + count
    expected = likely + 2 * size + 2 * size * (size + 1) / (count - size - 1)
    assert law.aicc == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_hubers_density_is_one(scale):
    """The likelihood behind Huber's AICc: its density must integrate to one at every size of the residuals."""
    delta, s = 0.5, 0.25 * scale

    def cost(r):
        return r**2 if abs(r) <= delta else 2 * delta * abs(r) - delta**2

    total = 2 * quad(lambda r: np.exp(-cost(r) / (2 * s)), 0, 60 * s / delta + 10 * np.sqrt(s))[0]
    drawn = [0.1, -0.4, 2.0, -0.7, 1.1]
    costs = sum(map(cost, drawn))
    at_s = 2 * len(drawn) * np.log(total) + costs / s
    assert _huber_unlikely(costs, len(drawn), delta) <= at_s + 1e-9


def test_the_true_form_has_the_lower_aicc():
    for truth, wrong in ((ADDITIVE, Joint()), (JOINT, Additive())):
        points = noisy(truth, noise=0.005)
        for loss in LOSSES:
            options = Options(loss=loss, bootstraps=0)
            assert fit(truth.form, points, options).aicc < fit(wrong, points, options).aicc


def test_an_error_of_a_metric_levels_off_at_its_ceiling():
    beams = np.geomspace(1, 100, 12)
    s = (20 / beams) ** 1.2
    points = Points(n=np.ones(12), d=np.ones(12), beams=beams, y=0.1 + 0.9 * s / (1 + s), metric="hit@10")
    bounded, plain = (
        fit(form, points, ONLY) for form in (Bounded(base=PowerLaw(axis="beams")), PowerLaw(axis="beams"))
    )
    assert bounded["a"] == pytest.approx(20, rel=1e-6)
    assert bounded["c"] == pytest.approx(0.1, rel=1e-6)
    assert bounded.aicc < plain.aicc - 50
    assert bounded.predict([np.array([0.01])])[0] <= 1


def test_published_law_counts_the_point_that_two_series_share_twice():
    """Its digits are those of plain squares over eight rows, LLaMA-7B on all data being in both of its series."""
    rows = Points(
        n=np.append(LLAMA.n, LLAMA_N[0]), d=np.append(LLAMA.d, ALL), y=np.append(LLAMA.y, LLAMA_MINDER[0]), metric="cgl"
    )
    law = fit(Joint(), rows, ONLY)
    published = {"A": 29235, "alpha": 8.9127, "B": 1.2486e8, "beta": 2.4101, "delta": 3.279796e-3}
    for name, value in published.items():
        assert law[name] == pytest.approx(value, rel=2e-5), name
    assert law.r2 == pytest.approx(0.9999967, abs=5e-8)
    assert (law.n_points, law.n_distinct) == (8, 7)
    once = fit(Joint(), LLAMA, ONLY)
    assert once["alpha"] == pytest.approx(8.94348, abs=1e-5)
    assert once.r2 == pytest.approx(0.9999971, abs=5e-8)


def test_published_law_of_t5():
    law = fit(PowerLaw(axis="n"), T5_OVER_N, ONLY)
    assert law["b"] == pytest.approx(0.40215, abs=5e-6)
    assert law["c"] == pytest.approx(3.555573e-3, abs=1e-9)
    assert law.r2 == pytest.approx(0.99913, abs=5e-6)


def test_a_fit_says_how_many_starts_agree():
    law = fit(ADDITIVE.form, noisy(ADDITIVE), Options(loss="relative", bootstraps=0, starts=16))
    assert law.starts == 16
    assert 0.5 < law.agree <= 1
