"""The fault matrix: whatever is killed, torn, full or wrong, nothing finished runs again and every figure is the same.

`make test-faults` runs all of it; those marked `short` too are part of `make test`.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Sweep, check, kill, sweep_in

pytestmark = pytest.mark.faults


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """What all others are compared with."""
    with sweep_in(tmp_path_factory.mktemp("undisturbed")) as sweep:
        assert sweep.run() == 0, sweep.said()
        check(sweep, sweep)
        return sweep


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[Sweep]:
    with sweep_in(tmp_path / "sweep") as sweep:
        yield sweep


def kinds_of_failures(sweep: Sweep, kind: str) -> set[str | None]:
    return {attempt["kind"] for attempts in sweep.attempts(kind) for attempt in attempts}


# ---------------------------------------------------------------- processes that are killed


@pytest.mark.short
def test_the_driver_is_killed_in_a_training(sweep: Sweep, undisturbed: Sweep) -> None:
    driver = sweep.start()
    sweep.training()
    kill(driver.pid)
    driver.wait()
    before = sweep.finished()
    assert before
    assert sweep.run() == 0
    check(sweep, undisturbed, before)


def test_the_driver_is_killed_when_rows_are_written(sweep: Sweep, undisturbed: Sweep) -> None:
    driver = sweep.start()
    sweep.wait_for("a row", sweep.rows)
    kill(driver.pid)
    driver.wait()
    before = sweep.finished()
    assert sweep.run() == 0
    check(sweep, undisturbed, before)


def test_a_training_worker_is_killed(sweep: Sweep, undisturbed: Sweep) -> None:
    driver = sweep.start()
    sweep.training()
    kill(sweep.worker("train"))
    assert sweep.end(driver) == 0, sweep.said()
    check(sweep, undisturbed)
    assert kinds_of_failures(sweep, "train") == {None, "worker_died"}


def test_an_evaluation_worker_is_killed(sweep: Sweep, undisturbed: Sweep) -> None:
    driver = sweep.start()
    kill(sweep.worker("search"))
    assert sweep.end(driver) == 0, sweep.said()
    check(sweep, undisturbed)
    assert kinds_of_failures(sweep, "search") == {None, "worker_died"}


@pytest.fixture
def three_nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    from ray.cluster_utils import Cluster

    paths = os.pathsep.join([str(Path(__file__).resolve().parents[2]), str(Path(__file__).parent)])
    monkeypatch.setenv("PYTHONPATH", paths)
    arguments = {"include_dashboard": False, "object_store_memory": 10**8}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **arguments})
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=10**8)
    yield cluster
    cluster.shutdown()


def test_a_node_goes_with_all_that_runs_on_it_and_another_joins(
    sweep: Sweep, undisturbed: Sweep, three_nodes: object
) -> None:
    cluster = three_nodes
    sweep.overrides = ("resources.cpus_per_worker=1",)
    driver = sweep.start(RAY_ADDRESS=cluster.address)
    sweep.training()
    pid = sweep.worker("train")
    gone = next(node for node in cluster.worker_nodes if _raylet_of(pid) == node.all_processes["raylet"][0].process.pid)
    cluster.remove_node(gone, allow_graceful=False)
    cluster.add_node(num_cpus=1, object_store_memory=10**8)
    assert sweep.end(driver) == 0, sweep.said()
    check(sweep, undisturbed)
    assert {"node_lost", None} == kinds_of_failures(sweep, "train")


def _raylet_of(pid: int) -> int:
    """A worker's parent."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


# ---------------------------------------------------------------- asked to stop


def test_sigterm_lets_trainings_save_what_they_have(sweep: Sweep, undisturbed: Sweep) -> None:
    driver = sweep.start()
    sweep.training()
    driver.send_signal(signal.SIGTERM)
    assert sweep.end(driver) == 130
    assert "the same command goes on from here" in sweep.said()
    before = sweep.finished()
    assert any(folder.glob("step-*/whole.json") for folder in sweep.partial("train"))
    assert sweep.run() == 0
    check(sweep, undisturbed, before)
    assert "interrupted" in kinds_of_failures(sweep, "train")


def test_interrupted_twice_it_ends_at_once(sweep: Sweep, undisturbed: Sweep) -> None:
    driver = sweep.start()
    sweep.training()
    driver.send_signal(signal.SIGINT)
    sweep.wait_for("word of it", lambda: "once more ends it at once" in sweep.said())
    driver.send_signal(signal.SIGINT)
    assert sweep.end(driver) == 130
    before = sweep.finished()
    assert sweep.run() == 0
    check(sweep, undisturbed, before)


# ---------------------------------------------------------------- several drivers


@pytest.mark.short
def test_two_drivers_one_of_them_with_a_wrong_clock_share_the_work(sweep: Sweep, undisturbed: Sweep) -> None:
    first = sweep.start()
    second = sweep.start(FAULT="skew:86400")
    assert sweep.end(first) == 0, sweep.said(0)
    assert sweep.end(second) == 0, sweep.said(1)
    check(sweep, undisturbed)
    for kind in ("train", "score", "search"):
        assert [len(attempts) for attempts in sweep.attempts(kind)].count(1) == len(sweep.attempts(kind))


def test_a_driver_takes_over_from_one_that_was_killed_while_both_ran(sweep: Sweep, undisturbed: Sweep) -> None:
    first = sweep.start(FAULT="skew:-86400")
    sweep.training(checkpoint=False)
    second = sweep.start()
    sweep.wait_for("the second driver", lambda: "12 steps" in sweep.said() or "13 steps" in sweep.said())
    kill(first.pid)
    first.wait()
    before = sweep.finished()
    assert sweep.end(second) == 0, sweep.said()
    check(sweep, undisturbed, before)


# ---------------------------------------------------------------- files that are torn


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_checkpoint_is_torn(sweep: Sweep, undisturbed: Sweep, damage: str) -> None:
    driver = sweep.start()
    folder = sweep.training()
    kill(driver.pid)
    driver.wait()
    time.sleep(1)  # its workers end with it
    before = sweep.finished()
    for folder in sweep.partial("train"):
        for path in folder.glob("step-*/**/*"):
            if path.is_file() and path.stat().st_size > 1000:
                content = path.read_bytes()
                middle = len(content) // 2
                wrong = content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]
                path.write_bytes(content[:middle] if damage == "cut" else wrong)
    assert sweep.run() == 0, sweep.said()
    check(sweep, undisturbed, before)


def test_parquet_parts_are_cut_short(sweep: Sweep, undisturbed: Sweep) -> None:
    shutil.copytree(undisturbed.folder / "results", sweep.folder / "results")
    before = sweep.finished()
    for part in sorted((sweep.folder / "results" / "faults").rglob("*.parquet")):
        part.write_bytes(part.read_bytes()[:200])
    assert sweep.run() == 0
    check(sweep, undisturbed, before)


# ---------------------------------------------------------------- no room


def test_memory_is_short(sweep: Sweep, undisturbed: Sweep) -> None:
    assert sweep.run(FAULT="memory") == 0, sweep.said()
    check(sweep, undisturbed, exactly=False)
    assert kinds_of_failures(sweep, "train") == {None, "out_of_memory"}
    assert {row["micro_batch"] for row in sweep.rows()} == {4}
    assert {row["accumulation"] for row in sweep.rows()} == {4}
    assert {row["attempts"] for row in sweep.rows()} == {3}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_the_disk_is_full_for_a_while(sweep: Sweep, undisturbed: Sweep, small_disk: Path) -> None:
    (sweep.folder / "results").symlink_to(small_disk)
    driver = sweep.start()
    sweep.training()
    ballast = small_disk / "ballast"
    with ballast.open("wb") as file:
        try:
            while True:
                file.write(bytes(2**16))
                file.flush()
        except OSError:
            pass
    sweep.wait_for("word of it", lambda: "storage" in sweep.said())
    ballast.unlink()
    assert sweep.end(driver) == 0, sweep.said()
    check(sweep, undisturbed)


# ---------------------------------------------------------------- trainings that cannot be


@pytest.mark.short
def test_a_loss_that_is_not_a_number_fails_alone_and_is_a_row(sweep: Sweep, undisturbed: Sweep) -> None:
    broken = ("--set", "models.1.learning_rate=1e30")
    assert sweep.run(*broken) == 1
    rows = {row["family"]: row for row in sweep.rows() if row["status"] == "done"}
    assert set(rows) == {"t5"}
    failed = [row for row in sweep.rows() if row["status"] == "failed"]
    assert len(failed) == 2
    assert all(row["error"].startswith("diverged") or "diverged" in row["error"] for row in failed)
    assert "--retry-failed" in sweep.said()
    before = sweep.finished()
    assert sweep.run(*broken) == 1  # it stays as it is
    assert [attempt["status"] for attempts in sweep.attempts("train") for attempt in attempts].count("failed") == 1
    assert sweep.run("--retry-failed", *broken) == 1
    assert [attempt["status"] for attempts in sweep.attempts("train") for attempt in attempts].count("failed") == 2
    assert sweep.run() == 0
    for row, other in zip(sweep.rows(), undisturbed.rows(), strict=True):
        assert row["hit@10"] == other["hit@10"]
        assert row["cgl"] == other["cgl"]
    assert all(sweep.finished()[step] == number for step, number in before.items())


def test_an_attempt_that_takes_too_long_is_ended_and_goes_on_from_its_checkpoint(
    sweep: Sweep, undisturbed: Sweep
) -> None:
    driver = sweep.start("--set", "resources.timeout.train=45")
    sweep.training()
    os.kill(sweep.worker("train"), signal.SIGSTOP)  # it hangs
    assert sweep.end(driver) == 0, sweep.said()
    check(sweep, undisturbed)
    assert kinds_of_failures(sweep, "train") == {None, "timeout"}
