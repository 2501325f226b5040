"""One trial of a tuning: measured on the dev queries, and otherwise a training like any other."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Steps

from workers import training, tuning
from workers.errors import Diverged
from workers.evaluation import score, search
from workers.identifiers.sets import IdentifierSet
from workers.settings import (
    Budget,
    EvaluationSettings,
    LookSettings,
    ModelSettings,
    ScoreJob,
    SearchJob,
    TrainingSettings,
    TrainJob,
)


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
    return LookSettings(shares=shares, metric=metric, negatives=8, budget=Budget(beams=4))


@pytest.mark.parametrize("metric", ["dev_rr", "dev_cgl", "dev_nll"])
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


def test_a_trial_is_judged_by_a_search_for_the_dev_queries(finished_steps: Steps, tmp_path: Path) -> None:
    """The same value as the search step gives of the same weights, were it asked for the dev queries."""
    for name in ("train", "search"):
        (tmp_path / name).mkdir()
    seen: list[float] = []
    tuning.trial(
        _train_job(epochs=20), _looks(1.0, metric="dev_rr"), lambda share, loss: seen.append(loss),
        corpus=finished_steps.corpus, out=tmp_path / "train", **_folders(finished_steps),
    )  # fmt: skip
    asked = SearchJob(evaluation=EvaluationSettings(split="dev"), budget=Budget(beams=4))
    folders = {"corpus": finished_steps.corpus, "tokenizer": finished_steps.tokenizer}
    search(asked, **folders, identifiers=finished_steps.ngram, train=tmp_path / "train", out=tmp_path / "search")
    found = json.loads((tmp_path / "search" / "metrics.json").read_text())["rr@10"]
    assert seen == [pytest.approx(1 - found)]
    assert 0 < found < 1


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


@pytest.mark.parametrize("metric", ["dev_rr", "dev_cgl", "dev_nll"])
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
