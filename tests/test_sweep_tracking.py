"""Tracking never stops a sweep: not where W&B is broken or slow. What it writes offline is one run a training."""

import threading
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import wandb

from orchestrator import tracking
from orchestrator.grid import Tracking
from orchestrator.tracking import Tracker, Training
from results.local import LocalStore

CURVE = [{"step": n, "pairs": 32 * n, "loss": 3.0 / n, "learning_rate": 0.1, "gradient_norm": 1.0} for n in (1, 2)]


def _training(key: str = "k1") -> Training:
    row = {"trial": f"{key}-b4", "beams": 4, "hit@10": 0.5, "cgl": 1.0, "status": "done"}
    return Training(key=key, name=key, config={"family": "t5"}, curve=CURVE, rows=[row], tags=["ngram"])


def test_writes_one_offline_run_a_training_and_not_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Tracker(Tracking(wandb="offline"), LocalStore(root=tmp_path), "tiny") as tracker:
        assert tracker.wants("k1", ["k1-b4"])
        tracker.put(_training())
    assert tracker.report() == ""
    assert len(list((tmp_path / "tiny" / "wandb").glob("offline-run-*/run-k1.wandb"))) == 1
    again = Tracker(Tracking(wandb="offline"), LocalStore(root=tmp_path), "tiny")
    assert not again.wants("k1", ["k1-b4"])
    assert again.wants("k1", ["k1-b4", "k1-b9"])
    said = capfd.readouterr()
    assert said.out == said.err == ""


def test_a_training_that_recovers_is_written_again_with_its_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[MagicMock] = []

    def start(**settings: object) -> MagicMock:
        runs.append(MagicMock())
        return runs[-1]

    monkeypatch.setattr(wandb, "init", start)
    monkeypatch.setattr(wandb, "Table", MagicMock())
    done = _training()
    failed = replace(done, rows=[done.rows[0] | {"status": "failed"}])
    for training in (failed, done, replace(done, rows=[*done.rows, done.rows[0] | {"trial": "k1-b9", "beams": 9}])):
        with Tracker(Tracking(wandb="offline"), LocalStore(root=tmp_path), "tiny") as tracker:
            assert tracker.wants("k1", [row["trial"] for row in training.rows])
            tracker.put(training)
        assert tracker.report() == ""
    curves = [sum("loss" in call.args[0] for call in run.log.call_args_list) for run in runs]
    assert curves == [2, 2, 0]
    next((tmp_path / "tiny" / "wandb" / "tracked").iterdir()).write_text("")
    assert Tracker(Tracking(wandb="offline"), LocalStore(root=tmp_path), "tiny").wants("k1", ["k1-b4"])


def test_a_broken_service_is_reported_not_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**settings: object) -> None:
        raise RuntimeError("no route")

    monkeypatch.setattr(wandb, "init", broken)
    with Tracker(Tracking(wandb="offline"), LocalStore(root=tmp_path), "tiny") as tracker:
        tracker.put(_training("a"))
        tracker.put(_training("b"))
    assert tracker.report() == "tracking: 2 trainings are not in W&B: RuntimeError: no route"
    assert tracker.wants("a", ["a-b4"])


def test_a_service_that_hangs_holds_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(wandb, "init", lambda **settings: release.wait(30))
    monkeypatch.setattr(tracking, "QUEUE", 3)
    monkeypatch.setattr(tracking, "PATIENCE_SECONDS", 0.2)
    began = time.monotonic()
    with Tracker(Tracking(wandb="offline"), LocalStore(root=tmp_path), "tiny") as tracker:
        for n in range(20):
            tracker.put(_training(f"k{n}"))
    assert time.monotonic() - began < 5
    assert tracker.report() == "tracking: 20 trainings are not in W&B: W&B was too slow"
    release.set()


def test_off_and_modes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not Tracker(Tracking(wandb="off"), LocalStore(root=tmp_path), "tiny").wants("k1", ["k1-b4"])
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert tracking.mode_of(Tracking()) == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert tracking.mode_of(Tracking()) == "online"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert tracking.mode_of(Tracking()) == "offline"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert tracking.mode_of(Tracking()) == "off"
    assert tracking.mode_of(Tracking(wandb="online")) == "online"
