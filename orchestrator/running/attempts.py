"""What is kept in a step's folder about how it went: every attempt, what it printed, the versions it ran with."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from platform import python_version
from typing import Any

from orchestrator.running import failures
from results import files
from results.store import Store

ATTEMPTS, ERROR, LOG, PROVENANCE = "attempts.json", "error.txt", "log.txt", "provenance.json"

PACKAGES = ("gridlaw", "torch", "ray", "transformers", "deepspeed", "tokenizers", "datasets", "numpy", "pyarrow")
"""Packages whose versions stand in every row."""


TAIL_LINES, TAIL_BYTES = 20, 8192
"""Of a log, kept in the record of a failed attempt."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One try at a step. Times are ISO 8601 in UTC; a try whose process was killed has no end."""

    started: str
    finished: str | None = None
    status: str = "running"
    """running | done | failed"""
    kind: str | None = None
    """Of the failure, as in `failures`."""
    error: str | None = None
    node: str | None = None
    """The machine's name."""
    pid: int | None = None
    """Of the process there."""
    placement: dict[str, Any] = field(default_factory=dict)
    """How a training was cut to fit: workers, zero_stage, offload, micro_batch."""
    log: str | None = None
    """The last lines that a failed one printed."""


def read(store: Store, kind: str, key: str) -> list[Attempt]:
    """The attempts recorded of a step, oldest first; none where nothing (whole) was recorded."""
    return _parsed(store.peek(kind, key, ATTEMPTS))


def _read(folder: Path) -> list[Attempt]:
    try:
        return _parsed((folder / ATTEMPTS).read_bytes())
    except FileNotFoundError:
        return []


def _parsed(content: bytes | None) -> list[Attempt]:
    try:
        return [Attempt(**entry) for entry in json.loads(content or b"[]")]
    except ValueError:  # not JSON: the machine went down while it was written
        return []


def begin(folder: Path, attempt: Attempt) -> None:
    """Record a new attempt. One that is still `running` was killed, or this one would not have the step."""
    settled = [_killed(one) if one.status == "running" else one for one in _read(folder)]
    _write(folder, [*settled, attempt])
    (folder / ERROR).unlink(missing_ok=True)


def end(folder: Path) -> None:
    """Record that the newest attempt succeeded."""
    *earlier, last = _read(folder)
    _write(folder, [*earlier, replace(last, finished=now(), status="done")])


def fail(folder: Path, error: BaseException) -> None:
    """Record that the newest attempt failed, with the traceback beside it."""
    *earlier, last = _read(folder)
    kind, line = failures.classify(error), failures.one_line(error)
    log = tail(folder / LOG)
    _write(folder, [*earlier, replace(last, finished=now(), status="failed", kind=kind, error=line, log=log)])
    (folder / ERROR).write_text(failures.trace(error), encoding="utf-8")


def tail(log: Path) -> str | None:
    """The last lines of a log; None where there is none."""
    try:
        content = log.read_bytes()[-TAIL_BYTES:]
    except OSError:
        return None
    return _last_lines(content)


def _last_lines(content: bytes) -> str | None:
    lines = content.decode("utf-8", errors="replace").splitlines()[-TAIL_LINES:]
    return "\n".join(lines) or None


def note_death(store: Store, kind: str, key: str, failure: str, why: str) -> None:
    """Record a failure that the step's own process could not, because it is gone or never came to begin.

    Nothing is recorded where another process is at the step now or has finished it.
    """
    if store.is_finished(kind, key):
        return
    *earlier, last = read(store, kind, key) or [Attempt(started=now())]
    if last.status == "running":
        log = _last_lines((store.peek(kind, key, LOG) or b"")[-TAIL_BYTES:])
        last = replace(last, status="failed", kind=failure, finished=now(), error=why, log=log)
        store.put(kind, key, ATTEMPTS, _text([*earlier, last]).encode())


def _killed(attempt: Attempt) -> Attempt:
    return replace(attempt, status="failed", kind=failures.WORKER_DIED, error="the process was killed")


def _write(folder: Path, attempts: list[Attempt]) -> None:
    files.write_text(folder / ATTEMPTS, _text(attempts))


def _text(attempts: list[Attempt]) -> str:
    return files.as_json([asdict(one) for one in attempts])


def now() -> str:
    """The time of an attempt's begin or end."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on, as installed here."""
    found = {"python": python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def write_provenance(folder: Path, git_commit: str | None) -> None:
    """Record what the step ran with."""
    files.write_json(folder / PROVENANCE, {"versions": versions(), "git_commit": git_commit})


@contextmanager
def captured(log: Path) -> Iterator[None]:
    """Append everything that this process and its children print to a file, below Python's own streams."""
    kept = os.dup(1), os.dup(2)
    try:
        with log.open("ab") as file:
            _point(file.fileno(), file.fileno())
            yield
    finally:
        _point(*kept)
        for descriptor in kept:
            os.close(descriptor)


def _point(out: int, err: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(out, 1)
    os.dup2(err, 2)
