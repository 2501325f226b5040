"""A results folder in an object store: what only that must fear. On a real S3-compatible server."""

import pickle
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import s3_server
from store_steps import FILES, finish

from results import keeping, objects
from results.errors import LostLease, StorageRefused, StorageTrouble, TornFile
from results.objects import ObjectStore
from results.opening import open_store
from results.remote import parse

ROOT = Path(__file__).parent.parent


@pytest.fixture
def remote(server: s3_server.Server, tmp_path: Path) -> ObjectStore:
    made = open_store(server.folder(), tmp_path / "scratch")
    assert isinstance(made, ObjectStore)
    return made


def test_after_a_step_nothing_is_left_but_its_files(remote: ObjectStore, server: s3_server.Server) -> None:
    def attempt() -> None:
        with remote.work("train", "k", "a") as out:
            assert out is not None
            _checkpoint(out, 1)
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        attempt()
    assert "steps/train/files/k/000001-a/step-1/whole.json" in server.names(remote.address)
    with remote.work("train", "k", "b") as out:
        assert out is not None
        assert (out / "step-1" / "state").read_text() == "1"
        shutil.rmtree(out / "step-1")
        (out / "weights").write_text("w")
    assert server.names(remote.address) == ["steps/train/done/k/000003-b.json", "steps/train/files/k/000003-b/weights"]
    assert not list((remote._here / "work" / "train").iterdir())


def test_an_empty_listing_is_no_step(remote: ObjectStore, server: s3_server.Server) -> None:
    """What pyarrow writes to have folders, and what a lost machine left, are not steps."""
    path = remote.address.removeprefix("s3://").partition("?")[0]
    server.files.create_dir(f"{path}/steps/train/done")
    with server.files.open_output_stream(f"{path}/steps/train/files/k/000001-x/weights") as stream:
        stream.write(b"half")
    assert remote.finished("train") == set()
    assert not remote.is_finished("train", "k")
    assert remote.partial("train") == {}


def _checkpoint(out: Path, step: int) -> None:
    (out / f"step-{step}").mkdir()
    (out / f"step-{step}" / "state").write_text(str(step))
    (out / f"step-{step}" / "whole.json").write_text("{}")


def _until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not true():
        assert time.monotonic() < until, "it does not come"
        time.sleep(0.02)


def _train_and_vanish(store: ObjectStore, is_there: Callable[[str], bool], then: Callable[[], None]) -> None:
    """Three checkpoints, of which training keeps two, a fourth half written; `then` the machine is gone."""
    with store.work("train", "k", "lost") as out:
        assert out is not None
        (out / "curve.jsonl").write_text("one\n")
        for step in (1, 2, 3):
            _checkpoint(out, step)
            _until(lambda step=step: is_there(f"steps/train/files/k/000001-lost/step-{step}/state"))
            shutil.rmtree(out / f"step-{step - 1}", ignore_errors=True)
        (out / "step-4").mkdir()
        (out / "step-4" / "state").write_text("half")
        (out / "log.txt").write_text("last words")
        _until(lambda: store.peek("train", "k", "log.txt") == b"last words")
        then()


def test_a_lost_machine_costs_no_more_than_what_came_after_the_newest_checkpoint(
    remote: ObjectStore, server: s3_server.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "KEEP_SECONDS", 0.05)

    def go_on() -> None:
        with ObjectStore(remote.place, tmp_path / "elsewhere").work("train", "k", "next") as out:
            assert out is not None
            found = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
            assert found == ["curve.jsonl", "log.txt", "step-3/state", "step-3/whole.json"]
            assert (out / "step-3" / "state").read_text() == "3"

    def is_there(name: str) -> bool:
        return name in server.names(remote.address)

    with pytest.raises(LostLease):
        _train_and_vanish(remote, is_there, go_on)
    assert remote.is_finished("train", "k")
    assert not [name for name in server.names(remote.address) if "000001-lost/" in name]


def test_the_machine_that_died_half_way_still_has_what_was_not_kept(remote: ObjectStore) -> None:
    script = """
import os, signal, sys
from pathlib import Path
from results.opening import open_store
with open_store(sys.argv[1], Path(sys.argv[2])).work("train", "k", "killed") as out:
    (out / "tried").write_text("just now")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    command = [sys.executable, "-c", script, remote.address, str(remote.scratch)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -9
    remote.put("train", "k", "attempts.json", b"[]")
    with remote.work("train", "k", "again") as out:
        assert out is not None
        assert sorted(path.name for path in out.iterdir()) == ["attempts.json", "tried"]


UPLOADER = """
import sys
from pathlib import Path
from results.opening import open_store
with open_store(sys.argv[1], Path(sys.argv[2])).work("train", "k", "killed") as out:
    for n in range(40):
        (out / f"part{n}").write_bytes(bytes(3_000_000))
    print("uploading", flush=True)
"""


def test_a_torn_upload_is_never_visible(remote: ObjectStore, server: s3_server.Server) -> None:
    command = [sys.executable, "-c", UPLOADER, remote.address, str(remote.scratch)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"uploading\n"
        _until(lambda: sum("/part" in name for name in server.names(remote.address)) > 3)
        process.kill()
    assert not remote.is_finished("train", "k")
    assert 3 < sum("/part" in name for name in server.names(remote.address)) < 40
    finish(remote, "k", {"small": b"1"}, owner="again")
    assert "small" in [path.name for path in remote.fetch("train", "k").iterdir()]
    assert not [name for name in server.names(remote.address) if "-killed/" in name]


def test_a_copy_that_is_not_whole_is_fetched_again(remote: ObjectStore, tmp_path: Path) -> None:
    finish(remote, "k", FILES)
    other = ObjectStore(remote.place, tmp_path / "elsewhere")
    for spoil in (
        lambda folder: (folder / "weights" / "model.bin").write_bytes(FILES["weights/model.bin"][:-1]),
        lambda folder: (folder / "metrics.json").unlink(),
        lambda folder: folder.with_name("k.json").write_text("{"),
        lambda folder: folder.with_name("k.json").unlink(),
    ):
        spoil(other.fetch("train", "k"))
        folder = other.fetch("train", "k")
        assert {name: (folder / name).read_bytes() for name in FILES} == FILES


def test_an_object_that_was_cut_is_told_of(remote: ObjectStore, server: s3_server.Server, tmp_path: Path) -> None:
    finish(remote, "k", FILES)
    path = remote.address.removeprefix("s3://").partition("?")[0]
    with server.files.open_output_stream(f"{path}/steps/train/files/k/000001-me/weights/model.bin") as stream:
        stream.write(b"half")
    with pytest.raises(TornFile, match="has 4 bytes, not the 100000 that were written"):
        ObjectStore(remote.place, tmp_path / "elsewhere").fetch("train", "k")


def test_workers_of_a_machine_download_once(
    remote: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(remote, "k", FILES)
    other = ObjectStore(remote.place, tmp_path / "elsewhere")
    downloads: list[str] = []
    download = objects.Remote.download

    def counted(remote: objects.Remote, name: str, path: Path) -> int:
        downloads.append(name)
        return download(remote, name, path)

    monkeypatch.setattr(objects.Remote, "download", counted)
    threads = [threading.Thread(target=other.fetch, args=("train", "k")) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(downloads) == len(FILES)


def test_the_storage_is_away_for_a_while(remote: ObjectStore, server: s3_server.Server) -> None:
    with remote.work("train", "k", "me") as out:
        assert out is not None
        (out / "result").write_text("1")
        pause = threading.Event()

        def away() -> None:
            with server.paused():
                pause.set()
                time.sleep(6)

        thread = threading.Thread(target=away)
        thread.start()
        pause.wait()
    thread.join()
    assert (remote.fetch("train", "k") / "result").read_text() == "1"


def test_the_storage_stays_away(server: s3_server.Server, remote: ObjectStore, tmp_path: Path) -> None:
    gone = ObjectStore(parse("s3://bucket/x?endpoint_override=http://127.0.0.1:9&region=us-east-1"), tmp_path, 0.5)
    for act in (
        lambda: gone.finished("train"),
        lambda: gone.write_text("a", "b"),
        lambda: gone.read_text("a"),
        lambda: gone.delete("a"),
    ):
        with pytest.raises(StorageTrouble, match=r"s3://bucket/x.*Could not connect") as caught:
            act()
        assert "\n" not in str(caught.value)
        assert "Request ID" not in str(caught.value)


def test_no_such_bucket(server: s3_server.Server, tmp_path: Path) -> None:
    store = open_store(server.address("nothing-here/x"), tmp_path)
    for check in (store.check_there, lambda: store.check_writable("grid")):
        with pytest.raises(StorageRefused, match="there is no bucket nothing-here"):
            check()
    with pytest.raises(StorageRefused, match="NO_SUCH_BUCKET"):
        store.write_text("a", "b")
    assert store.finished("train") == set()


def test_secrets_are_nowhere(remote: ObjectStore, server: s3_server.Server) -> None:
    finish(remote, "k", FILES)
    secret = s3_server.ENVIRONMENT["AWS_SECRET_ACCESS_KEY"].encode()
    contents = [remote.read_bytes(name) for name in server.names(remote.address)]
    contents += [path.read_bytes() for path in remote._here.rglob("*") if path.is_file()]
    assert not any(secret in content for content in [*contents, repr(remote).encode(), pickle.dumps(remote)])
