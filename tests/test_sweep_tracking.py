"""Tracking shows every training once, whole, and never stops a sweep: offline folders, and a service that fails."""

import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import wandb
import wandb_files

from orchestrator.grid import Tracking, load
from orchestrator.steps import expand
from orchestrator.tracking import Tracker, Training, describe, tracker
from results import dashboard
from results.local import LocalStore

OFFLINE = Tracking(wandb="offline")


def line(step: int, loss: float | None = None) -> dict[str, Any]:
    """A line of a curve."""
    return {
        "step": step,
        "steps": 40,
        "pairs": 32 * step,
        "loss": 3.0 / step if loss is None else loss,
        "learning_rate": 0.1,
        "gradient_norm": 1.0,
        "seconds": 0.5,
    }


def row(trial: str, beams: int = 4, status: str = "done") -> dict[str, Any]:
    """A row of `trials`, as far as tracking looks at it."""
    found = {"trial": trial, "beams": beams, "max_new_tokens": 8, "status": status, "error": None}
    if status == "done":
        return found | {"hit@10": 0.1 * beams, "hit@10_lo": 0.0, "hit@10_hi": 1.0, "cgl": 1.5, "n_queries": 2}
    return found | {"error": "diverged: loss is nan, see /home/somebody/results"}


def training(key: str = "k1", steps: int = 2, rows: tuple[dict[str, Any], ...] = ()) -> Training:
    """What the results folder says of a training."""
    return Training(
        key=key,
        name=f"toy {key}",
        config={"family": "t5", "d_pairs": 32, "learning_rate": 0.1},
        tags=("toy", "ngram"),
        curve=[line(step) for step in range(1, steps + 1)],
        rows=rows or (row(f"{key}-b4"),),
    )


@pytest.fixture
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def _track(root: Path, *trainings: Training, settings: Tracking = OFFLINE) -> str:
    """One sweep in which these trainings end; returns the tracker's report."""
    known = {one.key: one for one in trainings}
    with Tracker(settings, LocalStore(root=root), "tiny", known.__getitem__) as tracking:
        for one in trainings:
            tracking.ended(one.key, [its["trial"] for its in one.rows])
    return tracking.report()


def _folders(root: Path) -> list[Path]:
    return sorted((root / "tiny" / "wandb").glob("offline-run-*"))


# ---------------------------------------------------------------- what an offline folder holds


def test_a_training_is_an_offline_folder_with_config_curve_table_and_summary(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ended = training(steps=3, rows=(row("k1-b4", 4), row("k1-b16", 16)))
    assert _track(tmp_path, ended) == ""
    (folder,) = _folders(tmp_path)
    run = wandb_files.read(folder)
    assert (run.id, run.name, run.group, run.job_type) == ("k1", "toy k1", "tiny", "train")
    assert run.tags == ["toy", "ngram"]
    assert {key: run.config[key] for key in ended.config} == ended.config
    curve = [entry for entry in run.history if "loss" in entry]
    assert [entry["_step"] for entry in curve] == [1, 2, 3]
    assert [entry["loss"] for entry in curve] == [3.0, 1.5, 1.0]
    assert [entry["pairs"] for entry in curve] == [32, 64, 96]
    table = wandb_files.table(folder, run.summary["evaluations"])
    assert [(entry["beams"], entry["hit@10"], entry["hit@10_hi"]) for entry in table] == [(4, 0.4, 1), (16, 1.6, 1)]
    assert run.summary["beams=16/hit@10"] == 1.6
    assert run.summary["cgl"] == 1.5
    assert run.summary["status"] == "done"
    assert run.exit_code == 0
    said = capfd.readouterr()
    assert said.out == said.err == ""


def test_nothing_of_this_machine_or_its_secrets_is_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef0123456789abcdef01234567")
    monkeypatch.setenv("WANDB_USERNAME", "somebody-here")
    ended = training(rows=(row("k1-b4"), row("k1-b16", status="failed")))
    _track(tmp_path, ended)
    contents = b"".join(path.read_bytes() for path in (tmp_path / "tiny").rglob("*") if path.is_file())
    assert contents
    for secret in (
        "0123456789abcdef",
        "somebody",
        str(Path.home()) + "/",
        str(Path.cwd()),
        dashboard.os.uname().nodename,
    ):
        assert secret.encode() not in contents
    run = wandb_files.read(*_folders(tmp_path))
    assert (run.summary["status"], run.summary["failure"], run.exit_code) == ("failed", "diverged", 1)


def test_wandb_sync_finds_the_folder_and_lacks_only_a_key(tmp_path: Path, no_key: None) -> None:
    _track(tmp_path, training())
    (folder,) = _folders(tmp_path)
    command = [str(Path(sys.executable).with_name("wandb")), "sync", str(folder)]
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "WANDB_DIR": str(tmp_path)}
    dry = subprocess.run([*command, "--dry-run"], env=environment, capture_output=True, text=True, check=True)
    assert "Would sync 1 run" in dry.stdout + dry.stderr
    real = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert real.returncode != 0
    assert "API key" in real.stdout + real.stderr
    assert not list(folder.glob("*.synced"))


# ---------------------------------------------------------------- once, and again where there is more


def test_what_is_written_is_not_written_again(tmp_path: Path) -> None:
    _track(tmp_path, training())
    (folder,) = _folders(tmp_path)
    before = folder.stat().st_mtime_ns

    def never(key: str) -> Training:
        raise AssertionError("there is nothing to read")

    with Tracker(OFFLINE, LocalStore(root=tmp_path), "tiny", never) as tracking:
        tracking.ended("k1", ["k1-b4"])
    assert tracking.report() == ""
    assert folder.stat().st_mtime_ns == before


def test_more_evaluations_go_into_another_folder_that_goes_on(tmp_path: Path) -> None:
    _track(tmp_path, training(steps=3))
    _track(tmp_path, training(steps=3, rows=(row("k1-b4", 4), row("k1-b9", 9))))
    first, second = (wandb_files.read(folder) for folder in _folders(tmp_path))
    assert (first.id, second.id) == ("k1", "k1")
    assert [entry["_step"] for entry in first.history] == [1, 2, 3, 4]
    assert [entry["_step"] for entry in second.history] == [5]
    table = wandb_files.table(_folders(tmp_path)[1], second.summary["evaluations"])
    assert [entry["beams"] for entry in table] == [4, 9]
    assert second.summary["loss"] == 1.0


def test_a_failed_training_is_written_once_and_goes_on_when_it_recovers(tmp_path: Path) -> None:
    failed = training(steps=2, rows=(row("k1-b4", status="failed"),))
    _track(tmp_path, failed)
    _track(tmp_path, failed)
    (folder,) = _folders(tmp_path)
    assert "evaluations" not in wandb_files.read(folder).summary
    _track(tmp_path, replace(training(), curve=[line(1), line(2, loss=9.0), line(3), line(4)]))
    first, second = (wandb_files.read(folder) for folder in _folders(tmp_path))
    assert [entry["_step"] for entry in (*first.history, *second.history) if "loss" in entry] == [1, 2, 3, 4]
    assert second.summary["status"] == "done"
    assert [first.exit_code, second.exit_code] == [1, 0]


def test_a_folder_that_was_not_finished_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_file = LocalStore.put_file

    def killed(store: LocalStore, name: str, path: Path) -> None:
        if name.endswith(".wandb"):
            raise OSError("power lost")
        put_file(store, name, path)

    monkeypatch.setattr(tracker, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(LocalStore, "put_file", killed)
    assert "1 trainings are not in W&B" in _track(tmp_path, training())
    monkeypatch.setattr(LocalStore, "put_file", put_file)
    assert _track(tmp_path, training()) == ""
    runs = [wandb_files.read(folder) for folder in _folders(tmp_path) if list(folder.glob("*.wandb"))]
    assert [[entry["_step"] for entry in run.history] for run in runs] == [[1, 2, 3]]


def test_a_folder_that_was_finished_before_the_note_is_not_written_again(tmp_path: Path) -> None:
    _track(tmp_path, training())
    note = tmp_path / "tiny" / "wandb" / "tracked" / "k1.json"
    note.write_text(json.dumps(json.loads(note.read_text()) | {"before": None}))
    _track(tmp_path, training())
    assert len(_folders(tmp_path)) == 1


def test_a_curve_that_was_rewound_has_every_step_once(tmp_path: Path) -> None:
    rewound = replace(training(), curve=[line(1), line(2), line(3), line(2, loss=9.0), line(3, loss=9.0), line(4)])
    _track(tmp_path, rewound)
    run = wandb_files.read(*_folders(tmp_path))
    curve = [(entry["_step"], entry["loss"]) for entry in run.history if "loss" in entry]
    assert curve == [(1, 3.0), (2, 1.5), (3, 1.0), (4, 0.75)]


def test_a_note_that_is_not_whole_is_no_note(tmp_path: Path) -> None:
    _track(tmp_path, training())
    note = tmp_path / "tiny" / "wandb" / "tracked" / "k1.json"
    assert json.loads(note.read_text())["trials"] == ["k1-b4"]
    note.write_text("{")
    _track(tmp_path, training())
    assert json.loads(note.read_text())["trials"] == ["k1-b4"]


def test_another_project_gets_its_own_folder(tmp_path: Path) -> None:
    _track(tmp_path, training())
    _track(tmp_path, training(), settings=Tracking(wandb="offline", project="other"))
    assert len(_folders(tmp_path)) == 2
    note = json.loads((tmp_path / "tiny" / "wandb" / "tracked" / "k1.json").read_text())
    assert note["place"]["project"] == "other"


# ---------------------------------------------------------------- a W&B that fails


def test_a_broken_wandb_is_reported_not_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker, "PAUSE_SECONDS", 0.01)
    monkeypatch.setenv("WANDB_API_KEY", "the-secret-key")

    def broken(**settings: object) -> None:
        raise RuntimeError("no route\nfor the-secret-key")

    monkeypatch.setattr(wandb, "init", broken)
    report = _track(tmp_path, training("a"), training("b"))
    assert "2 trainings are not in W&B" in report
    assert report.endswith("RuntimeError: no route for <WANDB_API_KEY>")
    assert not _folders(tmp_path)
    monkeypatch.undo()
    assert _track(tmp_path, training("a"), training("b")) == ""
    assert {wandb_files.read(folder).id for folder in _folders(tmp_path)} == {"a", "b"}


def test_a_wandb_that_hangs_holds_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker, "PATIENCE_SECONDS", 0.3)
    release, entered = threading.Event(), threading.Event()

    def hang(**settings: object) -> None:
        entered.set()
        release.wait(30)
        raise RuntimeError("released")

    monkeypatch.setattr(wandb, "init", hang)
    many = {f"k{n}": training(f"k{n}") for n in range(2000)}
    with Tracker(OFFLINE, LocalStore(root=tmp_path), "tiny", many.__getitem__) as tracking:
        tracking.ended("k0", ["k0-b4"])
        assert entered.wait(20)  # from here on the thread is stuck, and nothing is taken
        for key in many:
            tracking.began(key)
            tracking.ended(key, [f"{key}-b4"])
    assert not release.is_set()  # all of this was done while it hung
    assert "2000 trainings are not in W&B" in tracking.report()
    assert "W&B was too slow" in tracking.report()
    release.set()


def test_an_interrupted_sweep_does_not_wait_for_what_is_left(tmp_path: Path) -> None:
    many = {f"k{n}": training(f"k{n}") for n in range(500)}
    tracking = Tracker(OFFLINE, LocalStore(root=tmp_path), "tiny", many.__getitem__)

    def sweep() -> None:
        with tracking:
            for key in many:
                tracking.ended(key, [f"{key}-b4"])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep()
    assert "trainings are not in W&B" in tracking.report()
    assert len(_folders(tmp_path)) < 500


# ---------------------------------------------------------------- what a grid's training is called

GRID = """
name: tiny
corpus: {source: jsonl, path: corpus.jsonl}
identifiers: {kind: ngram}
models: {family: t5, size: 7k}
data: {pairs: [10, 20]}
inference: {beams: [1, 4]}
seeds: [3]
"""


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    (tmp_path / "corpus.jsonl").write_text('{"text": "a b c", "queries": ["x y"]}\n')
    path = tmp_path / "tiny.yaml"
    path.write_text(GRID)
    return path


def test_config_and_tags_name_the_axes_before_and_after(grid: Path) -> None:
    graph = expand(load(grid).grid)
    trials = [trial for trial in graph.trials if trial.pairs == 20]
    begun = describe(graph, trials, [line(1)], [])
    axes = {"identifiers": "ngram", "family": "t5", "d_pairs": 20, "seed": 3, "init": "ppmi"}
    assert {key: begun.config[key] for key in axes} == axes
    assert min(begun.config["learning_rate"], begun.config["n_params"], len(begun.config["recipe"])) > 0
    assert begun.key == trials[0].train
    assert {"ngram", "t5", "d=20", "seed=3"} <= set(begun.tags)
    measured = describe(graph, trials, [line(1)], [row(trials[0].trial) | {"n_total": 99, "zero_stage": 2}])
    assert measured.config == begun.config | {"n_total": 99, "zero_stage": 2}
    assert measured.digest() != begun.digest()


def test_paths_in_settings_are_cut_to_their_last_part(grid: Path, tmp_path: Path) -> None:
    (tmp_path / "my-model").mkdir()
    (tmp_path / "my-model" / "config.json").write_text("{}")
    model = f"models={{family: t5, pretrained: {tmp_path / 'my-model'}, learning_rate: 0.1}}"
    graph = expand(load(grid, [model]).grid)
    config = describe(graph, graph.trials[:1], [], []).config
    assert config["settings"]["model"]["pretrained"] == "my-model"
    assert str(tmp_path) not in json.dumps(config)


def test_modes(monkeypatch: pytest.MonkeyPatch, no_key: None, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # no ~/.netrc
    assert dashboard.mode_of("auto") == "offline"
    monkeypatch.setenv("WANDB_MODE", "online")
    assert dashboard.mode_of("auto") == "offline"
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert dashboard.mode_of("auto") == "online"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert dashboard.mode_of("auto") == "offline"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert dashboard.mode_of("auto") == "off"
    assert dashboard.mode_of("online") == "online"


def test_off_does_nothing(tmp_path: Path) -> None:
    assert _track(tmp_path, training(), settings=Tracking(wandb="off")) == ""
    assert not (tmp_path / "tiny").exists()
