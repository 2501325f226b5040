"""Tracking against a server on the loopback: runs grow while trainings do, are resumed, and nothing is sent twice."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from test_sweep_tracking import line, row, training
from wandb_server import KEY, Server, serving

from orchestrator.grid import Tracking
from orchestrator.tracking import Tracker, Training, sinks, tracker
from results import dashboard
from results.local import LocalStore

ONLINE = Tracking(wandb="online", entity="lab")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    dashboard.stop()  # another test's process has other settings
    with serving() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
        monkeypatch.delenv("WANDB_MODE", raising=False)
        monkeypatch.setattr(tracker, "FOLLOW_SECONDS", 0.05)
        monkeypatch.setattr(tracker, "PAUSE_SECONDS", 0.05)
        yield server
        dashboard.stop()


class Results:
    """A results folder that a test can change while a tracker looks at it."""

    def __init__(self, root: Path, *trainings: Training) -> None:
        self.store = LocalStore(root=root)
        self.now = {one.key: one for one in trainings}

    def tracker(self) -> Tracker:
        """A new sweep's."""
        return Tracker(ONLINE, self.store, "tiny", lambda key: self.now[key])

    def set(self, one: Training) -> None:
        """What it says from now on."""
        self.now[one.key] = one

    def end(self, tracking: Tracker, key: str = "k1") -> None:
        """All of a training's trials have ended."""
        tracking.ended(key, [its["trial"] for its in self.now[key].rows])

    def send(self, *keys: str) -> str:
        """A sweep in which trainings end; returns the report."""
        with self.tracker() as tracking:
            for key in keys or ("k1",):
                self.end(tracking, key)
        return tracking.report()


def _until(reached: object, limit: float = 30.0) -> None:
    given_up = time.monotonic() + limit
    while not reached():  # type: ignore[operator]
        assert time.monotonic() < given_up, "it never came"
        time.sleep(0.02)


def _steps(server: Server, key: str = "k1") -> list[int]:
    return [entry["_step"] for entry in server.runs[key].history if "loss" in entry]


def test_a_training_is_seen_while_it_runs_and_completed_when_it_ends(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    results = Results(tmp_path, replace(training(steps=2), rows=()))
    seen = threading.Event()
    write = sinks.write_curve

    def note(*given: object) -> int:
        last = write(*given)
        if last == 4:
            seen.set()
        return last

    monkeypatch.setattr(sinks, "write_curve", note)
    with results.tracker() as tracking:
        tracking.began("k1")
        _until(lambda: server.runs["k1"].upserts)
        results.set(replace(training(steps=4), rows=()))
        assert seen.wait(30)
        results.set(training(steps=5, rows=(row("k1-b4", 4), row("k1-b16", 16))))
        results.end(tracking)
    assert tracking.report() == ""
    run = server.runs["k1"]
    assert _steps(server) == [1, 2, 3, 4, 5]
    assert run.config["d_pairs"] == 32
    assert (run.latest("groupName"), run.latest("jobType"), run.latest("tags")) == ("tiny", "train", ["toy", "ngram"])
    assert run.summary["beams=16/hit@10"] == 1.6
    assert f"k1/{run.summary['evaluations']['path']}" in server.uploads
    assert run.exits == [0]
    assert server.requests.count("RunResumeStatus") == 1
    said = capfd.readouterr()
    assert said.out == said.err == ""


def test_only_what_is_needed_is_sent_and_nothing_of_this_machine(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_USERNAME", "somebody-here")
    assert Results(tmp_path, training()).send() == ""
    sent = b"".join(server.bodies) + b"".join(server.uploads.values())
    assert KEY.encode() not in sent
    for secret in (
        b"somebody-here",
        str(Path.cwd()).encode(),
        str(tmp_path).encode(),
        str(Path.home()).encode() + b"/",
    ):
        assert secret not in sent
    upsert = server.runs["k1"].upserts[0]
    assert not upsert["host"]
    assert upsert["program"] in (None, "gridlaw")
    assert "CreateArtifact" not in server.requests


def test_a_second_sweep_resumes_the_run_and_sends_nothing_twice(tmp_path: Path, server: Server) -> None:
    """The first was killed: there is no note of what it sent. The curve was rewound to its checkpoint since."""
    killed = Results(tmp_path, replace(training(steps=3), rows=(row("k1-b4", status="failed"),)))
    assert killed.send() == ""
    for note in (tmp_path / "tiny" / "wandb" / "tracked").iterdir():
        note.unlink()
    again = Results(tmp_path, training())
    again.set(replace(training(), curve=[line(1), line(2, loss=9.0), line(3, loss=9.0), line(4), line(5)]))
    assert again.send() == ""
    run = server.runs["k1"]
    assert _steps(server) == [1, 2, 3, 4, 5]
    assert [entry["loss"] for entry in run.history if "loss" in entry] == [3.0, 1.5, 1.0, 0.75, 0.6]
    assert run.exits == [1, 0]
    assert run.summary["status"] == "done"


def test_what_the_service_has_is_left_alone(tmp_path: Path, server: Server) -> None:
    results = Results(tmp_path, training())
    results.send()
    asked = len(server.requests)
    results.send()
    assert len(server.requests) == asked
    results.set(training(rows=(row("k1-b4", 4), row("k1-b9", 9))))
    results.send()
    assert _steps(server) == [1, 2]
    assert server.runs["k1"].summary["beams=9/hit@10"] == pytest.approx(0.9)
    assert server.runs["k1"].summary["evaluations"]["nrows"] == 2


def test_no_more_than_some_runs_are_open_at_once(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "OPEN", 2)
    monkeypatch.setattr(sinks, "TENURE_SECONDS", 0.0)
    keys = [f"k{n}" for n in range(4)]
    results = Results(tmp_path, *(replace(training(key), rows=()) for key in keys))
    with results.tracker() as tracking:
        for key in keys:
            tracking.began(key)
        _until(lambda: all(_steps(server, key) for key in keys[:2]))  # they were closed to make room
        for key in keys:
            results.set(training(key, steps=3))
            results.end(tracking, key)
    assert tracking.report() == ""
    assert all(_steps(server, key) == [1, 2, 3] for key in keys)


@pytest.mark.parametrize("status", [400, 429, 500])
def test_a_service_that_refuses_everything_costs_a_line(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(dashboard, "START_SECONDS", 1.0)
    monkeypatch.setattr(dashboard, "FINISH_SECONDS", 1.0)
    server.status = status
    results = Results(tmp_path, training("a"), training("b"))
    report = results.send("a", "b")
    assert "2 trainings are not in W&B" in report
    assert "\n" not in report
    assert KEY not in report
    server.status = 200
    assert results.send("a", "b") == ""
    assert _steps(server, "a") == _steps(server, "b") == [1, 2]


@pytest.mark.parametrize("status", [400, 500])
def test_a_run_that_was_begun_and_then_refused_is_sent_later(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(dashboard, "START_SECONDS", 2.0)
    monkeypatch.setattr(dashboard, "FINISH_SECONDS", 2.0)
    results = Results(tmp_path, training())
    start = dashboard.start

    def start_then_refuse(*given: object) -> object:
        run = start(*given)  # type: ignore[arg-type]
        server.status = status
        return run

    monkeypatch.setattr(dashboard, "start", start_then_refuse)
    assert "1 trainings are not in W&B" in results.send()
    monkeypatch.setattr(dashboard, "start", start)
    server.status = 200
    assert results.send() == ""
    assert _steps(server) == [1, 2]


def _sync(root: Path) -> None:
    folders = [str(path) for path in (root / "tiny" / "wandb").glob("offline-run-*")]
    command = [str(Path(sys.executable).with_name("wandb")), "sync", *folders]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


@pytest.mark.parametrize("between", [True, False])
def test_wandb_sync_sends_folders_that_go_on_as_one_run(tmp_path: Path, server: Server, between: bool) -> None:
    results = Results(tmp_path)
    for one in (training(steps=2), training(steps=4, rows=(row("k1-b4", 4), row("k1-b16", 16)))):
        results.set(one)
        with Tracker(Tracking(wandb="offline"), results.store, "tiny", results.now.__getitem__) as offline:
            results.end(offline)
        if between:
            _sync(tmp_path)
    _sync(tmp_path)
    run = server.runs["k1"]
    assert [entry["_step"] for entry in run.history] == [1, 2, 3, 4, 5]
    assert run.summary["evaluations"]["nrows"] == 2
    assert f"k1/{run.summary['evaluations']['path']}" in server.uploads
