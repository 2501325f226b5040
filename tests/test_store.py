"""A results folder, on a file system and in an object store: the same promises."""

import json
import os
import pickle
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pytest
from store_steps import FILES, finish

from results.errors import BadAddress, LostLease, TornFile
from results.leases import Leases
from results.local import LocalStore
from results.objects import ObjectStore
from results.opening import open_store
from results.remote import parse
from results.store import DROPPED, Store
from results.tables import read_rows, write_rows

ROOT = Path(__file__).parent.parent


@pytest.fixture(params=["files", "objects"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "files":
        return open_store(tmp_path / "results")
    return open_store(request.getfixturevalue("server").folder(), tmp_path / "scratch")


def _elsewhere(store: Store, tmp_path: Path) -> Store:
    """The same results folder on another machine: nothing is shared but the storage."""
    return ObjectStore(store.place, tmp_path / "elsewhere") if isinstance(store, ObjectStore) else store


def test_a_step_is_there_whole_or_not_at_all(store: Store, tmp_path: Path) -> None:
    with store.work("train", "k", "me") as out:
        assert out is not None
        assert out == store.workplace("train", "k", "me")
        (out / "half").write_text("1")
        assert not store.is_finished("train", "k")
        assert store.finished("train") == set()
        assert store.partial("train") == {"k": "me"}
        with pytest.raises(FileNotFoundError):
            store.fetch("train", "k")
    assert store.is_finished("train", "k")
    assert store.finished("train") == {"k"}
    assert store.partial("train") == {}
    assert [path.name for path in store.fetch("train", "k").iterdir()] == ["half"]
    finish(store, "other", FILES)
    for one in (store, _elsewhere(store, tmp_path)):
        folder = one.fetch("train", "other")
        assert {name: (folder / name).read_bytes() for name in FILES} == FILES
        assert one.peek("train", "other", "metrics.json") == b"{}"
        assert one.peek("train", "other", "none") is None
    with store.work("train", "k", "another") as out:
        assert out is None


def _break(store: Store, key: str, owner: str, name: str = "tried") -> None:
    """An attempt that writes its owner to the end of a file and fails."""

    def attempt() -> None:
        with store.work("train", key, owner) as out:
            assert out is not None
            with (out / name).open("a") as file:
                file.write(owner)
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        attempt()


def test_what_an_attempt_left_is_there_for_the_next(store: Store, tmp_path: Path) -> None:
    for place, owner in ((store, "a"), (_elsewhere(store, tmp_path), "b"), (store, "c")):
        _break(place, "k", owner, "log.txt")
        assert store.partial("train") == {"k": None}
        assert store.peek("train", "k", "log.txt") == b"abc"[: "abc".index(owner) + 1]
    store.put("train", "k", "attempts.json", b"[1]")
    assert store.peek("train", "k", "attempts.json") == b"[1]"
    with store.work("train", "k", "d") as out:
        assert out is not None
        assert (out / "log.txt").read_text() == "abc"
        assert (out / "attempts.json").read_bytes() == b"[1]"
    assert store.peek("train", "k", "attempts.json") == b"[1]"


def _zombie(store: Store, during: Callable[[], None]) -> None:
    """An attempt that goes on as if nothing had happened after `during`, in which it is taken over."""
    with store.work("train", "k", "slow") as out:
        assert out is not None
        (out / "whose").write_text("slow")
        during()
        out.mkdir(exist_ok=True)
        (out / "whose").write_text("slow, but at last")


def test_an_attempt_that_was_taken_over_finishes_nothing(store: Store, tmp_path: Path) -> None:
    other = _elsewhere(store, tmp_path)
    with other.work("train", "k2", "unconcerned"), pytest.raises(LostLease):
        _zombie(store, lambda: finish(other, "k", {"whose": b"quick"}, "quick"))
    for one in (store, other):
        assert (one.fetch("train", "k") / "whose").read_text() == "quick"
        assert one.finished("train") == {"k", "k2"}


def test_an_attempt_that_was_taken_over_leaves_the_later_one_alone(store: Store, tmp_path: Path) -> None:
    with ExitStack() as stack:

        def take_over() -> None:
            out = stack.enter_context(_elsewhere(store, tmp_path).work("train", "k", "quick"))
            assert out is not None
            assert store.partial("train") == {"k": "quick"}
            (out / "whose").write_text("quick")

        with pytest.raises(LostLease):
            _zombie(store, take_over)
        assert not store.is_finished("train", "k")
        assert store.partial("train")["k"] == "quick"
    assert (store.fetch("train", "k") / "whose").read_text() == "quick"


def test_failed_for_good_and_forgiven(store: Store) -> None:
    _break(store, "k", "me")
    store.mark_failed("train", "k", {"kind": "diverged"})
    assert store.failed("train") == {"k": {"kind": "diverged"}}
    assert store.finished("train") == set()
    store.forgive("train", "k", restart=False)
    assert store.failed("train") == {}
    with store.work("train", "k", "again") as out:
        assert out is not None
        assert (out / "tried").exists()
    for restart in (True, False):  # what is finished stays
        store.forgive("train", "k", restart=restart)
        assert (store.fetch("train", "k") / "tried").exists()


def test_restarted_from_nothing(store: Store) -> None:
    _break(store, "k", "me")
    store.forgive("train", "k", restart=True)
    assert store.partial("train") == {}
    with store.work("train", "k", "again") as out:
        assert out is not None
        assert not list(out.iterdir())


def test_parts_are_dropped_with_a_note(store: Store, tmp_path: Path) -> None:
    finish(store, "k", FILES)
    other = _elsewhere(store, tmp_path)
    store.drop("train", "k", ["weights"])
    store.drop("train", "k", ["empty", "never-there"])
    assert store.is_finished("train", "k")
    for one in (store, other):
        folder = one.fetch("train", "k")
        assert sorted(path.name for path in folder.iterdir() if path.is_file()) == [DROPPED, "metrics.json"]
        assert not list(folder.glob("weights/*"))
        assert json.loads(one.peek("train", "k", DROPPED) or b"") == ["empty", "never-there", "weights"]


def test_a_reopened_step_is_done_again_from_nothing(store: Store, tmp_path: Path) -> None:
    finish(store, "k", FILES)
    other = _elsewhere(store, tmp_path)
    other.fetch("train", "k")
    store.reopen("train", "k")
    store.reopen("train", "never-there")
    assert not store.is_finished("train", "k")
    assert store.finished("train") == set()
    assert store.partial("train") == {}
    with other.work("train", "k", "again") as out:
        assert out is not None
        assert not list(out.iterdir())
        (out / "metrics.json").write_text("{}")
    assert [path.name for path in store.fetch("train", "k").iterdir()] == ["metrics.json"]


def test_what_was_dropped_and_done_again_is_there_again_on_every_machine(store: Store, tmp_path: Path) -> None:
    finish(store, "k", FILES)
    other = _elsewhere(store, tmp_path)
    store.drop("train", "k", ["weights"])
    assert not list(other.fetch("train", "k").glob("weights/*"))
    store.reopen("train", "k")
    finish(store, "k", FILES)
    assert list(other.fetch("train", "k").glob("weights/*"))


def test_files_by_name(store: Store, tmp_path: Path) -> None:
    assert store.listing("grid") == store.listing("grid/trials") == []
    store.check_writable("grid")
    store.write_text("grid/grid.yaml", "name: ä\n")
    assert store.read_text("grid/grid.yaml") == "name: ä\n"
    table = pa.table({"a": [1, None], "b": ["x", "y"]})
    store.write_table("grid/trials/t.parquet", table)
    assert store.read_table("grid/trials/t.parquet").equals(table)
    assert store.read_table("grid/trials/t.parquet", columns=["b"]).column_names == ["b"]
    (tmp_path / "file").write_bytes(b"12")
    store.put_file("grid/runs/r.trec", tmp_path / "file")
    store.create("leases/train/k.me.1")
    assert store.read_bytes("grid/runs/r.trec") == b"12"
    assert store.listing("grid") == ["grid.yaml", "runs", "trials"]
    assert store.listing("leases/train") == ["k.me.1"]
    for _ in range(2):
        store.delete("grid/runs/r.trec")
    assert store.listing("grid/runs") == []
    for name in ("grid/runs/r.trec", "none/none"):
        with pytest.raises(FileNotFoundError):
            store.read_bytes(name)
        with pytest.raises(FileNotFoundError):
            store.read_table(name)
    for torn in (b"", b"PAR1", b"PAR1" + bytes(1000) + b"PAR1", b"x" * 5000):
        store.write_bytes("grid/trials/t.parquet", torn)
        with pytest.raises(TornFile, match=r"grid/trials/t\.parquet") as caught:
            store.read_table("grid/trials/t.parquet")
        assert "\n" not in str(caught.value)


def test_rows_have_the_columns_of_their_schema(store: Store) -> None:
    schema = pa.schema([("a", pa.int64()), ("b", pa.string())])
    write_rows(store, "g/t/1.parquet", [{"a": 1}, {"b": "x"}], schema)
    store.write_table("g/t/2.parquet", pa.table({"c": [1.0], "a": pa.array([7], pa.int32())}))
    assert read_rows(store, "g/t", schema).to_pylist() == [
        {"a": 1, "b": None},
        {"a": None, "b": "x"},
        {"a": 7, "b": None},
    ]
    assert read_rows(store, "g/none", schema).num_rows == 0
    with pytest.raises(KeyError, match="'c'"):
        write_rows(store, "g/t/3.parquet", [{"c": 1}], schema)
    store.write_table("g/t/3.parquet", pa.table({"a": ["no number"]}))
    with pytest.raises(TornFile, match="'a' is no int64"):
        read_rows(store, "g/t", schema)


def test_it_can_be_sent_and_opened_again(store: Store) -> None:
    finish(store, "k", FILES)
    assert pickle.loads(pickle.dumps(store)).finished("train") == {"k"}
    assert open_store(store.address).finished("train") == {"k"}
    assert isinstance(open_store(store.address), type(store))


def test_leases_work_on_it(store: Store, tmp_path: Path) -> None:
    other = _elsewhere(store, tmp_path)
    with Leases(store) as mine, Leases(other) as theirs:
        assert mine.take("train", "k")
        assert not theirs.take("train", "k")
        assert theirs.take("train", "k2")
        assert mine.holders("train") == {"k": mine.driver.id, "k2": theirs.driver.id}
        mine.release("train", "k")
        assert theirs.take("train", "k")
    assert store.listing("drivers") == store.listing("leases/train") == []


# ---------------------------------------------------------------- a file system


def test_ten_thousand_steps_are_found_by_one_scan_a_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(root=tmp_path)
    (tmp_path / "steps" / "search").mkdir(parents=True)
    for n in range(10_000):
        (tmp_path / "steps" / "search" / f"{n:064x}").mkdir()
    scans, calls = os.scandir, []
    monkeypatch.setattr(os, "scandir", lambda path: (calls.append(path), scans(path))[1])
    monkeypatch.setattr(os, "stat", lambda *_, **__: pytest.fail("a step was looked at by itself"))
    assert len(store.finished("search")) == 10_000
    assert len(calls) == 1


def test_a_file_is_no_results_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        open_store(tmp_path / "file").check_writable("grid")


# ---------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("s3://AKIAEXAMPLE:hunter2@bucket/x", "must not hold credentials"),
        ("s3://bucket/x?access_key=AKIAEXAMPLE&secret_key=hunter2", "must not hold credentials"),
        ("s3://bucket/x?endpoint_override=http://AKIAEXAMPLE:hunter2@host", "must not hold credentials"),
        ("s3://bucket/x?session_token=hunter2", "must not hold credentials"),
        ("s3://bucket/x?colour=red", "colour: no such option"),
        ("s3://bucket/x?hunter2", "not an address"),
        ("s3:///x", "not an address"),
        ("s3:/bucket/x", "not an address"),
        ("s3://bucket/a//b", "not an address"),
        ("s3://bucket/../b", "not an address"),
        ("ftp://bucket/x", "ftp: no such kind"),
    ],
)
def test_bad_addresses_are_one_line_without_their_secrets(address: str, said: str) -> None:
    with pytest.raises(BadAddress, match=said) as caught:
        open_store(address)
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_addresses_of_folders(tmp_path: Path) -> None:
    assert open_store(f"file://{tmp_path}/a%20b") == LocalStore(root=tmp_path / "a b")
    assert open_store("C/x") == LocalStore(root=Path.cwd() / "C/x")
    for text in ("s3://bucket", "s3://bucket/a/b", "s3://bucket/a?endpoint_override=http://127.0.0.1:1&region=x"):
        assert parse(text).text() == text
    assert open_store("s3://bucket/a?region=x").shown("g/report") == "s3://bucket/a/g/report?region=x"
