"""Learning rates are searched for once, durably, on queries that measure nothing else, and become part of keys."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
import sweep_jobs
from conftest import Steps
from optuna.trial import TrialState
from ray.cluster_utils import Cluster

from laws import tuning as rates_of
from laws.command import run as fit_laws
from orchestrator import studies, tuned
from orchestrator.grid import Loaded, load
from orchestrator.steps import Graph, expand, recipe_of
from orchestrator.sweep import Request, carry_out
from orchestrator.tuning_settings import Tuned, TuneJob
from results import schema, tables
from results.store import open_store
from workers import training, tuning
from workers.errors import BadInput, Diverged
from workers.evaluation import score
from workers.identifiers.sets import IdentifierSet
from workers.settings import (
    EvaluationSettings,
    LookSettings,
    ModelSettings,
    ScoreJob,
    TrainingSettings,
    TrainJob,
)

HERE = Path(__file__).resolve().parent

GRID = """
name: tiny
corpus: {source: jsonl, path: corpus.jsonl}
identifiers: {kind: ngram}
models: [{family: t5, size: 7k}, {family: t5, size: 29k}]
data: {pairs: [10, 20]}
inference: {beams: [1, 4]}
tuning: {pairs: 50, trials: 6, learning_rate: [1e-3, 1e-1]}
resources: {workers: 2, cpus_per_worker: 0.5}
tracking: {wandb: "off"}
"""


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    (tmp_path / "corpus.jsonl").write_text('{"text": "a b c", "queries": ["x y"]}\n')
    path = tmp_path / "tiny.yaml"
    path.write_text(GRID)
    return path


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
        "reduction": 3, "negatives": 8,
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


# ---------------------------------------------------------------- a whole sweep, with a stand-in for trials


@pytest.fixture(scope="module")
def ray_address() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(HERE))  # where workers find the stand-ins
        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 2, "include_dashboard": False, "object_store_memory": 10**8},
        )
        yield cluster.address
        cluster.shutdown()


@pytest.fixture
def shared_ray(monkeypatch: pytest.MonkeyPatch, ray_address: str) -> None:
    monkeypatch.setenv("RAY_ADDRESS", ray_address)


def _run(grid: Path, *overrides: str, mode: str = "run") -> int:
    request = Request(grid=grid, overrides=overrides, results=grid.parent / "results", mode=mode, json=mode != "run")
    return carry_out(request, table=sweep_jobs.JOBS)


def _rows(grid: Path, table: str = "trials") -> list[dict]:
    store = open_store(grid.parent / "results")
    return tables.read_rows(
        store, f"tiny/{table}", {"trials": schema.TRIALS, "tuning": schema.TUNING}[table]
    ).to_pylist()


def _begun(grid: Path) -> list[str]:
    return (grid.parent / "results" / "trials.log").read_text().split()


def test_a_sweep_tunes_first_and_trains_with_what_it_found(
    grid: Path, shared_ray: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(grid, mode="plan") == 0
    said = json.loads(capsys.readouterr().out)
    studies_new = [step for step in said["steps"] if step["kind"] == "tune"]
    assert [step["state"] for step in studies_new] == ["new", "new"]
    assert all("tune" in step["needs"] for step in said["steps"] if step["kind"] == "train")

    assert _run(grid) == 0
    trials = _rows(grid, "tuning")
    assert len(trials) == 12
    assert len({row["study"] for row in trials}) == 2
    assert {row["state"] for row in trials} <= {"trained", "stopped", "diverged"}
    assert all(row["state"] == "diverged" for row in trials if row["learning_rate"] > 0.05)
    assert any(row["state"] == "diverged" for row in trials)
    assert all(row["share"] == 0.5 for row in trials if row["state"] == "stopped")
    folder = grid.parent / "results" / "steps" / "tune"
    trained = {json.loads(path.read_text())["learning_rate"] for path in folder.glob("*/best.json")}
    assert trained == {row["learning_rate"] for row in trials if row["is_chosen"]}
    assert all(abs(math.log(rate / 0.01)) < math.log(2.5) for rate in trained), "near the best there is"
    store = open_store(grid.parent / "results")
    graph = tuned.expand_tuned(_load(grid).grid, store)
    assert {graph.steps[key].settings.training.learning_rate for key in _trainings(graph)} == trained
    assert _trainings(graph) == store.finished("train")
    assert [row["status"] for row in _rows(grid)] == ["done"] * 8
    capsys.readouterr()

    begun = _begun(grid)
    assert _run(grid) == 0
    assert _begun(grid) == begun
    assert "0 of them new" in capsys.readouterr().out
    assert _run(grid, "tuning.models=t5-7k", mode="status") == 0
    kinds = {step["kind"]: step["state"] for step in json.loads(capsys.readouterr().out)["steps"]}
    assert kinds["tune"] == "done"


def test_a_study_in_which_all_diverge_fails_the_trainings_that_need_it(
    grid: Path, shared_ray: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(grid, "tuning.seed=13", "tuning.models=t5-29k", "data.pairs=10", "inference.0.beams=1") == 1
    rows = {row["model"]: row for row in _rows(grid)}
    assert {model: row["status"] for model, row in rows.items()} == {"t5-7k": "done", "t5-29k": "failed"}
    assert "every trial diverged with a learning rate between 0.001 and 0.1" in rows["t5-29k"]["error"]
    assert "every trial diverged" in capsys.readouterr().out
    assert not _rows(grid, "tuning")


def test_trials_that_break_are_told_of(grid: Path, shared_ray: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(grid, "tuning.seed=14", "tuning.trials=3", "models={family: t5, size: 7k}", "data.pairs=10") == 1
    said = capsys.readouterr().out
    assert "learning rate 0.015: failed: RuntimeError: broken with 0.015\n" in said
    assert "no trial was trained to its end; the last: RuntimeError: broken with " in said
    assert {row["status"] for row in _rows(grid)} == {"failed"}


def test_a_killed_sweep_repeats_no_trial_that_had_ended(grid: Path, ray_address: str) -> None:
    """SIGKILL in the middle of a study; the same command again does what is left, and what was running."""
    overrides = ("tuning.seed=15", "models={family: t5, size: 7k}", "data.pairs=10", "inference.0.beams=1")
    code = (
        "import sys, pathlib, test_tuning, sweep_jobs; "
        f"sys.exit(test_tuning._run(pathlib.Path({str(grid)!r}), *{overrides!r}))"
    )
    environment = {**os.environ, "RAY_ADDRESS": ray_address, "PYTHONPATH": f"{HERE}:{HERE.parent}"}
    command = [sys.executable, "-c", code]
    killed = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    folder = grid.parent / "results" / "steps" / "tune"
    deadline = time.monotonic() + 200
    while len(_ended(folder)) < 2 and time.monotonic() < deadline:
        assert killed.poll() is None, "it ended before it could be killed"
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    before, begun = _ended(folder), _begun(grid)
    assert 2 <= len(before) < 6
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"{6 - len(before)} of 6 trials to go" in again.stdout
    after = _ended(folder)
    assert len(after) == 6
    assert {number: after[number] for number in before} == before, "trials that had ended are as they were"
    new = _begun(grid)[len(begun) :]
    assert len(new) == 6 - len(before)
    assert not {before[number][0] for number in before} & {float(rate) for rate in new}


def _ended(folder: Path) -> dict[int, tuple]:
    """Of the study in the folder: number -> learning rate, result and end of the trials that have ended."""
    found = list(folder.glob("*/study.journal"))
    if not found:
        return {}
    copy = folder.parent / "copy.journal"
    copy.write_bytes(found[0].read_bytes())
    try:
        storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(copy)))
        ended = optuna.load_study(study_name=studies.NAME, storage=storage).get_trials(states=studies.ENDED)
    except (KeyError, ValueError):  # not begun, or copied in the middle of a line
        return {}
    return {one.number: (one.params["learning_rate"], one.value, one.datetime_complete) for one in ended}


# ---------------------------------------------------------------- one trial


def _train_job(**changes: object) -> TrainJob:
    settings = TrainingSettings(batch=16, epochs=2, learning_rate=1e-2, log_every=1, precision="fp32")
    return TrainJob(
        model=ModelSettings(family="t5", size="7k"),
        training=settings.model_copy(update=changes),
        pairs=200,
        seed=0,
    )


def _folders(steps: Steps) -> dict[str, Path]:
    return {"tokenizer": steps.tokenizer, "identifiers": steps.ngram, "embeddings": steps.embeddings}


def _looks(*shares: float, metric: str = "dev_nll") -> LookSettings:
    return LookSettings(shares=shares, metric=metric, negatives=8)


@pytest.mark.parametrize("metric", ["dev_nll", "dev_cgl"])
def test_a_trial_is_looked_at_and_trains_as_if_it_were_not(finished_steps: Steps, tmp_path: Path, metric: str) -> None:
    for name in ("looked", "plain"):
        (tmp_path / name).mkdir()
    seen: list[tuple[float, float]] = []
    tuning.trial(
        _train_job(), _looks(0.25, 0.75, 1.0, metric=metric), lambda share, loss: seen.append((share, loss)),
        corpus=finished_steps.corpus, out=tmp_path / "looked", **_folders(finished_steps),
    )  # fmt: skip
    training.train(_train_job(), out=tmp_path / "plain", **_folders(finished_steps))
    assert [share for share, _ in seen] == [0.25, 0.75, 1.0]
    if metric == "dev_nll":
        assert seen[0][1] > seen[1][1] > seen[2][1]
    curves = [
        [json.loads(line)["loss"] for line in (tmp_path / name / "curve.jsonl").read_text().splitlines()]
        for name in ("looked", "plain")
    ]
    assert curves[0] == curves[1]


def test_a_trial_is_judged_by_the_cgl_of_the_dev_queries(finished_steps: Steps, tmp_path: Path) -> None:
    """The same value as the score step gives of the same weights, were it asked for the dev queries."""
    for name in ("train", "score"):
        (tmp_path / name).mkdir()
    seen: list[float] = []
    tuning.trial(
        _train_job(), _looks(1.0, metric="dev_cgl"), lambda share, loss: seen.append(loss),
        corpus=finished_steps.corpus, out=tmp_path / "train", **_folders(finished_steps),
    )  # fmt: skip
    asked = ScoreJob(evaluation=EvaluationSettings(split="dev", negatives=8, seed=_train_job().seed))
    folders = {"corpus": finished_steps.corpus, "tokenizer": finished_steps.tokenizer}
    score(asked, **folders, identifiers=finished_steps.ngram, train=tmp_path / "train", out=tmp_path / "score")
    assert seen == [pytest.approx(json.loads((tmp_path / "score" / "metrics.json").read_text())["cgl"], rel=1e-5)]


def test_a_trial_is_judged_by_the_dev_queries_alone(finished_steps: Steps) -> None:
    folders = (finished_steps.corpus, finished_steps.tokenizer, finished_steps.ngram)
    dev = tuning.DevPairs(*folders, _train_job(), _looks(1.0))
    qids = [f"d{i}-q{j}" for i in range(48) for j in range(4)]
    asked = {qids[row] for row in dev.pairs.source}
    assert asked == {f"d{i}-q3" for i in range(0, 48, 4)}
    held_out = IdentifierSet.load(finished_steps.ngram).held_out
    assert len(dev.pairs) == int(np.isin(held_out.source, [qids.index(qid) for qid in asked]).sum())
    contests = tuning.DevContests(*folders, _train_job(), _looks(1.0, metric="dev_cgl")).contests
    assert {qids[contest.query] for contest in contests} == asked


@pytest.mark.parametrize("metric", ["dev_nll", "dev_cgl"])
def test_spread_weights_are_measured_as_whole_ones(finished_steps: Steps, tmp_path: Path, metric: str) -> None:
    seen: dict[int, list[float]] = {0: [], 3: []}
    for stage, losses in seen.items():
        out = tmp_path / str(stage)
        out.mkdir()
        job = _train_job(zero_stage=stage, epochs=1)

        def keep(share: float, loss: float, losses: list[float] = losses) -> None:
            losses.append(loss)

        looks = _looks(0.5, 1.0, metric=metric)
        tuning.trial(job, looks, keep, corpus=finished_steps.corpus, out=out, **_folders(finished_steps))
    assert seen[3] == pytest.approx(seen[0], rel=1e-4)


def test_a_trial_may_be_ended_by_whom_it_reports_to(finished_steps: Steps, tmp_path: Path) -> None:
    def stop(share: float, loss: float) -> None:
        raise SystemExit(0)  # as Tune does

    folders = {"corpus": finished_steps.corpus, **_folders(finished_steps)}
    with pytest.raises(SystemExit):
        tuning.trial(_train_job(), _looks(0.5, 1.0), stop, out=tmp_path, **folders)
    assert not (tmp_path / "weights").exists()


def test_a_trial_whose_loss_is_no_number_has_diverged(
    finished_steps: Steps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "LARGEST_LOSS", 1.0)
    folders = {"corpus": finished_steps.corpus, **_folders(finished_steps)}
    with pytest.raises(Diverged, match="the dev queries' loss is "):
        tuning.trial(_train_job(), _looks(1.0), lambda share, loss: None, out=tmp_path, **folders)


# ---------------------------------------------------------------- what the report makes of it


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


def test_the_report_shows_what_was_tuned(grid: Path, shared_ray: None) -> None:
    assert _run(grid, "data.pairs=10") == 0
    folder = grid.parent / "results" / "tiny"
    fit_laws([folder], None, ("cgl",))
    page, numbers = (folder / "report" / name for name in ("report.html", "laws.json"))
    (family,) = json.loads(numbers.read_text())["learning_rates"]
    sizes = {size["model"]: size["learning_rate"] for size in family["sizes"]}
    assert sizes == {row["model"]: row["learning_rate"] for row in _rows(grid, "tuning") if row["is_chosen"]}
    assert all(len(size["trials"]) == 6 for size in family["sizes"])
    text = page.read_text()
    assert '<section id="rates">' in text
    assert "learning-rates-losses" in text
