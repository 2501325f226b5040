"""Learning rates are searched for once, durably, on queries that measure nothing else, and become part of keys."""

import os
import re
import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from tiny_grids import TUNED, write_grid

from orchestrator.grid import Loaded, load
from orchestrator.steps import Graph, expand, recipe_of
from orchestrator.tuning import studies, tuned
from orchestrator.tuning_settings import Tuned, TuneJob
from workers.errors import BadInput
from workers.settings import (
    ModelSettings,
    TrainingSettings,
)


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    return write_grid(tmp_path, TUNED)


def _load(grid: Path, *overrides: str) -> Loaded:
    return load(grid, overrides)


# ---------------------------------------------------------------- what a grid may ask for


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["tuning.learning_rate=[3e-2, 1e-4]"], "tuning.learning_rate: must rise, such as [1e-4, 3e-2], not [0.03, "),
        (["tuning.learning_rate=[0.1, 0.1]"], "tuning.learning_rate: must rise"),
        (["tuning.trials=2"], "tuning.trials: "),
        (["tuning.models=[t5-7k, t5-1k]"], "tuning.models.1: 't5-1k' is no model; there are t5-7k, t5-29k"),
        (["models.1.learning_rate=0.01"], "models.1.learning_rate: is given to a model that is tuned"),
        (["training.learning_rate=0.01"], "training.learning_rate: would have no effect: every model's is tuned"),
        (["evaluation.split=dev"], "evaluation.split: must be `test`"),
        (["tuning.batch=[32, 33]", "resources.workers_per_training=2"], "tuning.batch.1: 33 pairs cannot be cut"),
        (["tuning.batch=[]"], "tuning.batch: holds no value"),
        (["tuning.pears=4"], "tuning.pears: unknown key; did you mean `pairs`?"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_in_one_line(grid: Path, overrides: list[str], line: str) -> None:
    with pytest.raises(BadInput) as caught:
        _load(grid, *overrides)
    assert str(caught.value).startswith(f"--set: {line}") or str(caught.value).startswith(f"{grid}: {line}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("queries", "overrides", "line"),
    [
        ({"dev": 0, "test": 5}, [], "tuning: needs held-out dev queries"),
        ({"dev": 5, "test": 5}, ["tuning.pairs=9000"], "tuning.pairs: 9000 is more than the corpus has; the largest D"),
    ],
)  # fmt: skip
def test_what_the_corpus_does_not_give_is_refused(grid: Path, queries: dict, overrides: list[str], line: str) -> None:
    summary = {"queries": {"train": 100, **queries}, "train_pairs": 100, "documents": 9}
    with pytest.raises(BadInput, match=re.escape(line)):
        tuned.check(_load(grid, *overrides), summary, None)
    tuned.check(_load(grid), {**summary, "queries": {"train": 100, "dev": 1, "test": 1}}, None)


# ---------------------------------------------------------------- keys


def _trainings(graph: Graph) -> set[str]:
    return {step.key for step in graph.steps.values() if step.kind == "train"}


def _tuned(graph: Graph, **values: float) -> dict[str, Tuned]:
    found = Tuned(dev_loss=1.0, trials=6, **{"learning_rate": 0.02, **values})
    return {step.key: found for step in tuned.studies(graph)}


def test_a_training_has_the_key_of_its_learning_rate_wherever_that_is_from(grid: Path) -> None:
    plain = _load(grid, "tuning=null", "models=[{family: t5, size: [7k, 29k], learning_rate: 0.02}]").grid
    asked = _load(grid).grid
    graph = expand(asked)
    assert len(tuned.studies(graph)) == 2
    assert not _trainings(graph) & _trainings(expand(plain)), "before the studies no key is final"
    assert all("tune" in dict(graph.steps[key].needs) for key in _trainings(graph))
    after = expand(asked, _tuned(graph))
    assert _trainings(after) == _trainings(expand(plain))
    assert not _trainings(after) & _trainings(expand(asked, _tuned(graph, learning_rate=0.03)))
    assert {trial.trial for trial in after.trials} == {trial.trial for trial in expand(plain).trials}
    assert [step.key for step in tuned.studies(after)] == [step.key for step in tuned.studies(graph)]


def test_a_model_that_is_not_tuned_keeps_its_key(grid: Path) -> None:
    part = _load(grid, "tuning.models=t5-29k").grid
    untuned = expand(_load(grid, "tuning=null").grid)
    graph = expand(part)
    assert len(tuned.studies(graph)) == 1
    assert len(_trainings(graph) & _trainings(untuned)) == 2
    assert graph.tunes.keys() == _trainings(graph) - _trainings(untuned)


def test_a_tuned_batch_is_in_the_key_and_does_not_split_a_law(grid: Path) -> None:
    asked = _load(grid, "tuning.batch=[16, 64]").grid
    graph = expand(asked)
    small, large = (expand(asked, _tuned(graph, batch=batch)) for batch in (16, 64))
    assert not _trainings(small) & _trainings(large)
    assert len({recipe_of(each, trial) for each in (small, large) for trial in each.trials}) == 1
    fixed = [expand(_load(grid, "tuning=null", f"training.batch={batch}").grid) for batch in (16, 64)]
    assert len({recipe_of(each, trial) for each in fixed for trial in each.trials}) == 2


def test_what_a_study_finds_depends_on_its_settings(grid: Path) -> None:
    keys = set()
    overrides = ("tuning.pairs=50", "tuning.pairs=60", "tuning.trials=7", "tuning.grace=1.0", "tuning.seed=1")
    for override in (*overrides, "tuning.learning_rate=[1e-3, 2e-1]", "training.epochs=5", "training.clip=0.5"):
        keys.add(tuned.studies(expand(_load(grid, override).grid))[0].key)
    assert len(keys) == 8
    same = tuned.studies(expand(_load(grid, "data.pairs=10", "training.log_every=1", "seeds=3").grid))
    assert same[0].key in keys, "what the grid trains, and what is only shown, do not matter"


# ---------------------------------------------------------------- the journal


def _job(**changes: object) -> TuneJob:
    values = {
        "model": ModelSettings(family="t5", size="7k"), "training": TrainingSettings(), "pairs": 50, "seed": 0,
        "first": 0.015, "trials": 12, "learning_rate": (1e-3, 1e-1), "batch": (), "metric": "dev_nll", "grace": 0.25,
        "reduction": 3, "negatives": 8, "budget": None,
    }  # fmt: skip
    return TuneJob.model_validate(values | changes)


def test_looks_are_the_rungs_and_the_end() -> None:
    assert _job().looks.shares == (0.25, 0.75, 1.0)
    assert _job(grace=0.5, reduction=2).looks.shares == (0.5, 1.0)
    assert _job(grace=1.0).looks.shares == (1.0,)
    assert _job(grace=0.01, reduction=10).looks.shares == pytest.approx((0.01, 0.1, 1.0))


def test_a_study_begins_with_the_models_own_rate_and_the_whole_range() -> None:
    rates = [values["learning_rate"] for values in studies.opening(_job())]
    assert rates[0] == 0.015
    assert rates[1:] == sorted(rates[1:])
    assert min(rates) < 3e-3
    assert max(rates) > 3e-2
    assert len(studies.opening(_job(first=0.5))) == 4, "a rate outside the range is not tried"
    assert {values["batch"] for values in studies.opening(_job(batch=(16, 32)))} == {16, 32}
    near = studies.opening(_job(first=1e-3 * 100 ** (0.5 / 4) * 1.01))
    assert len(near) == 4, "and none twice"


def test_a_killed_study_goes_on_with_what_it_has(tmp_path: Path) -> None:
    journal = tmp_path / "study.journal"
    study = studies.take_up(studies.open_journal(journal), _job())
    space = {"learning_rate": optuna.distributions.FloatDistribution(1e-3, 1e-1, log=True)}
    done, stopped, diverged, running = (study.ask(space) for _ in range(4))
    for share, nll in enumerate((3.0, 2.0, 1.0), start=1):
        done.report(nll, share)
    study.tell(done, 1.0)
    stopped.report(3.5, 1)
    study.tell(stopped, state=TrialState.PRUNED)
    study.tell(diverged, studies.DIVERGED_LOSS)
    with journal.open("ab") as file:
        file.write(b'{"op_code": 5, "torn')  # by the kill, which leaves the lock as well
    os.symlink(journal, f"{journal}.lock")

    began = time.monotonic()
    again = studies.take_up(studies.open_journal(journal), _job())
    assert time.monotonic() - began < 20, "nobody waits for the lock of the dead"
    states = [trial.state for trial in again.get_trials()]
    assert states[:4] == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.COMPLETE, TrialState.FAIL]
    waiting = again.get_trials(states=[TrialState.WAITING])
    assert running.params in [trial.system_attrs.get("fixed_params") for trial in waiting], "it is done anew"
    assert studies.best_of(_job(), again).learning_rate == done.params["learning_rate"]
    rows = studies.trial_rows(_job(), again)
    assert [row["state"] for row in rows] == ["trained", "stopped", "diverged", "failed"]
    assert rows[0]["shares"] == [0.25, 0.75, 1.0]
    assert [row["dev_loss"] for row in rows] == [1.0, 3.5, None, None]
    assert [row["is_chosen"] for row in rows] == [True, False, False, False]
    assert [row["is_own"] for row in rows] == [True, False, False, False]


def test_where_nothing_is_learnt_the_models_own_rate_stays(tmp_path: Path) -> None:
    job = _job(metric="dev_cgl", negatives=8)
    study = studies.take_up(studies.open_journal(tmp_path / "study.journal"), job)
    space = {"learning_rate": optuna.distributions.FloatDistribution(1e-3, 1e-1, log=True)}
    own, timid = study.ask(space), study.ask(space)
    for trial, loss in ((own, 2.5), (timid, 2.3)):
        trial.report(loss, 1)
        study.tell(trial, loss)
    found = studies.best_of(job, study)
    assert not found.has_learnt
    assert found.learning_rate == 0.015
    assert "stays the model's own: no rate does better than chance, 2.197" in studies.remark(job, found)
    keen = study.ask(space)
    keen.report(2.0, 1)
    study.tell(keen, 2.0)
    found = studies.best_of(job, study)
    assert found.has_learnt
    assert found.learning_rate == keen.params["learning_rate"]
