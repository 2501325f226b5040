"""Whole sweeps with their results in an object store, on a real Ray and a real S3-compatible server."""

import json
import multiprocessing
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3_server
from shared_ray import run, small_cluster
from tiny_grids import write_grid

import fit_laws
from results import schema
from results.leases import Leases
from results.opening import open_store
from results.store import Store
from results.tables import read_rows


@pytest.fixture(scope="module")
def ray_address(server: s3_server.Server) -> Iterator[str]:
    """After the server, because its workers take the credentials from this process's environment."""
    with small_cluster() as address:
        yield address


@pytest.fixture
def grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_address: str) -> Path:
    monkeypatch.setenv("RAY_ADDRESS", ray_address)
    return write_grid(tmp_path)


def _rows(store: Store) -> list[dict]:
    return read_rows(store, "tiny/trials", schema.TRIALS).to_pylist()


def test_a_sweep_resumes_and_retries_as_on_a_file_system(
    grid: Path, server: s3_server.Server, capsys: pytest.CaptureFixture[str]
) -> None:
    results = server.folder()
    store = open_store(results)
    overrides = ("seeds=[0, 13, 14, 15]", "data.pairs=10", "inference.0.beams=1")
    assert run(grid, *overrides, results=results) == 1
    rows = {row["seed"]: row for row in _rows(store)}
    assert {seed: row["status"] for seed, row in rows.items()} == {0: "done", 13: "failed", 14: "done", 15: "done"}
    assert {seed: row["attempts"] for seed, row in rows.items()} == {0: 1, 13: 1, 14: 2, 15: 2}
    assert "diverged: loss is nan at step 1" in rows[13]["error"]
    assert store.peek("train", rows[0]["train_key"], "log.txt") == b"training, rank 0\n"
    assert store.read_bytes(f"tiny/runs/{rows[0]['trial']}.trec").startswith(b"a Q0")
    assert len(store.listing("tiny/curves")) == 3
    assert store.listing("leases/train") == store.listing("drivers") == []
    assert "s3://" in capsys.readouterr().out

    assert run(grid, *overrides, mode="status", results=results) == 0
    said = json.loads(capsys.readouterr().out)
    assert [one["state"] for one in said["trials"]] == ["done", "failed", "done", "done"]

    done = [name for name in server.names(results) if "/done/" in name]
    assert run(grid, "seeds=[0]", "data.pairs=10", "inference.0.beams=[1, 4]", results=results) == 0
    added = [name for name in server.names(results) if "/done/" in name and name not in done]
    assert [name.split("/")[1] for name in added] == ["search"]


def test_workers_of_a_machine_train_together(grid: Path, server: s3_server.Server) -> None:
    """Also where the first attempt loses a worker."""
    results = server.folder()
    store = open_store(results)
    overrides = ("resources.workers_per_training=2", "data.pairs=10", "inference.0.beams=1", "seeds=[0, 14, 16]")
    assert run(grid, *overrides, results=results) == 0
    assert {row["seed"]: row["attempts"] for row in _rows(store)} == {0: 1, 14: 2, 16: 2}
    for row in _rows(store):
        names = {path.name.partition("-")[0] for path in store.fetch("train", row["train_key"]).glob("rank*")}
        assert names == {"rank0", "rank1"}


def test_a_part_that_is_not_whole_is_written_again(grid: Path, server: s3_server.Server) -> None:
    results = server.folder()
    store = open_store(results)
    assert run(grid, "data.pairs=10", results=results) == 0
    rows = _rows(store)
    for name in server.names(results):
        if name.endswith(".parquet") and name.startswith("tiny/"):
            store.write_bytes(name, b"PAR1")
    assert run(grid, "data.pairs=10", results=results) == 0
    assert _rows(store) == rows


@pytest.mark.faults
@pytest.mark.short
def test_an_outage_in_the_middle_costs_time_and_nothing_else(grid: Path, server: s3_server.Server) -> None:
    results = server.folder()
    store = open_store(results)

    def outage() -> None:
        while not store.finished("tokenizer"):
            time.sleep(0.02)
        with server.paused():
            time.sleep(8)

    thread = threading.Thread(target=outage)
    thread.start()
    assert run(grid, "seeds=[0, 1, 2]", results=results) == 0
    thread.join()
    assert {row["status"] for row in _rows(store)} == {"done"}
    assert len(_rows(store)) == 12


def _drive(grid: Path, results: str, codes: "multiprocessing.Queue[int]") -> None:
    codes.put(run(grid, "seeds=[0, 1, 2]", results=results))


def test_two_drivers_share_the_work_and_do_no_step_twice(grid: Path, server: s3_server.Server) -> None:
    results = server.folder()
    store = open_store(results)
    processes = multiprocessing.get_context("spawn")
    codes: multiprocessing.Queue[int] = processes.Queue()
    drivers = [processes.Process(target=_drive, args=(grid, results, codes)) for _ in range(2)]
    for driver in drivers:
        driver.start()
    assert [codes.get(timeout=240) for _ in drivers] == [0, 0]
    for driver in drivers:
        driver.join()
    assert len(_rows(store)) == 12
    assert {row["attempts"] for row in _rows(store)} == {1}
    marks = [name.split("/") for name in server.names(results) if "/done/" in name]
    assert all(attempt.startswith("000001-") for *_, attempt in marks)
    owners = {attempt.removeprefix("000001-").rpartition("-")[0] for *_, attempt in marks}
    assert len(owners) >= 2


def test_what_another_driver_reads_is_waited_for(
    grid: Path, server: s3_server.Server, capsys: pytest.CaptureFixture[str]
) -> None:
    results = server.folder()
    store = open_store(results)
    assert run(grid, mode="plan", results=results) == 0
    (key,) = store.finished("corpus")
    capsys.readouterr()
    other = server.folder()
    with Leases(open_store(other)) as reader:
        assert reader.take("corpus", key)
        threading.Timer(2.0, reader.release, args=("corpus", key)).start()
        assert run(grid, mode="plan", results=other) == 0
    said = capsys.readouterr().err
    assert said.index("waiting for another driver") < said.index("reading the corpus")


def test_laws_are_fitted_where_the_results_are(
    grid: Path, server: s3_server.Server, capsys: pytest.CaptureFixture[str]
) -> None:
    results = server.folder()
    assert run(grid, "data.pairs=[10, 20, 30]", "inference.0.beams=[1, 2, 4]", "seeds=[0, 1]", results=results) == 0
    capsys.readouterr()
    address = open_store(results).shown("tiny")
    assert fit_laws.main([address, "--metric", "hit@10"]) in (0, 1)
    assert f"report   {open_store(address).shown('report/report.html')}" in capsys.readouterr().out
    page = open_store(results).read_text("tiny/report/report.html")
    assert page.startswith("<!doctype html>")
    assert json.loads(open_store(results).read_text("tiny/report/laws.json"))
