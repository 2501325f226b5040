"""Asked to stop, a worker keeps what it has done; training goes on later as if nothing had happened."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Steps, Trainer
from test_training import job, losses, run, weights

from workers import cgl, evaluation, retrieval, stopping, training
from workers.errors import Interrupted
from workers.settings import Budget, EvaluationSettings, ScoreJob, SearchJob, TrainJob


@pytest.fixture(autouse=True)
def nothing_asked() -> Iterator[None]:
    yield
    stopping.forget_request()


def test_sigterm_asks_for_a_stop() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        stopping.stop_on_sigterm()
        assert not stopping.stop_requested()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopping.stop_requested()
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(("family", "stage"), [("t5", 0), ("llama", 0), ("t5", 2), ("llama", 3)])
def test_stopped_and_resumed_equals_undisturbed(finished_steps, tmp_path, monkeypatch, family, stage) -> None:
    """Stopped three times at random steps, some of them right after another, with no checkpoint due at any of them."""
    asked = job(family, zero_stage=stage, checkpoint_every=1000)
    run(finished_steps, tmp_path / "whole", asked)
    rng = np.random.default_rng([stage, len(family)])
    original = training._optimizer_step
    for steps in rng.integers(1, 8, size=3).tolist():
        calls: list[int] = []

        def asks(*arguments, calls=calls, steps=steps):
            calls.append(1)
            if len(calls) == steps:
                stopping.request_stop()
            return original(*arguments)

        monkeypatch.setattr(training, "_optimizer_step", asks)
        with pytest.raises(Interrupted, match=r"stopped, as asked, after step \d+ of 26"):
            run(finished_steps, tmp_path / "stopped", asked)
        assert len(calls) == steps, "it stops at the end of that very step"
        stopping.forget_request()
    monkeypatch.setattr(training, "_optimizer_step", original)
    run(finished_steps, tmp_path / "stopped", asked)
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")
    one, two = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_stop_at_the_last_step_comes_too_late(finished_steps: Steps, tmp_path: Path) -> None:
    """What is left is less than what stopping would take."""
    stopping.request_stop()
    metrics = run(finished_steps, tmp_path / "out", job(pairs=16, epochs=1))
    assert metrics["steps"] == 1
    assert weights(tmp_path / "out")


def train_together(steps: Steps, out: Path, asked: TrainJob, stop_at: dict[int, int]) -> list[str]:
    """Two processes, rank -> the step at which it is asked to stop; what each says in the end."""
    out.mkdir(exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    folders = {"tokenizer": steps.tokenizer, "identifiers": steps.ngram, "embeddings": steps.embeddings, "out": out}
    ranks = []
    for rank in range(2):
        given = {
            "job": asked.model_dump(mode="json"),
            "folders": {name: str(folder) for name, folder in folders.items()},
            "group": {"rank": rank, "size": 2, "address": address},
            "stop_at": stop_at.get(rank),
        }
        script = Path(__file__).with_name("two_ranks.py")
        environment = {**os.environ, "PYTHONPATH": str(script.parent.parent)}
        command = [sys.executable, "-W", "ignore", str(script), json.dumps(given)]
        ranks.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment))
    return [process.communicate(timeout=240)[0].strip().splitlines()[-1] for process in ranks]


def test_two_ranks_stop_together(finished_steps: Steps, tmp_path: Path) -> None:
    """Only the second is asked. Afterwards they end with the weights of two that were never stopped."""
    asked = job("t5", pairs=80, zero_stage=2)
    assert train_together(finished_steps, tmp_path / "whole", asked, {}) == ["done", "done"]
    said = train_together(finished_steps, tmp_path / "stopped", asked, {1: 4})
    assert said == ["Interrupted: stopped, as asked, after step 4 of 10"] * 2
    assert train_together(finished_steps, tmp_path / "stopped", asked, {}) == ["done", "done"]
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")
    one, two = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_another_number_of_ranks_starts_afresh(finished_steps: Steps, tmp_path: Path, capfd) -> None:
    """DeepSpeed could not load what two have saved into one, so it is not tried; the log says why."""
    asked = job("t5", pairs=80, zero_stage=1)
    train_together(finished_steps, tmp_path / "out", asked, {0: 4})
    run(finished_steps, tmp_path / "out", asked)
    assert "the checkpoint step-4 is of workers 2, now workers 1; it is dropped" in capfd.readouterr().out
    run(finished_steps, tmp_path / "alone", asked)
    assert losses(tmp_path / "out") == losses(tmp_path / "alone")


@pytest.mark.parametrize("of", ["search", "score"])
def test_evaluation_stops_between_batches(trained: Trainer, tmp_path: Path, monkeypatch, of: str) -> None:
    settings = EvaluationSettings(negatives=8, bootstrap=100, batch=4, memory_mb=2)
    module, inner = {"search": (retrieval, "_answer"), "score": (cgl, "identifier_log_probs")}[of]
    jobs = {"search": SearchJob(evaluation=settings, budget=Budget(beams=2)), "score": ScoreJob(evaluation=settings)}
    original, batches = getattr(module, inner), []

    def asks(*arguments):
        batches.append(1)
        if len(batches) == 2:
            stopping.request_stop()
        return original(*arguments)

    monkeypatch.setattr(module, inner, asks)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(Interrupted, match=r"stopped, as asked, while (searching|scoring), [1-9]"):
        getattr(evaluation, of)(jobs[of], **trained("t5", "ngram"), out=out)
    assert len(batches) == 2
    assert not list(out.iterdir())
