"""Forms: values against the formulas written out, gradients against differences, names and counts that agree."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.laws.truths import TRUTHS, formula
from laws.forms import Additive, Bounded, Families, InteractingGain, Joint, PowerLaw, WithBudget

FORMS = [truth.form for truth in TRUTHS]

SEEDS = st.integers(0, 10_000)


def coordinates(form, seed, points=6):
    """theta (p,), u (points, axes) and the centre (axes,)."""
    rng = np.random.default_rng(seed)
    theta = rng.uniform(-1, 1, len(form.roles))
    u, centre = rng.uniform(-2, 2, (points, len(form.axes))), rng.uniform(1, 3, len(form.axes))
    if form.axes[-1] == "family":
        u[:, -1], centre[-1] = np.arange(points) % form.count, 0
    return theta, u, centre


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_names_and_counts_agree(form):
    assert len(form.parameters) == len(form.roles) == len(form.words) == len(set(form.parameters))
    assert set(form.exponents) <= set(form.parameters)
    assert set(form.signed) <= set(form.parameters)
    assert form.floor in form.parameters
    assert form == type(form)(**{name: getattr(form, name) for name in form.__dataclass_fields__})
    assert hash(form) == hash(form)
    assert form.name
    for name in (*form.parameters,):
        stem = name.rsplit("_", 1)[0]
        assert stem in form.text, (name, form.text)


@given(SEEDS, st.sampled_from(FORMS))
@settings(max_examples=120, deadline=None)
def test_gradient_is_the_derivative(seed, form):
    theta, u, _ = coordinates(form, seed)
    value, gradient = form.evaluate(theta, u)
    step = 1e-6
    for index in range(len(theta)):
        shift = np.zeros_like(theta)
        shift[index] = step
        numeric = (form.value(theta + shift, u) - form.value(theta - shift, u)) / (2 * step)
        np.testing.assert_allclose(gradient[..., index], numeric, rtol=2e-5, atol=1e-8 * np.abs(value).max())


@given(SEEDS, st.sampled_from(FORMS))
@settings(max_examples=120, deadline=None)
def test_reported_gradient_is_the_derivative(seed, form):
    theta, _, centre = coordinates(form, seed)
    value, gradient = form.reported(theta, centre)
    step = 1e-6
    for index in range(len(theta)):
        shift = np.zeros_like(theta)
        shift[index] = step
        numeric = (form.reported(theta + shift, centre)[0] - form.reported(theta - shift, centre)[0]) / (2 * step)
        np.testing.assert_allclose(gradient[..., index], numeric, rtol=2e-5, atol=1e-8 * np.abs(value).max())


@given(SEEDS, st.sampled_from(FORMS))
@settings(max_examples=120, deadline=None)
def test_public_parameters_give_the_same_values(seed, form):
    theta, u, centre = coordinates(form, seed)
    logs = u + centre
    x = {axis: logs[:, i] if axis == "family" else np.exp(logs[:, i]) for i, axis in enumerate(form.axes)}
    p = dict(zip(form.parameters, form.public(theta, centre), strict=True))
    np.testing.assert_allclose(form.value(theta, u), formula(form, p, x), rtol=1e-9)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_batch_is_its_members(form):
    thetas = np.stack([coordinates(form, seed)[0] for seed in range(6)]).reshape(2, 3, -1)
    _, u, centre = coordinates(form, 0)
    value, gradient = form.evaluate(thetas, u)
    reported, slopes = form.reported(thetas, centre)
    for i in np.ndindex(2, 3):
        one, slope = form.evaluate(thetas[i], u)
        np.testing.assert_allclose(value[i], one, rtol=1e-12)
        np.testing.assert_allclose(gradient[i], slope, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(reported[i], form.reported(thetas[i], centre)[0], rtol=1e-12)
        np.testing.assert_allclose(slopes[i], form.reported(thetas[i], centre)[1], rtol=1e-12)


@pytest.mark.parametrize("form", [Additive(), Bounded(base=Additive(), ceiling=None)], ids=str)
def test_far_out_there_is_no_nan(form):
    theta, u, _ = coordinates(form, 1)
    with np.errstate(over="ignore", invalid="ignore"):
        value = form.value(theta + 300, u)
    assert not np.isnan(value).any()


def test_an_interaction_needs_n():
    form = WithBudget(base=PowerLaw(axis="d"), gain=InteractingGain())
    assert form.axes == ("n", "d", "beams")


def test_families_share_what_they_say():
    shared, separate = Families(base=Additive(), count=3), Families(base=Additive(), count=3, shared="none")
    assert shared.parameters[:2] == ("alpha", "beta")
    assert (len(shared.parameters), len(separate.parameters)) == (2 + 3 * 3, 15)


@pytest.mark.parametrize(
    "wrong", [lambda: Families(base=Additive(), count=1), lambda: Bounded(base=Additive(), ceiling=0)]
)
def test_forms_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match=r"two|positive"):
        wrong()


def test_between_bounds_endless_odds_are_flat() -> None:
    """Where the sum overflows the curve has reached its ceiling: no slope, and never a value that is no number."""
    form = Bounded(base=Joint(), ceiling=None)
    theta = np.array([[0.0, 0.0, np.log(50.0), np.log(50.0), -1.0, 0.0], [0.0, 0.0, 0.0, 0.0, -1.0, 0.0]])
    u = np.array([[-4.0, -4.0], [4.0, 4.0]])
    value, gradient = form.evaluate(theta, u)
    assert np.isfinite(value).all()
    assert np.isfinite(gradient).all()
    assert value[0, 0] == pytest.approx(1.0)
    np.testing.assert_array_equal(gradient[0, 0, :4], 0)
    assert (gradient[1, 0, :4] != 0).any()
