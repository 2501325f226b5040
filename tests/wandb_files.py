"""Reads what wandb writes offline: records in LevelDB's log format, in a file that begins with seven bytes of W&B's."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from struct import unpack_from
from typing import Any

from wandb.proto import wandb_internal_pb2

BLOCK = 32768
HEADER, FIRST_HEADER = 7, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(path: Path) -> Iterator[wandb_internal_pb2.Record]:
    """All records of a `run-<id>.wandb` file, in order."""
    content = path.read_bytes()
    assert content.startswith(b":W&B")
    at, parts = FIRST_HEADER, b""
    while at + HEADER <= len(content):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        _crc, length, kind = unpack_from("<IHB", content, at)
        parts += content[at + HEADER : at + HEADER + length]
        at += HEADER + length
        assert kind in (FULL, FIRST, MIDDLE, LAST)
        if kind in (FULL, LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


@dataclass
class OfflineRun:
    """What a run's folder says."""

    id: str = ""
    group: str = ""
    job_type: str = ""
    name: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    exit_code: int | None = None


def _merge(into: dict[str, Any], items: Any) -> dict[str, Any]:
    """Set keys that may name a place in nested mappings."""
    for item in items:
        *outer, last = item.nested_key or [item.key]
        place = into
        for key in outer:
            place = place.setdefault(key, {})
        place[last] = json.loads(item.value_json)
    return into


def read(folder: Path) -> OfflineRun:
    """Read a run's folder."""
    found = OfflineRun()
    for record in records(next(folder.glob("*.wandb"))):
        match record.WhichOneof("record_type"):
            case "run":
                run = record.run
                found.id, found.name, found.tags = run.run_id, run.display_name, list(run.tags)
                found.group, found.job_type = run.run_group, run.job_type
                _merge(found.config, run.config.update)
            case "config":
                _merge(found.config, record.config.update)
            case "history":
                found.history.append(_merge({}, record.history.item))
            case "summary":
                _merge(found.summary, record.summary.update)
            case "files":
                found.files += [entry.path for entry in record.files.files]
            case "exit":
                found.exit_code = record.exit.exit_code
    return found


def table(folder: Path, logged: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a table from what the history or the summary says of it."""
    assert logged["_type"] == "table-file"
    content = json.loads((folder / "files" / logged["path"]).read_text())
    return [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]
