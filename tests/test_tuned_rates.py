"""What the report makes of studies: the best rate of a size, how sure it is, and where it goes with N."""

import math
from dataclasses import replace

import numpy as np
import pytest

from laws import tuning as rates_of


def _study(n: float, optimum: float, *, seed: int = 0, noise: float = 0.005, rates: int = 9) -> rates_of.Study:
    rng = np.random.default_rng(seed)
    attempts = []
    for rate in np.geomspace(optimum / 6, optimum * 6, rates):
        loss = 3.0 + 0.2 * math.log(rate / optimum) ** 2 + noise * rng.standard_normal()
        attempts.append(
            rates_of.Attempt(
                learning_rate=float(rate),
                batch=32,
                share=1.0,
                dev_loss=loss,
                state="trained",
                seconds=1.0,
                is_own=False,
                is_chosen=False,
            )
        )
    best = min(attempts, key=lambda one: one.dev_loss)
    attempts[attempts.index(best)] = replace(best, is_chosen=True)
    return rates_of.Study(
        grid="g", corpus="c", corpus_hash="h", identifiers="ngram", family="t5", model=f"t5-{n:g}", n_params=n,
        d_pairs=50, epochs=2, metric="dev_cgl", chance=4.0, attempts=tuple(attempts),
    )  # fmt: skip


def test_the_interval_of_the_optimum_holds_it_as_often_as_it_says() -> None:
    fitted = [_study(1e4, 0.01, seed=seed, noise=0.02).parabola for seed in range(400)]
    held = np.mean([one is not None and one.lo <= 0.01 <= one.hi for one in fitted])
    assert 0.91 <= held <= 0.99
    exact = _study(1e4, 0.01, noise=0.0).parabola
    assert exact is not None
    assert exact.optimum == pytest.approx(0.01)
    assert (exact.least, exact.curvature) == (pytest.approx(3.0), pytest.approx(0.2))


def test_no_parabola_without_a_minimum_or_with_too_few_rates() -> None:
    rates = list(np.geomspace(1e-3, 1e-1, 6))
    assert rates_of.fit_parabola(rates, [6.0, 5.0, 4.0, 3.0, 2.5, 2.2]) is None
    assert rates_of.fit_parabola(rates, [1.0, 2.0, 3.0, 3.0, 2.0, 1.0]) is None
    assert rates_of.fit_parabola(rates[:4], [3.0, 2.0, 2.0, 3.0]) is None


def test_the_best_rate_is_followed_over_sizes() -> None:
    sizes = (1e4, 1e5, 1e6)
    (transfer,) = rates_of.transfers(_study(n, 0.02 * (n / 1e4) ** -0.25, noise=0.0) for n in reversed(sizes))
    assert [study.n_params for study in transfer.studies] == list(sizes)
    assert transfer.slope == pytest.approx(-0.25)
    assert transfer.error < 1e-6
    wanted = [0.2 * (0.25 * math.log(n / 1e4)) ** 2 for n in sizes]
    assert transfer.regrets == pytest.approx(wanted, abs=1e-9)
    assert math.isnan(rates_of.transfers([_study(1e4, 0.01)])[0].slope)
    far = rates_of.transfers([_study(1e4, 1.0, noise=0.0), _study(1e5, 1e-3, noise=0.0)])[0]
    assert math.isnan(far.regrets[1]), "nobody has tried the rate of the smallest at the larger size"
