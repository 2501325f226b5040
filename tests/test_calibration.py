"""From measured seconds to foretold ones: what is recovered, what does no harm, and how far a little goes."""

import numpy as np
import pytest

from orchestrator.forecasting.calibration import Calibration, Measured
from orchestrator.forecasting.rates import TERMS, Parts, parts
from orchestrator.forecasting.work import Work
from orchestrator.nodes import Demand

ALONE = Demand()


def _training(pairs: int, n: float, demand: Demand = ALONE, device: str = "cpu") -> Parts:
    work = Work(flops=6.0 * n * 30 * pairs, items=pairs, passes=6 * pairs / 32)
    return parts("train", work, demand, device)


def _measured(foretold: Parts, truth: np.ndarray, noise: float = 1.0, **more: object) -> Measured:
    seconds = float(np.dot(foretold, truth)) * noise
    return Measured(**{"kind": "train", "device": "cpu", "parts": foretold, "seconds": seconds, **more})


GRID = [(pairs, n) for n in (1e4, 1e5, 4e5, 1e6) for pairs in (4_000, 16_000, 64_000)]


def _error(calibration: Calibration, foretold: Parts, truth: np.ndarray) -> float:
    return abs(calibration.seconds("train", "cpu", foretold) / float(np.dot(foretold, truth)) - 1)


def test_without_measurements_nothing_changes() -> None:
    foretold = _training(1000, 1e6)
    assert Calibration().seconds("train", "cpu", foretold) == pytest.approx(sum(foretold))
    assert Calibration().behind() == "uncalibrated"


def test_recovers_a_machine_that_is_slower_and_otherwise_balanced() -> None:
    """A truth that no single factor explains, measured with noise, and asked of larger models than were measured."""
    rng = np.random.default_rng(0)
    truth = np.array([3.0, 1.0, 3.5, 2.5, 1.5, 1.0, 1.0])
    measured = [_measured(_training(*point), truth, float(rng.lognormal(0, 0.05))) for point in GRID]
    calibration = Calibration().after(measured)
    assert max(_error(calibration, _training(*point), truth) for point in GRID) < 0.15
    assert _error(calibration, _training(256_000, 4e6), truth) < 0.25
    assert _error(Calibration(), _training(256_000, 4e6), truth) > 0.3
    assert calibration.behind() == "calibrated from 12 finished steps on cpu"


def test_one_measurement_only_rescales() -> None:
    foretold = _training(4_000, 1e5)
    one = Measured(kind="train", device="cpu", parts=foretold, seconds=3 * sum(foretold))
    calibration = Calibration().after([one])
    for point in GRID:
        other = _training(*point)
        assert calibration.seconds("train", "cpu", other) == pytest.approx(3 * sum(other), rel=1e-3)


@pytest.mark.parametrize("wrong", [0.05, 20.0])
def test_one_outlier_is_harmless(wrong: float) -> None:
    truth = np.full(len(TERMS), 2.0)
    measured = [_measured(_training(*point), truth) for point in GRID]
    outlier = _measured(_training(16_000, 4e5), truth, wrong)
    calibration = Calibration().after([*measured, outlier])
    assert max(_error(calibration, _training(*point), truth) for point in GRID) < 0.15


def test_newer_measurements_correct_older_ones() -> None:
    """The machine has become half as fast; what was learnt of its balance stays."""
    truth = np.array([3.0, 1.0, 3.5, 2.5, 1.5, 1.0, 1.0])
    before = Calibration().after(_measured(_training(*point), truth) for point in GRID)
    now = before.after([_measured(_training(4_000, 1e5), 2 * truth)])
    assert max(_error(now, _training(*point), 2 * truth) for point in GRID) < 0.2
    assert now.counts["train", "cpu"] == 13


def test_faded_measurements_count_less() -> None:
    foretold = _training(16_000, 1e5)
    slow = [Measured(kind="train", device="cpu", parts=foretold, seconds=4 * sum(foretold), weight=0.05)] * 4
    fast = [Measured(kind="train", device="cpu", parts=foretold, seconds=sum(foretold))] * 2
    calibration = Calibration().after([*slow, *fast])
    assert calibration.seconds("train", "cpu", foretold) < 1.3 * sum(foretold)


def test_what_was_not_measured_follows_its_like() -> None:
    truth = np.full(len(TERMS), 4.0)
    calibration = Calibration().after(_measured(_training(*point), truth) for point in GRID)
    search = parts("search", Work(flops=1e10, items=1e5), ALONE, "cpu")
    tokenizer = parts("tokenizer", Work(documents=2000), ALONE, "cpu")
    assert 2.5 * sum(search) < calibration.seconds("search", "cpu", search) <= 4.1 * sum(search)
    assert calibration.seconds("tokenizer", "cpu", tokenizer) == pytest.approx(sum(tokenizer))
    on_gpu = _training(64_000, 1e9, Demand(gpus=1), "A100-80GB")
    assert calibration.seconds("train", "A100-80GB", on_gpu) == pytest.approx(sum(on_gpu))


def test_a_gpu_tells_of_another_type() -> None:
    """What one GPU reaches of its peak, and loses beside it, another is taken to reach and lose."""
    demand = Demand(gpus=1)
    measured = [
        Measured(kind="train", device="A100-80GB", parts=foretold, seconds=2 * sum(foretold))
        for foretold in (_training(*point, demand, "A100-80GB") for point in GRID)
    ]
    other = _training(64_000, 1e9, demand, "H100-80GB")
    assert 1.5 * sum(other) < Calibration().after(measured).seconds("train", "H100-80GB", other) < 2.1 * sum(other)


def test_steps_that_took_no_time_say_nothing() -> None:
    nothing = Measured(kind="train", device="cpu", parts=_training(1, 1.0), seconds=0.0)
    assert Calibration().after([nothing]).counts == {}


def test_first_steps_that_compile_are_not_taken_for_the_rule() -> None:
    """Two searches of half a second took a minute; the trainings say that the machine is as fast as foretold."""
    truth = np.ones(len(TERMS))
    trainings = [_measured(_training(*point), truth) for point in GRID]
    search = parts("search", Work(flops=1e9, items=3e4), ALONE, "cpu")
    slow = [Measured(kind="search", device="cpu", parts=search, seconds=60.0)] * 2
    calibration = Calibration().after([*trainings, *slow])
    assert calibration.seconds("search", "cpu", search) < 3 * sum(search)
    # As they go on like this, they are believed.
    believed = Calibration().after([*trainings, *slow * 20]).seconds("search", "cpu", search)
    assert believed == pytest.approx(60.0, rel=0.3)


def test_what_is_known_from_before_changes_with_its_like() -> None:
    truth = np.ones(len(TERMS))
    search = parts("search", Work(flops=1e9, items=3e4), ALONE, "cpu")
    searches = [Measured(kind="search", device="cpu", parts=search, seconds=2 * sum(search))] * 30
    before = Calibration().after([*(_measured(_training(*point), truth) for point in GRID), *searches])
    after = before.after([_measured(_training(*point), 3 * truth) for point in GRID])
    was = before.seconds("search", "cpu", search)
    assert after.seconds("search", "cpu", search) == pytest.approx(3 * was, rel=0.1)
