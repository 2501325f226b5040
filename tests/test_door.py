"""`run_grid.py` as a user calls it: exit codes, one line on standard error, nothing started."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOBODY = "s3://bucket/x?endpoint_override=http://127.0.0.1:9&region=us-east-1"
GRID = """
name: tiny
corpus: {source: jsonl, path: corpus.jsonl, dev: 1, test: 2}
identifiers: {kind: ngram}
models: {family: t5, size: [7k, 29k]}
data: {pairs: [8, 16]}
inference: {beams: [1, 4]}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = [
        {"text": f"text number {n} about words", "queries": [f"query {n} one", f"query {n} two"]} for n in range(9)
    ]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "tiny.yaml").write_text(GRID)
    return tmp_path


def _call(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "run_grid.py"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.yaml"], "none.yaml: no such grid file"),
        (["tiny.yaml", "--set", "inference.0.beams=0"], "--set: inference.0.beams: "),
        (["tiny.yaml", "--set", "corpus.path=gone.jsonl"], "--set: corpus.path: no such file: gone.jsonl"),
        (
            ["tiny.yaml", "--set", "data.pairs=1000"],
            "--set: data.pairs.0: 1000 is more than the corpus has; the largest D",
        ),
        (
            ["tiny.yaml", "--set", "identifiers=[{kind: codebook, codes: 999}]"],
            "--set: identifiers.0.codes: 999 is more than the corpus's 9 documents",
        ),
        (["tiny.yaml", "--results", "corpus.jsonl"], "--results "),
        (["tiny.yaml", "--results", "s3://ID:hunter2@bucket/x"], "--results: an address must not hold credentials"),
        (["tiny.yaml", "--results", "s3://bucket/x?colour=red"], "--results: colour: no such option"),
        (["tiny.yaml", "--results", NOBODY], f"--results {NOBODY}: cannot be written to: "),
        (["bad.yaml"], "bad.jsonl"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(folder: Path, arguments: list[str], said: str) -> None:
    (folder / "bad.jsonl").write_text('{"text": "a", "queries": ["b"]}\n{"text": \n')
    (folder / "bad.yaml").write_text(GRID.replace("corpus.jsonl", "bad.jsonl"))
    done = _call(folder, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert "hunter2" not in done.stderr
    assert not (folder / "results" / "tiny").exists()


def test_wrong_options_are_exit_code_2(folder: Path) -> None:
    for arguments in ([], ["tiny.yaml", "--colour"], ["tiny.yaml", "--json"], ["tiny.yaml", "--dry-run", "--status"]):
        assert _call(folder, *arguments).returncode == 2


def test_plan_and_status(folder: Path) -> None:
    done = _call(folder, "tiny.yaml", "--dry-run", "--json")
    assert done.returncode == 0
    said = json.loads(done.stdout)
    assert said["totals"] == {"trials": 8, "steps": 22, "cached": 0, "new": 22}
    assert said["trials"][0]["n_params"] == 7408
    assert said["estimates"]["basis"] == "uncalibrated"
    assert said["estimates"]["wall_seconds"] > 0
    text = _call(folder, "tiny.yaml", "--dry-run").stdout
    assert "8 trials (0 done), 22 steps: 1 cached, 21 new" in text
    assert all(trial["trial"] in text for trial in said["trials"])
    status = _call(folder, "tiny.yaml", "--status")
    assert status.returncode == 0
    assert "8 trials: 8 waiting" in status.stdout


def test_plans_the_papers_grid_without_a_network(tmp_path: Path) -> None:
    done = _call(tmp_path, str(ROOT / "grids" / "full.yaml"), "--dry-run", "--json")
    assert done.returncode == 0
    said = json.loads(done.stdout)
    assert len(said["trials"]) == 8 * 5 * 4
    sizes = sorted({trial["n_params"] for trial in said["trials"]})
    assert sizes[0] == 44_057_088
    assert sizes[-1] == 68_714_504_192
    estimates = said["estimates"]
    # 6 N D of every training, of some 22 tokens a pair; T5's encoder and decoder each see a part of them.
    six_n_d = sum(6.0 * trial["n_params"] * trial["d_pairs"] * 22 for trial in said["trials"]) / 4
    assert 0.6 * six_n_d < estimates["train_flops"] < 1.2 * six_n_d
    assert estimates["gpu_hours"] * 3600 * 312e12 > estimates["train_flops"]
    assert estimates["wall_seconds"] >= estimates["gpu_hours"] * 3600 / 64
    assert estimates["cost"] == pytest.approx(8 * 32 * estimates["wall_seconds"] / 3600)
    assert estimates["cost_while_busy"] <= estimates["cost"]
    assert not estimates["no_room"]


def test_storage_that_does_not_answer_is_one_line(folder: Path) -> None:
    done = _call(folder, "tiny.yaml", "--results", NOBODY, "--status")
    assert done.returncode == 1
    assert done.stderr.startswith(f"the results folder is out of reach: {NOBODY}: ")
    assert done.stderr.count("\n") == 1
