"""The commands that a user types, on a corpus of a few dozen documents, with the real workers and a real Ray."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from results import schema
from results.local import LocalStore
from results.tables import read_rows

HERE = Path(__file__).resolve().parent.parent

CORPUS = """
name: small
corpus: {source: jsonl, path: corpus.jsonl, dev: 2, test: 12}
tokenizer: {vocabulary: 400}
identifiers:
  - {kind: ngram, length: 5}
  - {kind: codebook, levels: 2, codes: 4, pairs: 200, only: {models: t5-7k}}
models: [{family: t5, size: 7k}, {family: llama, size: 6k}]
data: {pairs: [100, 200, 300]}
inference: {beams: [1, 4]}
training: {checkpoint_every: 5, log_every: 1}
evaluation: {negatives: 8, bootstrap: 100}
"""

TIMES = ("started", "finished", "attempts", "latency_ms", "queries_per_s", "train_seconds", "eval_seconds")
"""Columns that may differ between two runs; with `peak_memory_bytes` and the provenance of the run."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A grid and its corpus; queries share words with their document, in three scripts."""
    words = ["river", "engine", "violin", "Hafen", "планета", "orchid", "冰川", "bridge", "falcon", "castle"]
    lines = []
    for i in range(40):
        a, b, c = words[i % 10], words[(i // 4) % 10], words[(3 * i + 1) % 10]
        text = f"{a} number {i} stands by {b} and {c}; the {c} of {i} follows the {a}"
        queries = [f"what stands by {b} {i}", f"which {a} is {i} {b}", f"who follows {a} {c} {i}"]
        lines.append(json.dumps({"id": f"d{i}", "text": text, "queries": queries}, ensure_ascii=False))
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "small.yaml").write_text(CORPUS)
    return tmp_path


def command(folder: Path, results: str, *arguments: str) -> list[str]:
    return [sys.executable, str(HERE / "run_grid.py"), "small.yaml", "--results", results, *arguments]


def run(folder: Path, results: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.run(
        command(folder, results, *arguments), cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


def rows(folder: Path, results: str) -> list[dict]:
    table = read_rows(LocalStore(root=folder / results), "small/trials", schema.TRIALS).to_pylist()
    dropped = (*TIMES, "peak_memory_bytes", "git_commit")
    return [{name: value for name, value in row.items() if name not in dropped} for row in table]


@pytest.mark.faults
def test_a_killed_driver_loses_nothing(folder: Path) -> None:
    """SIGKILL in the middle, the same command again: the rows of a run that was never killed, metric for metric."""
    whole = run(folder, "whole")
    assert whole.returncode == 0, whole.stdout + whole.stderr
    killed = subprocess.Popen(
        command(folder, "killed"), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    done = folder / "killed" / "steps" / "train"
    deadline = time.monotonic() + 200
    while len([path for path in done.glob("*") if path.is_dir()]) < 3 and time.monotonic() < deadline:
        assert killed.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    finished = {path: path.stat().st_mtime_ns for path in done.iterdir() if path.is_dir() and "." not in path.name}
    assert 0 < len(finished) < 7
    again = run(folder, "killed")
    assert again.returncode == 0, again.stdout + again.stderr
    assert rows(folder, "killed") == rows(folder, "whole")
    assert len(rows(folder, "whole")) == 14
    assert {path: path.stat().st_mtime_ns for path in finished} == finished, "a finished step ran again"
    third = run(folder, "killed")
    assert "0 of them new" in third.stdout
    laws = subprocess.run(
        [sys.executable, str(HERE / "fit_laws.py"), "killed"], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert laws.returncode == 0, laws.stdout + laws.stderr
    assert (folder / "killed" / "report" / "report.html").exists()
    assert json.loads((folder / "killed" / "report" / "laws.json").read_text())


def test_two_workers_train_one_model(folder: Path) -> None:
    """A gang of two over gloo, ZeRO stage 2, as on two GPUs."""
    arguments = (
        "--set",
        "resources.workers_per_training=2",
        "--set",
        "training.zero_stage=2",
        "--set",
        "data.pairs=100",
    )
    only = ("--set", "models=[{family: llama, size: 6k}]", "--set", "identifiers=[{kind: ngram, length: 5}]")
    done = run(folder, "results", *arguments, *only, "--set", "resources.cpus_per_worker=0.5")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {(row["workers"], row["zero_stage"], row["status"]) for row in rows(folder, "results")} == {(2, 2, "done")}


def test_a_diverging_training_is_a_row_and_exit_code_1(folder: Path) -> None:
    arguments = ("--set", "training={learning_rate: 1e30, clip: 1e30, warmup: 0.0}", "--set", "data.pairs=200")
    done = run(
        folder, "results", *arguments, "--set", "models=[{family: t5, size: 7k}]", "--set", "inference=[{beams: 1}]"
    )
    assert done.returncode == 1, done.stdout + done.stderr
    found = rows(folder, "results")
    assert {row["status"] for row in found} == {"failed"}
    assert all(re.search("the (loss|gradient.s norm) is (nan|inf)", row["error"]) for row in found)
