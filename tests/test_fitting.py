"""How steps are cut to fit: halved batches divide what they must, and keys are none of it."""

import pytest

from orchestrator.nodes import ANY, Demand
from orchestrator.running.fitting import EVALUATION_HALVINGS, fitted, may_halve, micro_batch, placement
from workers.settings import Budget, EvaluationSettings, ModelSettings, SearchJob, TrainingSettings, TrainJob


def _job(**training: object) -> TrainJob:
    settings = TrainingSettings(learning_rate=1e-3, **training)
    return TrainJob(model=ModelSettings(family="t5", size="7k"), training=settings, pairs=100, seed=0)


def test_on_a_cpu_the_whole_share_stays_in_one_pass() -> None:
    training = fitted(_job(batch=32), ANY, 1, 0).training
    assert (training.micro_batch, training.zero_stage, training.offload) == (None, 0, "none")


@pytest.mark.parametrize(("batch", "ranks", "sizes"), [(32, 1, [16, 8, 4, 2, 1]), (24, 2, [6, 3, 1]), (15, 1, [1])])
def test_batches_are_halved_to_single_pairs(batch: int, ranks: int, sizes: list[int]) -> None:
    job, demand = _job(batch=batch), Demand(workers=ranks)
    found = []
    for halvings in range(1, 10):
        if not may_halve(job, demand, halvings - 1):
            break
        found.append(fitted(job, demand, ranks, halvings).training.micro_batch)
    assert found == sizes
    assert all(batch % (size * ranks) == 0 for size in found)


def test_what_was_chosen_or_given_is_where_halving_begins() -> None:
    assert micro_batch(_job(batch=64), Demand(micro_batch=16), 1, 1) == 8
    assert micro_batch(_job(batch=64, micro_batch=4), Demand(micro_batch=16), 1, 1) == 2


def test_an_evaluation_gets_less_memory_for_a_batch() -> None:
    job = SearchJob(evaluation=EvaluationSettings(memory_mb=64), budget=Budget(beams=4))
    assert fitted(job, ANY, 1, 0) is job
    assert fitted(job, ANY, 1, 3).evaluation.memory_mb == 8
    assert fitted(job.model_copy(update={"evaluation": EvaluationSettings()}), ANY, 1, 1).evaluation.memory_mb == 64
    assert may_halve(job, ANY, EVALUATION_HALVINGS - 1)
    assert not may_halve(job, ANY, EVALUATION_HALVINGS)


def test_an_attempt_records_how_it_was_cut() -> None:
    said = placement(fitted(_job(batch=32), Demand(workers=2, zero_stage=2), 2, 1), 2)
    assert said == {"workers": 2, "zero_stage": 2, "offload": "none", "micro_batch": 8}
