"""What a dry run tells of a plan: time, device-hours, disk, cost, and what these stand on."""

import json
from pathlib import Path
from typing import Any

import pytest

import run_grid
from orchestrator.forecasting.history import seconds_of
from orchestrator.grid import load
from orchestrator.nodes import Node
from orchestrator.running import attempts
from orchestrator.steps import Graph, Step, expand
from orchestrator.watching.plan_view import machines, size
from results.opening import open_store
from results.store import Store

GRID = """
name: tiny
corpus: {source: jsonl, path: corpus.jsonl, dev: 1, test: 2}
identifiers: {kind: ngram, length: 3}
models: [{family: t5, size: [7k, 29k]}]
data: {pairs: [10, 20]}
inference: {beams: [1, 4]}
"""
CLUSTER = "resources.cluster=[{nodes: 2, gpus: 4, gpu: A100-80GB, cpus: 64, memory_gb: 512, price_per_hour: 16.0}]"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    lines = [
        {
            "id": f"d{n}",
            "text": f"the {word} runs over the {word} hill",
            "queries": [f"where is {word} {n}", f"{word}?"],
        }
        for n, word in enumerate(("red", "green", "blue", "black", "white", "grey"))
    ]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "grid.yaml").write_text(GRID)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _dry_run(capsys: pytest.CaptureFixture[str], *settings: str) -> tuple[str, dict[str, Any]]:
    """Its tables, and the same as JSON."""
    overrides = [part for setting in settings for part in ("--set", setting)]
    capsys.readouterr()
    assert run_grid.main(["grid.yaml", "--dry-run", *overrides]) == 0
    shown = capsys.readouterr().out
    assert run_grid.main(["grid.yaml", "--dry-run", "--json", *overrides]) == 0
    return shown, json.loads(capsys.readouterr().out)


def _finish(store: Store, step: Step, seconds: float) -> None:
    """Pretend that the step has been done."""
    with store.work(step.kind, step.key, "owner") as out:
        assert out is not None
        record = {"started": "2026-01-01T00:00:00+00:00", "status": "done"}
        record["finished"] = (
            f"2026-01-01T{int(seconds // 3600):02}:{int(seconds // 60 % 60):02}:{seconds % 60:06.3f}+00:00"
        )
        (out / attempts.ATTEMPTS).write_text(json.dumps([record]))


def _graph(*settings: str) -> Graph:
    return expand(load(Path("grid.yaml"), settings).grid)


def test_a_corpus_that_a_dry_run_reads_is_new_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown, said = _dry_run(capsys)
    assert "read just now" in shown
    assert "22 steps: 0 cached, 22 new" in shown
    assert said["totals"]["cached"] == 1


def test_on_the_machines_that_the_grid_describes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown, said = _dry_run(capsys, CLUSTER)
    estimates = said["estimates"]
    assert "on 2 x (4 A100-80GB, 64 cores): about" in shown
    assert "these times are uncalibrated; assumes 312 TFLOP/s at most of A100-80GB" in shown
    hours = estimates["wall_seconds"] / 3600
    assert estimates["cost"] == pytest.approx(2 * 16.0 * hours)
    assert 0 < estimates["cost_while_busy"] < estimates["cost"]
    assert estimates["gpu_hours"] == pytest.approx(sum(kind["gpu_hours"] for kind in estimates["kinds"].values()))
    assert 0 < estimates["gpu_hours"] < 8 * hours
    assert estimates["train_flops"] == sum(step["flops"] for step in said["steps"] if step["kind"] == "train") > 0
    assert estimates["disk_peak_bytes"] > 1_000_000
    assert [machine["price_per_hour"] for machine in estimates["machines"]] == [16.0, 16.0]
    assert {entry["model"] for entry in estimates["placement"]} == {"t5-7k", "t5-29k"}
    assert estimates["largest_memory_bytes"] > 0
    steps = [step for step in said["steps"] if step["kind"] == "train"]
    assert all(step["demand"]["gpus"] > 0 for step in steps)


def test_no_cost_without_a_price(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown, said = _dry_run(capsys, CLUSTER.replace(", price_per_hour: 16.0", ""))
    assert said["estimates"]["cost"] is None
    assert "cost" not in shown


def test_calibrated_from_what_is_finished(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every finished step took ten times as long as foretold; so will the others."""
    _, before = _dry_run(capsys)
    store, graph = open_store("results"), _graph()
    foretold = {step["key"]: step["seconds"] for step in before["steps"]}
    done = [step for step in graph.steps.values() if step.kind in ("tokenizer", "embeddings", "identifiers", "score")]
    trainings = [step for step in graph.steps.values() if step.kind == "train"]
    for step in [*done, *trainings[:3]]:
        _finish(store, step, 10 * foretold[step.key])
    _finish(store, graph.steps[graph.baselines], 10 * foretold[graph.baselines])
    shown, after = _dry_run(capsys)
    seconds = {step["key"]: step["seconds"] for step in after["steps"]}
    assert seconds[trainings[3].key] == pytest.approx(10 * foretold[trainings[3].key], rel=0.2)
    searches = [step.key for step in graph.steps.values() if step.kind == "search"]
    assert all(2 * foretold[key] < seconds[key] < 10 * foretold[key] for key in searches)
    assert after["estimates"]["kinds"]["train"]["cached"] == 3
    assert after["estimates"]["basis"] == "uncalibrated"  # most of what is left is of a kind that was not measured
    _finish(store, graph.steps[searches[0]], 10 * foretold[searches[0]])
    shown, after = _dry_run(capsys)
    assert after["estimates"]["basis"].startswith("calibrated from ")
    assert "these times are calibrated from" in shown


def test_nothing_to_do(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _dry_run(capsys)
    store = open_store("results")
    for step in _graph().steps.values():
        if step.kind != "corpus":
            _finish(store, step, 1.0)
    shown, said = _dry_run(capsys)
    assert said["totals"]["new"] == 0
    assert said["estimates"]["wall_seconds"] == 0
    assert "0 new" in shown
    assert "about" not in shown


# ---------------------------------------------------------------- what steps took


def test_an_interrupted_training_took_what_all_of_its_attempts_did(folder: Path) -> None:
    store, graph = open_store("results"), _graph()
    train, score = (next(step for step in graph.steps.values() if step.kind == kind) for kind in ("train", "score"))
    killed = {"started": "2026-01-01T00:00:00+00:00", "status": "failed", "finished": None}
    last = {"started": "2026-01-01T01:00:00+00:00", "status": "done", "finished": "2026-01-01T01:00:10+00:00"}
    for step in (train, score):
        with store.work(step.kind, step.key, "owner") as out:
            assert out is not None
            (out / attempts.ATTEMPTS).write_text(json.dumps([killed, last]))
            (out / "metrics.json").write_text(json.dumps({"train_seconds": 99.0}))
    assert seconds_of(store, train, attempts.read(store, "train", train.key)) == 99.0
    assert seconds_of(store, score, attempts.read(store, "score", score.key)) == 10.0
    assert seconds_of(store, score, []) is None


# ---------------------------------------------------------------- words


def test_machines_and_sizes_in_words() -> None:
    cpu = Node(id="a", name="a", cpus=2, memory=1)
    gpu = Node(id="b", name="b", cpus=64, memory=1, gpus=8, device="H100")
    assert machines([cpu]) == "2 cores"
    assert machines([gpu, gpu]) == "2 x (8 H100, 64 cores)"
    assert machines([gpu, cpu]) == "1 x (8 H100, 64 cores) and 1 x (2 cores)"
    assert [size(count) for count in (12, 1_500, 2.5e9, 3.1e13)] == ["12 B", "1.5 kB", "2.5 GB", "31.0 TB"]
