"""What a law says of its own uncertainty, against brute force: profiles, bootstraps, the luck of runs and queries."""

from dataclasses import replace

import laws_data as data
import numpy as np
import pytest
from known_laws import ADDITIVE, JOINT, ONLY, POWER, noisy, width
from scipy.optimize import least_squares, nnls

from laws.fitting import Options, fit, prediction_intervals, profile, resampling
from laws.fitting.fitter import spread_around
from laws.fitting.objective import problem_of
from laws.fitting.uncertainty import clusters
from laws.forms import Additive, Joint, PowerLaw


def power_cost(points, b):
    """The best cost with the exponent given, exactly: the rest is linear."""
    columns = np.stack([(points.n / 1e7) ** -b, np.ones(len(points))], axis=1)
    return nnls(columns, points.y)[1] ** 2


@pytest.mark.parametrize("seed", range(4))
def test_ends_of_a_profile_cost_what_is_allowed(seed):
    points = noisy(POWER, "squared", noise=0.02, seed=seed)
    law = fit(POWER.form, points, ONLY)
    b = next(parameter for parameter in law.parameters if parameter.name == "b")
    from scipy.stats import f as f_distribution

    freedom = len(points) - 3
    allowed = law.objective * (1 + f_distribution.ppf(0.9, 1, freedom) / freedom)
    for end in (b.lo, b.hi):
        assert power_cost(points, end) == pytest.approx(allowed, rel=2e-3)
    assert law.noise == pytest.approx(np.sqrt(law.objective / freedom))


def test_a_profile_is_the_best_at_each_value():
    points = noisy(POWER, "squared", noise=0.02)
    law = fit(POWER.form, points, ONLY)
    found = profile(law, points, "b")
    assert (np.diff(found.values) > 0).all()
    for value, objective in zip(found.values, found.objective, strict=True):
        assert objective == pytest.approx(power_cost(points, value), rel=1e-6)
    b = law.parameters[1]
    assert (found.lo, found.hi) == pytest.approx((b.lo, b.hi), rel=1e-3)
    assert found.values[0] < b.lo < b.value < b.hi < found.values[-1]
    assert found.values[found.objective.argmin()] == pytest.approx(b.value, rel=1e-3)


def test_a_floor_that_nothing_bounds_is_open_below():
    n = np.geomspace(1e6, 1e8, 8)
    noise = 1 + 0.02 * np.random.default_rng(1).standard_normal(8)
    points = data.points(n, 1e4, (1e7 / n) ** 0.5 * noise)
    law = fit(PowerLaw(axis="n"), points, ONLY)
    floor = law.parameters[2]
    assert floor.open_below
    assert not floor.identified
    assert floor.lo == 0
    assert np.isfinite(floor.hi)
    found = profile(law, points, "c")
    assert found.open_below
    assert found.lo == 0


def test_predictions_have_profile_intervals():
    points = noisy(ADDITIVE, noise=0.01)
    law = fit(ADDITIVE.form, points, Options(loss="relative", bootstraps=2000))
    at = [np.array([1e7, 1e10]), np.array([1e8, 1e11])]
    lo, hi = prediction_intervals(law, points, at)
    below, above = law.band(at)
    assert (lo < law.predict(at)).all()
    assert (law.predict(at) < hi).all()
    np.testing.assert_allclose(hi - lo, above - below, rtol=0.15)
    assert (hi - lo)[1] / law.predict(at)[1] > 1.5 * (hi - lo)[0] / law.predict(at)[0]  # far out it is wider


def test_profiles_refuse_what_they_cannot_answer():
    points = noisy(POWER)
    law = fit(POWER.form, points, ONLY)
    with pytest.raises(ValueError, match="no parameter 'alpha'; it has a, b, c"):
        profile(law, points, "alpha")
    with pytest.raises(ValueError, match="not the points"):
        profile(law, points.where(np.arange(len(points)) > 0), "b")


def test_without_freedom_nothing_is_said():
    points = data.points(data.LLAMA_N, 588_800, data.LLAMA_BY_N)
    law = fit(PowerLaw(axis="n"), points)
    assert profile(law, points, "b") is None
    assert prediction_intervals(law, points, [np.array([1e10])]) is None
    assert law.band([np.array([1e10])]) is None
    assert np.isnan(law.covariance).all()
    assert law.aicc == np.inf


def test_what_the_points_say_nothing_of_is_open_and_not_exact():
    """With one value of D neither B nor beta can be known, whatever noise there is or is not."""
    n = np.geomspace(1e6, 1e9, 10)
    for noise in (0.0, 0.01):
        y = (1.5 + 219 / n**0.34) * np.exp(noise * np.random.default_rng(0).standard_normal(10))
        for form, known in ((Additive(), ("A", "alpha")), (Joint(), ("beta", "B", "delta"))):
            law = fit(form, data.points(n, 1e8, y), Options(loss="relative", bootstraps=20))
            identified = [parameter.name for parameter in law.parameters if parameter.identified]
            assert set(known) <= set(identified) <= {*known, "E"}, (form, noise, law.parameters)
            assert all(np.isfinite(law.resampled).ravel())


@pytest.mark.parametrize("loss", ["squared", "relative"])
def test_bootstraps_are_fits_of_their_own(loss):
    options = Options(loss=loss)
    points = noisy(JOINT, loss)
    problem, _ = problem_of(JOINT.form, points, options)
    law = fit(JOINT.form, points, options)
    spread = spread_around(problem, points, law.theta)
    noise = resampling.noise(problem, law.theta, spread, clusters(points), 5, np.random.default_rng(0))
    refitted = resampling.refit(problem, law.theta, spread, noise)
    value = JOINT.form.value(law.theta, problem.u)
    for theta, added in zip(refitted, noise, strict=True):
        target = (value if loss == "squared" else np.log(value)) + added / problem.root
        one = problem.of(target=target)
        alone = least_squares(
            lambda point, one=one: one.linearise(point[None], slice(None))[0][0], law.theta, xtol=1e-14, ftol=1e-14
        )
        assert one.cost_at(theta) == pytest.approx(2 * alone.cost, rel=1e-5)


def test_draws_are_what_the_band_is_of():
    points = noisy(ADDITIVE)
    law = fit(ADDITIVE.form, points, Options(bootstraps=64))
    at = [np.array([1e7, 1e8, 1e9]), np.array([1e9, 1e9, 1e9])]
    draws = law.draws(at)
    assert draws.shape == (64, 3)
    np.testing.assert_allclose(law.band(at), np.quantile(draws, [0.05, 0.95], axis=0, method="weibull"))


def test_luck_of_the_queries_widens_what_residuals_cannot_show():
    """All points are measured on the same queries: that all is higher on others shows in no residual."""
    points = noisy(ADDITIVE, noise=0.003)
    rng = np.random.default_rng(0)
    shared = replace(points, draws=points.y[:, None] * np.exp(0.05 * rng.standard_normal(100)))
    options = Options(loss="relative", bootstraps=300)
    without, with_draws = fit(ADDITIVE.form, points, options), fit(ADDITIVE.form, shared, options)
    at = [np.array([1e8]), np.array([1e9])]
    for law, least, most in ((without, 0, 0.003), (with_draws, 0.04, 0.06)):
        lo, hi = law.band(at)
        assert least < (hi - lo)[0] / law.predict(at)[0] / 3.29 < most
    assert width(with_draws, "E") > 3 * width(without, "E")
    # what a residual shows already is not counted twice
    own = replace(points, draws=points.y[:, None] * np.exp(0.003 * rng.standard_normal((len(points), 100))))
    assert width(fit(ADDITIVE.form, own, options), "E") < 1.3 * width(without, "E")
