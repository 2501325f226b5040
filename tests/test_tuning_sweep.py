"""Whole sweeps that tune first, on a real Ray and Tune, with a stand-in for the trials."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from shared_ray import run, small_cluster
from tiny_grids import TUNED, write_grid

from laws.command import run as fit_laws
from orchestrator.grid import Loaded, load
from orchestrator.steps import Graph
from orchestrator.tuning import studies, tuned
from results import schema, tables
from results.opening import open_store

HERE = Path(__file__).resolve().parent


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    return write_grid(tmp_path, TUNED)


def _load(grid: Path, *overrides: str) -> Loaded:
    return load(grid, overrides)


def _trainings(graph: Graph) -> set[str]:
    return {step.key for step in graph.steps.values() if step.kind == "train"}


@pytest.fixture(scope="module")
def ray_address() -> Iterator[str]:
    with small_cluster() as address:
        yield address


@pytest.fixture
def shared_ray(monkeypatch: pytest.MonkeyPatch, ray_address: str) -> None:
    monkeypatch.setenv("RAY_ADDRESS", ray_address)


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
    assert run(grid, mode="plan") == 0
    said = json.loads(capsys.readouterr().out)
    studies_new = [step for step in said["steps"] if step["kind"] == "tune"]
    assert [step["state"] for step in studies_new] == ["new", "new"]
    assert all("tune" in step["needs"] for step in said["steps"] if step["kind"] == "train")

    assert run(grid) == 0
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
    assert run(grid) == 0
    assert _begun(grid) == begun
    assert "0 of them new" in capsys.readouterr().out
    assert run(grid, "tuning.models=t5-7k", mode="status") == 0
    kinds = {step["kind"]: step["state"] for step in json.loads(capsys.readouterr().out)["steps"]}
    assert kinds["tune"] == "done"


def test_a_study_in_which_all_diverge_fails_the_trainings_that_need_it(
    grid: Path, shared_ray: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(grid, "tuning.seed=13", "tuning.models=t5-29k", "data.pairs=10", "inference.0.beams=1") == 1
    rows = {row["model"]: row for row in _rows(grid)}
    assert {model: row["status"] for model, row in rows.items()} == {"t5-7k": "done", "t5-29k": "failed"}
    assert "every trial diverged with a learning rate between 0.001 and 0.1" in rows["t5-29k"]["error"]
    assert "every trial diverged" in capsys.readouterr().out
    assert not _rows(grid, "tuning")


def test_trials_that_break_are_told_of(grid: Path, shared_ray: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(grid, "tuning.seed=14", "tuning.trials=3", "models={family: t5, size: 7k}", "data.pairs=10") == 1
    said = capsys.readouterr().out
    assert "learning rate 0.015: failed: RuntimeError: broken with 0.015\n" in said
    assert "no trial was trained to its end; the last: RuntimeError: broken with " in said
    assert {row["status"] for row in _rows(grid)} == {"failed"}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_a_killed_sweep_repeats_no_trial_that_had_ended(
    grid: Path, ray_address: str, number: signal.Signals, code: int
) -> None:
    """Killed, or asked to stop, in the middle of a study; the same command does what is left, and what was running."""
    overrides = ("tuning.seed=15", "models={family: t5, size: 7k}", "data.pairs=10", "inference.0.beams=1")
    script = (
        f"import sys, pathlib, test_tuning_sweep; sys.exit(shared_ray.run(pathlib.Path({str(grid)!r}), *{overrides!r}))"
    )
    environment = {**os.environ, "RAY_ADDRESS": ray_address, "PYTHONPATH": f"{HERE}:{HERE.parent}"}
    command = [sys.executable, "-c", script]
    killed = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    folder = grid.parent / "results" / "steps" / "tune"
    deadline = time.monotonic() + 200
    while len(_ended(folder)) < 2 and time.monotonic() < deadline:
        assert killed.poll() is None, "it ended before it could be killed"
        time.sleep(0.05)
    killed.send_signal(number)
    assert killed.wait(60) == code
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


def test_the_report_shows_what_was_tuned(grid: Path, shared_ray: None) -> None:
    assert run(grid, "data.pairs=10") == 0
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
