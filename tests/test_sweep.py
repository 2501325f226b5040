"""Whole sweeps on a real Ray, with stand-ins for the worker functions."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from shared_ray import run, small_cluster
from tiny_grids import write_grid

from orchestrator.cluster import pool
from results import schema
from results.local import LocalStore
from results.tables import read_rows, write_rows
from workers.errors import BadInput


@pytest.fixture(scope="module")
def ray_address() -> Iterator[str]:
    """One Ray for all sweeps of this file."""
    with small_cluster() as address:
        yield address


@pytest.fixture
def grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_address: str) -> Path:
    monkeypatch.setenv("RAY_ADDRESS", ray_address)
    return write_grid(tmp_path)


def _store(grid: Path) -> LocalStore:
    return LocalStore(root=grid.parent / "results")


def _steps(grid: Path) -> dict[str, float]:
    """Every finished step and when it was finished."""
    folders = (grid.parent / "results" / "steps").glob("*/*")
    return {path.name: path.stat().st_mtime_ns for path in folders if path.is_dir()}


def _rows(grid: Path) -> list[dict]:
    return read_rows(_store(grid), "tiny/trials", schema.TRIALS).to_pylist()


def test_a_sweep_writes_rows_and_a_second_run_does_nothing(grid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(grid) == 0
    results = grid.parent / "results" / "tiny"
    rows = _rows(grid)
    assert [(row["d_pairs"], row["beams"], row["status"]) for row in rows] == [
        (10, 1, "done"),
        (10, 4, "done"),
        (20, 1, "done"),
        (20, 4, "done"),
    ]
    assert {row["eval_seconds"] for row in rows} == {0.75}
    assert {row["peak_memory_bytes"] for row in rows} == {7}
    assert all(row["attempts"] == 1 and row["started"] < row["finished"] for row in rows)
    assert json.loads(rows[0]["versions"])["torch"]
    queries = pq.read_table(results / "queries" / f"{rows[0]['trial']}.parquet").to_pylist()
    assert [(row["query"], row["cgl"], row["rank"]) for row in queries] == [("a", 1.0, None), ("b", 2.0, 1)]
    assert (results / "runs" / f"{rows[0]['trial']}.trec").read_text().startswith("a Q0")
    assert len(list((results / "curves").glob("*.parquet"))) == 2
    assert read_rows(_store(grid), "tiny/baselines", schema.BASELINES).to_pylist()[0]["baseline"] == "random"
    train = next((grid.parent / "results" / "steps" / "train").iterdir())
    assert (train / "log.txt").read_text() == "training, rank 0\n"
    assert "fit_laws.py" in capsys.readouterr().out

    steps = _steps(grid)
    assert run(grid) == 0
    assert _steps(grid) == steps
    assert _rows(grid) == rows
    assert "0 of them new" in capsys.readouterr().out

    assert run(grid, "inference.0.beams=[1, 4, 9]") == 0
    added = _steps(grid).keys() - steps.keys()
    assert len(added) == 2
    assert all(_store(grid).is_finished("search", key) for key in added)
    assert len(_rows(grid)) == 6


def test_a_new_budget_runs_evaluations_only_and_a_new_cell_only_itself(grid: Path) -> None:
    assert run(grid, "data.pairs=10") == 0
    before = _steps(grid)

    def added(*overrides: str) -> Counter[str]:
        known = _steps(grid).keys()
        assert run(grid, *overrides) == 0
        folders = (grid.parent / "results" / "steps").glob("*/*")
        return Counter(path.parent.name for path in folders if path.is_dir() and path.name not in known)

    assert added("data.pairs=10", "inference.0.beams=[1, 4, 9, 16]") == {"search": 2}
    assert added("data.pairs=[10, 30]") == {"train": 1, "score": 1, "search": 2}
    assert added("data.pairs=[10, 30]") == {}
    assert all(_steps(grid)[step] == when for step, when in before.items())


def test_weights_go_with_the_last_evaluation_where_they_are_not_to_be_kept(grid: Path) -> None:
    assert run(grid, "seeds=[0, 13]", "data.pairs=10", "training.keep_weights=false") == 1
    folders = [path for path in (grid.parent / "results" / "steps" / "train").iterdir() if "." not in path.name]
    assert len(folders) == 1
    assert not (folders[0] / "weights").exists()
    assert json.loads((folders[0] / "dropped.json").read_text()) == ["weights"]
    assert run(grid, "seeds=1", "data.pairs=10") == 0
    kept = [path for path in (grid.parent / "results" / "steps" / "train").iterdir() if (path / "weights").exists()]
    assert len(kept) == 1


def test_new_evaluations_of_dropped_weights_are_refused_or_trained_for_again(
    grid: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ("data.pairs=10", "training.keep_weights=false")
    assert run(grid, *overrides) == 0
    rows, steps = _rows(grid), _steps(grid)
    assert run(grid, *overrides) == 0, "nothing new needs the weights"
    wider = (*overrides, "inference.0.beams=[1, 4, 9]")
    line = (
        "training.keep_weights: the weights of a finished training are gone, and new evaluations need them; --retrain"
    )
    for mode in ("plan", "run"):
        with pytest.raises(BadInput, match=line):
            run(grid, *wider, mode=mode)
    assert _steps(grid) == steps
    capsys.readouterr()
    assert run(grid, *wider, mode="plan", retrain=True) == 0
    assert json.loads(capsys.readouterr().out)["totals"]["new"] == 2, "the training and the search"
    assert _steps(grid) == steps
    assert run(grid, *wider, retrain=True) == 0
    assert [key for key, when in _steps(grid).items() if steps.get(key, when) != when] == [rows[0]["train_key"]]
    assert {row["beams"]: row["hit@10"] for row in _rows(grid)}.items() > {
        row["beams"]: row["hit@10"] for row in rows
    }.items()
    assert run(grid, *wider) == 0, "and nothing is trained twice"


def test_failures_become_rows_and_the_sweep_goes_on(grid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(grid, "seeds=[0, 13, 14, 15]", "data.pairs=10", "inference.0.beams=1") == 1
    rows = {row["seed"]: row for row in _rows(grid)}
    assert {seed: row["status"] for seed, row in rows.items()} == {0: "done", 13: "failed", 14: "done", 15: "done"}
    assert "diverged: loss is nan at step 1" in rows[13]["error"]
    assert {seed: row["attempts"] for seed, row in rows.items()} == {0: 1, 13: 1, 14: 2, 15: 2}
    assert "trying again" in capsys.readouterr().out
    train = grid.parent / "results" / "steps" / "train"
    folder = train / (rows[13]["train_key"] + ".partial")
    assert "Diverged" in (folder / "error.txt").read_text()
    killed = json.loads((train / rows[15]["train_key"] / "attempts.json").read_text())
    assert [one["kind"] for one in killed] == ["worker_died", None]

    assert run(grid, "seeds=[0, 13, 14, 15]", "data.pairs=10", "inference.0.beams=1", mode="status") == 0
    said = json.loads(capsys.readouterr().out)
    assert [one["state"] for one in said["trials"]] == ["done", "failed", "done", "done"]
    assert any("loss is nan" in one["note"] for one in said["steps"])


def test_a_training_that_is_killed_for_good_has_failed_and_keeps_its_curve(
    grid: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ("seeds=17", "data.pairs=10", "inference.0.beams=1", "resources.max_attempts=1")
    assert run(grid, *overrides) == 1
    capsys.readouterr()
    row = _rows(grid)[0]
    assert row["status"] == "failed"
    assert (row["split"], row["negatives"], row["batch"], len(row["recipe"])) == ("test", 256, None, 12)
    curve = read_rows(_store(grid), "tiny/curves", schema.CURVES).to_pylist()
    assert [(one["train_key"], one["step"]) for one in curve] == [(row["train_key"], 1)]
    assert run(grid, *overrides, mode="status") == 0
    said = json.loads(capsys.readouterr().out)
    states = {one["kind"]: one["state"] for one in said["steps"]}
    assert states["train"] == "failed"


def test_refused_for_its_resources_a_sweep_touches_nothing(grid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(grid, "data.pairs=10") == 0
    results = grid.parent / "results" / "tiny"
    before = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    with pytest.raises(BadInput, match="more than there is"):
        run(grid, "data.pairs=10", "resources.cpus_per_worker=99", "training.epochs=3")
    assert {path: path.read_bytes() for path in results.rglob("*") if path.is_file()} == before


def test_a_row_goes_only_when_its_successor_stands(grid: Path) -> None:
    assert run(grid, "data.pairs=10", "seeds=[0, 1]", "inference=[{beams: 4}, {beams: 4, max_new_tokens: 3}]") == 0
    old = _rows(grid)
    assert len(old) == 4
    assert run(grid, "data.pairs=10", "seeds=[0, 1]", "inference=[{beams: 4}]") == 0
    assert _rows(grid) == old
    assert run(grid, "data.pairs=10", "seeds=[0, 1]", "inference=[{beams: 4, max_new_tokens: 3}]") == 0
    assert _rows(grid) == old
    assert run(grid, "data.pairs=10", "seeds=[0, 1]", "inference=[{beams: 4}]", "training.epochs=3") == 0
    assert sorted((row["seed"], row["max_new_tokens"], row["recipe"] == old[0]["recipe"]) for row in _rows(grid)) == [
        (0, 3, True),
        (0, 8, False),
        (1, 3, True),
        (1, 8, False),
    ]


def test_a_row_whose_label_lacks_the_length_is_replaced(grid: Path) -> None:
    """Labels did not always say the number of new tokens: the same trial and an older one, under such names."""
    budgets = "inference=[{beams: 4}, {beams: 4, max_new_tokens: 3}]"
    assert run(grid, "data.pairs=10", budgets) == 0
    made = _rows(grid)
    steps = _steps(grid)
    results = grid.parent / "results" / "tiny"
    (cut,) = (row["trial"] for row in made if row["max_new_tokens"] == 3)
    old = cut.replace("-m3-", "-")
    for table, end in (("trials", "parquet"), ("queries", "parquet"), ("runs", "trec")):
        (results / table / f"{cut}.{end}").rename(results / table / f"{old}.{end}")
    write_rows(_store(grid), f"tiny/trials/{old[:-8]}00000000.parquet", made[-1:], schema.TRIALS)
    assert len(_rows(grid)) == 3
    assert run(grid, "data.pairs=10", budgets) == 0
    assert sorted(row["trial"] for row in _rows(grid)) == sorted(row["trial"] for row in made)
    assert not list(results.rglob(f"{old}*"))
    assert _steps(grid) == steps


def test_files_cut_short_by_a_power_loss_are_written_again(grid: Path) -> None:
    assert run(grid, "data.pairs=10", "seeds=[0, 13]") == 1
    rows = _rows(grid)
    results = grid.parent / "results"
    torn = [*(results / "tiny").rglob("*.parquet"), *(results / "steps" / "train").glob("*.partial/attempts.json")]
    for path in torn:
        path.write_bytes(b"")
    (results / "tiny" / "trials" / (rows[0]["trial"][:-8] + "00000000.parquet")).write_bytes(b"")
    assert run(grid, "data.pairs=10", "seeds=[0, 13]") == 1
    done = [row for row in rows if row["status"] == "done"]
    assert [row for row in _rows(grid) if row["status"] == "done"] == done
    assert len(_rows(grid)) == len(rows) == 4
    assert len(read_rows(_store(grid), "tiny/curves", schema.CURVES)) == 1


def test_workers_train_together(grid: Path) -> None:
    assert run(grid, "resources.workers_per_training=2", "data.pairs=10", "seeds=[0, 14]") == 0
    trained = [path for path in (grid.parent / "results" / "steps" / "train").iterdir() if path.is_dir()]
    assert len(trained) == 2
    for folder in trained:
        last = max(folder.glob("rank0-*"), key=lambda path: path.stat().st_mtime_ns)
        assert last.with_name(last.name.replace("rank0", "rank1")).exists()
        assert int(last.name.partition("-")[2]) > 0
        assert not (folder / "gang.json").exists()


def test_a_gang_that_lost_a_member_starts_afresh(grid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "GRACE_SECONDS", 1.0)
    overrides = ("data.pairs=10", "seeds=[0, 16, 1, 18, 2]", "inference.0.beams=[1, 7]")
    assert run(grid, "resources.workers_per_training=2", *overrides) == 0
    assert {row["attempts"] for row in _rows(grid) if row["beams"] == 7} == {2}
    attempts = {row["seed"]: row["attempts"] for row in _rows(grid) if row["beams"] == 1}
    assert attempts == {0: 1, 16: 2, 1: 1, 18: 2, 2: 1}
    log = (grid.parent / "results" / "steps" / "train").glob("*/killed")
    assert len(list(log)) == 2


def test_nobody_at_the_address_is_told_at_once(grid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for address, said in (("127.0.0.1:9", "no Ray answers there"), ("nonsense", "Invalid address"), ("::", "")):
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(BadInput, match=f"^RAY_ADDRESS={address}: .*{said}") as caught:
            run(grid)
        assert "\n" not in str(caught.value)
    assert not (grid.parent / "results" / "tiny").exists()


def test_workers_that_do_not_start_are_one_line(
    grid: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pool, "environment", lambda cpus, gpus: {"NO_TEXT": 1})
    assert run(grid) == 1
    said = capsys.readouterr().err
    assert said.startswith("workers do not start: ")
    assert said.count("\n") == 1
