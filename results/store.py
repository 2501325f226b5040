"""The results folder: finished steps, and the tables that are read from it.

    <root>/steps/<kind>/<key>/            a finished step; shared by every grid under this root
    <root>/steps/<kind>/<key>.partial/    a step that is running or was interrupted
    <root>/<grid>/trials/<trial>.parquet  and likewise queries/, curves/, baselines/, runs/

A step becomes visible by one rename of its whole folder, so what is there is finished. There is no
other state: scanning the folder is how a sweep resumes.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def step_folder(root: Path, kind: str, key: str) -> Path:
    """Where the finished step is, or will be."""
    return root / "steps" / kind / key


def partial_folder(root: Path, kind: str, key: str) -> Path:
    """Where a step that is running or was interrupted keeps its files."""
    return root / "steps" / kind / (key + ".partial")


def lock_file(root: Path, kind: str, key: str) -> Path:
    """Held by the process that does the step."""
    return root / "steps" / kind / (key + ".lock")


def is_running(root: Path, kind: str, key: str) -> bool:
    """Whether some process holds the step's lock now."""
    try:
        with lock_file(root, kind, key).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def is_finished(root: Path, kind: str, key: str) -> bool:
    """Whether the step's folder is there whole."""
    return step_folder(root, kind, key).is_dir()


def finished_keys(root: Path, kind: str) -> set[str]:
    """Keys of all finished steps of a kind, by one scan."""
    folder = root / "steps" / kind
    if not folder.is_dir():
        return set()
    return {entry.name for entry in os.scandir(folder) if entry.is_dir() and "." not in entry.name}


@contextmanager
def step_work(root: Path, kind: str, key: str) -> Iterator[Path | None]:
    """The folder to do a step in; it becomes the finished step when the block ends without an error.

    Yields None where the step is finished already, or gets finished by another process while this one
    waits for it. Files left by an interrupted attempt are still in the folder, so training can resume.
    The lock is the operating system's and goes with the process, so a killed worker leaves none behind.
    """
    final = step_folder(root, kind, key)
    partial = partial_folder(root, kind, key)
    final.parent.mkdir(parents=True, exist_ok=True)
    with lock_file(root, kind, key).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if final.is_dir():
            Path(lock.name).unlink(missing_ok=True)
            yield None
            return
        partial.mkdir(exist_ok=True)
        yield partial
        sync(partial)
        partial.rename(final)
        _flush(final.parent)
        os.unlink(lock.name)


def sync(folder: Path) -> None:
    """Flush everything below the folder to disk, so that a rename never makes a torn step visible."""
    for path in folder.rglob("*"):
        if path.is_file() or path.is_dir():
            _flush(path)
    _flush(folder)


def _flush(path: Path) -> None:
    """Wait until a file's bytes, or a folder's entries, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then rename it there: whole or not at all, after a power loss too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        _flush(temporary)
        temporary.replace(path)
        _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """One JSON file, whole or not at all."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
    write_text(path, text + "\n")


def write_text(path: Path, text: str) -> None:
    """One text file in UTF-8, whole or not at all."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> Any:
    """What `write_json` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_rows(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    """One Parquet part. A row may leave columns out (null); a column that the schema lacks is an error."""
    unknown = {name for row in rows for name in row} - set(schema.names)
    if unknown:
        raise KeyError(f"columns {sorted(unknown)} are not in the schema of {path.parent.name}")
    table = pa.Table.from_pylist(rows, schema=schema)
    write_atomically(path, lambda temporary: pq.write_table(table, temporary))


def read_rows(folder: Path, schema: pa.Schema) -> pa.Table:
    """All parts in a folder as one table in file order; empty where there is none."""
    return read_parts(sorted(folder.glob("*.parquet")) if folder.is_dir() else [], schema)


def read_parts(parts: Sequence[Path], schema: pa.Schema) -> pa.Table:
    """Some parts as one table, in the order given."""
    tables = [pq.read_table(part, schema=schema) for part in parts]
    return pa.concat_tables(tables) if tables else schema.empty_table()


def remove(folder: Path) -> None:
    """Remove a folder that may not be there."""
    shutil.rmtree(folder, ignore_errors=True)
