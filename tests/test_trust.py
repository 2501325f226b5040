"""Verdicts and what they stand on: noise, truths, hidden breaks, hold-outs, rivals."""

import math
from collections import Counter

import laws_data as data
import numpy as np
import pytest

from laws import AddedGain, Additive, Joint, Options, PowerLaw, WithBudget, fit
from laws.points import Points
from laws.trust.alternatives import alternatives
from laws.trust.card import card
from laws.trust.comparison import NULL, compare
from laws.trust.holdouts import compute, hold_outs
from laws.trust.residuals import null_model, residuals_of
from laws.trust.structure import structure
from laws.trust.verdict import evidence, judge, refused

QUICK = Options(starts=24, bootstraps=60)
BARE = Options(starts=24, bootstraps=0, intervals=False)
LINE = PowerLaw(axis="n")


def line(count):
    return np.geomspace(1e4, 1e7, count), np.full(count, 1e5)


def grid(sizes, scales):
    n, d = np.meshgrid(np.geomspace(1e4, 1e7, sizes), np.geomspace(1e4, 1e6, scales))
    return n.ravel(), d.ravel()


SHAPES = {
    "line of 5": (LINE, line(5)),
    "line of 8": (LINE, line(8)),
    "line of 12": (LINE, line(12)),
    "4 x 4, additive": (Additive(), grid(4, 4)),
    "5 x 5, joint": (Joint(), grid(5, 5)),
    "6 x 8, additive": (Additive(), grid(6, 8)),
}


def truth(form, n, d):
    if form == LINE:
        return (2e4 / n) ** 0.4 + 0.5
    if isinstance(form, Additive):
        return 1 + 200 / n**0.45 + 60 / d**0.4
    return ((2e4 / d) ** (0.5 / 0.8) + 5e3 / n) ** 0.8 + 0.5


def noisy(y, noise, seed):
    return y * (1 + noise * np.random.default_rng(seed).standard_normal(len(y)))


def words(form, n, d, draw, repeats, options=QUICK):
    """Verdicts on repeats of a draw (seed) -> y."""
    found = []
    for seed in range(repeats):
        points = data.points(n, d, draw(seed))
        found.append(judge(fit(form, points, options), points).word)
    return Counter(found)


# ---------------------------------------------------------------- noise, truths, breaks


@pytest.mark.parametrize("shape", SHAPES)
def test_pure_noise_is_no_law(shape):
    form, (n, d) = SHAPES[shape]
    found = words(form, n, d, lambda seed: 4 + 0.1 * np.random.default_rng(seed).standard_normal(len(n)), 20, BARE)
    assert found["no law"] >= 19
    assert not found["supported"]


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_pure_noise_is_no_law_in_200(shape):
    form, (n, d) = SHAPES[shape]
    found = words(form, n, d, lambda seed: 4 + 0.1 * np.random.default_rng(seed).standard_normal(len(n)), 200, BARE)
    assert found["no law"] >= 190
    assert not found["supported"]


def test_noise_that_the_budgets_of_a_training_share_is_no_law():
    """With 16 trainings seen at 6 budgets each, 96 values are not 96 pieces of evidence."""
    n, d = grid(4, 4)
    beams = np.tile([1, 2, 4, 8, 16, 32], 16)
    form, found = WithBudget(base=Additive()), []
    for seed in range(12):
        luck = np.random.default_rng(seed).standard_normal(16)
        y = np.repeat(4 + 0.1 * luck, 6)
        points = Points(n=np.repeat(n, 6), d=np.repeat(d, 6), y=y, beams=beams.astype(float))
        points = data.points(
            points.n, points.d, y + 1e-3 * np.random.default_rng(seed).standard_normal(96), beams=beams
        )
        found.append(judge(fit(form, points, BARE), points).word)
    assert found.count("no law") >= 11


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "line of 5"])
def test_truths_are_supported(shape):
    form, (n, d) = SHAPES[shape]
    found = words(form, n, d, lambda seed: noisy(truth(form, n, d), 0.01, seed), 12)
    assert found["supported"] >= 8
    assert found["supported"] + found["weak"] == 12


def broken(kind, form, n, d):
    """The truth, with a break in the middle of an axis."""
    if kind == "plateau":
        y = truth(form, n, d)
        return np.maximum(y, np.quantile(y, 0.4))
    if kind == "step":
        return truth(form, n, d) * np.where(n > 3.2e5, 0.85, 1)
    if kind == "step in D":
        return truth(form, n, d) * np.where(d > 1.05e5, 0.85, 1)
    slower = {"slower": 0.2, "faster": 2.5}[kind]
    return truth(form, np.where(n < 3.2e5, n, 3.2e5 * (n / 3.2e5) ** slower), d)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        *((kind, "line of 12") for kind in ("plateau", "step", "slower", "faster")),
        *((kind, "6 x 8, additive") for kind in ("plateau", "step", "slower", "faster", "step in D")),
        *((kind, "4 x 4, additive") for kind in ("plateau", "step", "faster", "step in D")),
        *((kind, "5 x 5, joint") for kind in ("plateau", "step", "step in D")),
    ],
)
def test_hidden_breaks_are_not_supported(kind, shape):
    """Of breaks that can be seen: the best law without them misses the points by several times the noise."""
    form, (n, d) = SHAPES[shape]
    clean = data.points(n, d, broken(kind, form, n, d))
    missed = residuals_of(law := fit(form, clean, BARE), clean).values / clean.y
    assert law.r2 > 0.9
    assert float((missed**2).sum()) > 25 * 0.01**2
    noise = 0.005 if form == LINE else 0.01  # few points along a line: a break must stand out further to be seen
    found = words(form, n, d, lambda seed: noisy(clean.y, noise, seed), 8)
    assert found["supported"] <= 1


# ---------------------------------------------------------------- structure


def test_structure_names_the_break():
    n, d = line(12)
    y = noisy((2e4 / np.minimum(n, 4e5)) ** 0.4 + 0.5, 0.002, 0)
    found = structure(fit(LINE, data.points(n, d, y), BARE), data.points(n, d, y))
    assert found.p < 0.01
    assert found.what.startswith("a break in N at ")
    assert found.share > 0.8


def test_structure_finds_the_wrong_form():
    n, d = grid(6, 6)
    points = data.points(n, d, noisy(truth(Additive(), n, d), 0.005, 0))
    found = structure(fit(Joint(), points, BARE), points)
    assert found.p < 0.01
    assert structure(fit(Additive(), points, BARE), points).p > 0.05


def test_structure_needs_something_left_over():
    n, d = line(4)
    points = data.points(n, d, noisy(truth(LINE, n, d), 0.01, 0))
    assert structure(fit(LINE, points, BARE), points) is None


def test_seeds_show_lack_of_fit():
    n, d = line(6)
    n, d = np.tile(n, 3), np.tile(d, 3)
    clean = (2e4 / np.minimum(n, 4e5)) ** 0.4 + 0.5
    tested = {}
    for name, y in (("true", truth(LINE, n, d)), ("broken", clean)):
        points = data.points(n, d, noisy(y, 0.005, 1))
        tested[name] = structure(fit(LINE, points, BARE), points).lack_of_fit
    assert tested["broken"] < 0.01 < tested["true"]


def test_directions_are_derivatives_of_the_alternatives():
    """By differences, for every alternative of a law over three axes."""
    n, d = grid(4, 4)
    beams = np.repeat([1.0, 4.0, 16.0, 64.0], 16)
    y = np.tile(truth(Additive(), n, d), 4) + 0.5 / beams**0.5
    points = data.points(np.tile(n, 4), np.tile(d, 4), noisy(y, 0.01, 0), beams=beams)
    law = fit(WithBudget(base=Additive()), points, BARE)
    u = residuals_of(law, points).problem.u
    found = alternatives(law, points)
    assert {"step", "break", "bend", "interaction"} == {word for one in found for word in one.name.split()[1:2]}
    for one in found:
        step = 1e-4
        ends = [one.value(law, law.theta, size, u)[0] for size in (step, -step)]
        np.testing.assert_allclose(one.direction(law, u), (ends[0] - ends[1]) / (2 * step), rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(one.value(law, law.theta, 0.0, u)[0], law.form.value(law.theta, u))


# ---------------------------------------------------------------- hold-outs


def test_hold_outs_are_the_largest_of_each_axis_and_of_compute():
    n, d = grid(5, 5)
    points = data.points(n, d, noisy(truth(Additive(), n, d), 0.01, 0))
    found = {held.axis: held for held in hold_outs(Additive(), points, QUICK)}
    assert set(found) == {"N", "D", "compute"}
    assert found["N"].held == (n.max(),)
    assert (found["N"].n_train, found["N"].n_held) == (20, 5)
    assert found["compute"].held[0] > np.median(n * d)
    kept = points.where(n < n.max())
    law = fit(Additive(), kept, QUICK)
    asked = points.where(n == n.max())
    assert found["N"].measured == pytest.approx(asked.y.mean())
    assert found["N"].predicted == pytest.approx(law.predict([asked.n, asked.d]).mean(), rel=1e-4)
    assert found["N"].error == pytest.approx(found["N"].predicted / found["N"].measured - 1)


def test_measured_compute_counts_where_it_is_known():
    n, d = grid(4, 4)
    flops = 6 * n * d[::-1]
    points = data.points(n, d, truth(Additive(), n, d), train_flops=flops)
    np.testing.assert_array_equal(compute(points), flops)
    flops[0] = math.nan
    np.testing.assert_array_equal(compute(points), n * d)


def test_hold_outs_lie_in_their_bands_as_often_as_said():
    inside = []
    for seed in range(40):
        n, d = line(9)
        points = data.points(n, d, truth(LINE, n, d) + 0.02 * np.random.default_rng(seed).standard_normal(9))
        (held,) = hold_outs(LINE, points, QUICK)
        inside.append(held.inside)
        assert held.inside == (held.p > 0.1) or abs(held.p - 0.1) < 0.02
    assert 0.75 <= np.mean(inside) <= 1.0


def test_hold_outs_that_leave_too_little_are_not_there():
    n = np.array([*data.LLAMA_N[:1] * 5, *data.LLAMA_N[1:]], float)
    d = np.array([*data.FRACTIONS, *data.FRACTIONS[-1:] * 2], float)
    points = data.points(n, d, [*data.LLAMA_BY_D, *data.LLAMA_BY_N[1:]])
    assert hold_outs(Joint(), points, QUICK) == ()


def test_a_hold_out_that_fails_is_told():
    n, d = line(10)
    y = noisy(truth(LINE, n, d), 0.003, 0)
    y[-1] *= 1.2
    points = data.points(n, d, y)
    verdict = judge(fit(LINE, points, QUICK), points)
    assert verdict.word == "weak"
    assert "fitted without the largest N (10M)" in verdict.reason


# ---------------------------------------------------------------- budgets of few trainings


def _twelve_trainings(draw_of_run, draw_of_row, share=0.05):
    """Three N, four D, three numbers of beams: 12 values with luck of their own, for a form of seven parameters."""
    n, d, beams = (
        axis.ravel() for axis in np.meshgrid([7e3, 3e4, 1e5], [2e3, 5e3, 13e3, 32e3], [1.0, 4.0, 16.0], indexing="ij")
    )
    luck = np.repeat(draw_of_run, 3) + draw_of_row
    return n, d, beams, share * luck


@pytest.mark.parametrize(("of_run", "of_row"), [(0, 1), (1, 0.1)], ids=["luck of rows", "luck of trainings"])
def test_noise_over_budgets_is_no_law(of_run, of_row):
    form = WithBudget(base=Additive(), gain=AddedGain())
    for seed in range(12):
        rng = np.random.default_rng(seed)
        n, d, beams, luck = _twelve_trainings(of_run * rng.standard_normal(12), of_row * rng.standard_normal(36))
        points = data.points(
            n, d, 0.7 * (1 + luck), beams=beams, run=tuple(f"{a}-{b}" for a, b in zip(n, d, strict=True))
        )
        found = refused(fit(form, points, BARE), points)
        assert found is not None
        assert found.word == "no law"


def test_few_trainings_with_a_gain_from_beams_are_not_taken_for_noise():
    form = WithBudget(base=Additive(), gain=AddedGain())
    rng = np.random.default_rng(0)
    n, d, beams, luck = _twelve_trainings(rng.standard_normal(12), 0.1 * rng.standard_normal(36), share=0.02)
    y = (0.2 + 3 / n**0.3 + 8 / d**0.4 + 0.2 / beams**0.5) * (1 + luck)
    points = data.points(n, d, y, beams=beams, run=tuple(f"{a}-{b}" for a, b in zip(n, d, strict=True)))
    assert refused(fit(form, points, BARE), points) is None


# ---------------------------------------------------------------- rivals


def test_comparison_ranks_the_truth_first_and_the_mean_last():
    n, d = grid(5, 5)
    points = data.points(n, d, noisy(truth(Additive(), n, d), 0.01, 0))
    found = compare([(fit(form, points, BARE), points) for form in (Joint(), Additive())])
    assert [rival.name for rival in found.rivals] == ["additive", "joint", NULL]
    assert found.best.behind == 0
    null = found.rivals[-1]
    assert null.k == 1
    assert null.objective == pytest.approx(((points.y - points.y.mean()) ** 2).sum())
    # by hand: Gaussian residuals of unknown size, so two parameters
    size = len(points)
    by_hand = size * (np.log(2 * np.pi * null.objective / size) + 1) + 2 * 2 + 2 * 2 * 3 / (size - 3)
    assert null.aicc == pytest.approx(by_hand)
    weak = judge(fit(Joint(), points, QUICK), points, evidence(fit(Joint(), points, QUICK), points, found))
    assert "the additive form describes the points far better" in weak.reason


@pytest.mark.parametrize("loss", ["squared", "relative", "huber-log"])
def test_the_null_model_is_the_best_constant_of_the_loss(loss):
    n, d = line(9)
    options = Options(starts=24, bootstraps=0, loss=loss, delta=0.05)
    points = data.points(n, d, noisy(truth(LINE, n, d), 0.01, 0))
    law = fit(LINE, points, options)
    null = null_model(law, points)
    constants = np.linspace(points.y.min(), points.y.max(), 4001)
    off = points.y - constants[:, None] if loss == "squared" else np.log(points.y / constants[:, None])
    size = np.abs(off)
    costs = off**2 if loss != "huber-log" else np.where(size < 0.05, size**2 / 2, 0.05 * (size - 0.025))
    assert null.objective == pytest.approx(costs.sum(axis=1).min(), rel=1e-4)
    assert 0.9 < null.explained < 1


def test_cards_say_what_was_fitted():
    n, d = grid(4, 4)
    points = data.points(n, d, noisy(truth(Additive(), n, d), 0.01, 0), run=tuple(map(str, range(16))))
    law = fit(Additive(), points, Options(starts=24, bootstraps=60, loss="huber-log", delta=0.01))
    found = card(law, points, {"N": "parameters"}, {"beams": 16.0}, "a paper")
    assert found.points == "16 points, 16 distinct, 16 trainings; N 10k to 10M (4 values), D 10k to 1M (4 values)"
    assert "delta 0.01" in found.loss
    assert (found.starts, found.bootstraps, found.seed) == (law.starts, 60, 0)
    assert found.held == {"beams": 16.0}
    assert {"numpy", "scipy", "python"} <= set(found.versions)
