"""Checkpoints of a training: each is there whole or does not count, and the one before is kept beside the newest.

    <folder>/step-<n>/state/        what DeepSpeed saves, a few files a rank
    <folder>/step-<n>/whole.json    written when all of that is on disk: progress, layout, size and digest of each file

A checkpoint with a torn file, or one that does not load, is dropped with a line in the log, and the one before it or
the beginning takes its place; so is one that was made under another layout (workers, ZeRO stage, precision, offload).
"""

import hashlib
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import xxhash

from results.files import WHOLE, read_json, sync, write_json
from workers import engine as ds
from workers.errors import out_of_memory, storage_trouble
from workers.settings import ProcessGroup

MARKER, STATE = WHOLE, "state"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a training has come."""

    step: int = 0
    """Optimizer steps done."""
    seconds: float = 0.0
    """Of all attempts together."""
    loss: float = math.nan
    """Of the last step."""


def save(engine: Any, folder: Path, group: ProcessGroup, layout: ds.Layout, progress: Progress) -> None:
    """Save the state of all ranks, which call this together. At most two checkpoints are there at any time."""
    checkpoint = folder / f"step-{progress.step}"
    if group.rank == 0:
        for older in _marked(folder)[1:]:
            shutil.rmtree(older)
    try:
        # Every rank saves to the same path, or a shard would be lost.
        engine.save_checkpoint(str(checkpoint), tag=STATE, save_latest=False)
        ds.wait_for_all()
        files = _files(checkpoint / STATE, group)
        if group.rank == 0:
            sync(checkpoint)
            write_json(checkpoint / MARKER, {**asdict(progress), "layout": layout, "files": files})
    except Exception:
        if group.rank == 0:
            shutil.rmtree(checkpoint, ignore_errors=True)  # a full disk is less full without it
        raise
    ds.wait_for_all()


def restore(make: Callable[[], Any], folder: Path, group: ProcessGroup, layout: ds.Layout) -> tuple[Any, Progress]:
    """An engine that `make` has made, in the state of the newest checkpoint that serves, or as it was made.

    All ranks call this together and get the same progress. Raises what comes of too little memory or of storage out of
    reach, because that says nothing against the checkpoint.
    """
    while True:
        engine = make()
        checkpoint = _newest_whole(folder, layout, group)
        if checkpoint is None:
            return engine, Progress()
        trouble = _load(engine, checkpoint)
        if ds.all_agree(trouble is None):
            found = read_json(checkpoint / MARKER)
            return engine, Progress(**{name: found[name] for name in Progress.__dataclass_fields__})
        engine.destroy()  # it may have been changed half
        _drop(checkpoint, f"does not load: {trouble or 'another rank says why'}", group)


def remove(folder: Path) -> None:
    """Remove all checkpoints: the weights are out."""
    for checkpoint in folder.glob("step-*"):
        shutil.rmtree(checkpoint)


def _load(engine: Any, checkpoint: Path) -> str | None:
    """Load into the engine; what is wrong with the checkpoint, on one line, where that does not work."""
    try:
        path, _ = engine.load_checkpoint(str(checkpoint), tag=STATE)
    except Exception as error:
        if out_of_memory(error) or storage_trouble(error):
            raise
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return None if path is not None else "DeepSpeed does not find it"


def _newest_whole(folder: Path, layout: ds.Layout, group: ProcessGroup) -> Path | None:
    """The newest checkpoint that is whole and was made under `layout`; what is torn, or newer than it, is removed."""
    if group.rank == 0:
        marked = _marked(folder)
        for left in folder.glob("step-*"):
            if left not in marked:
                shutil.rmtree(left)  # whoever wrote it was ended in the middle
    while True:
        step = ds.told_by_first(max((_step(path) for path in _marked(folder)), default=-1) if group.rank == 0 else 0)
        if step < 0:
            return None
        checkpoint = folder / f"step-{step}"
        found = read_json(checkpoint / MARKER)
        if found["layout"] != layout:
            _drop(checkpoint, f"is of {_words(found['layout'], layout)}, now {_words(layout, found['layout'])}", group)
        elif _files(checkpoint / STATE, group) != found["files"]:
            _drop(checkpoint, "is torn", group)
        else:
            return checkpoint


def _marked(folder: Path) -> list[Path]:
    """Checkpoints whose marker can be read, newest first."""
    there = []
    for marker in folder.glob(f"step-*/{MARKER}"):
        try:
            found = read_json(marker)
        except ValueError:  # torn
            continue
        if isinstance(found, dict) and {"layout", "files", *Progress.__dataclass_fields__} <= found.keys():
            there.append(marker.parent)
    return sorted(there, key=_step, reverse=True)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def _files(folder: Path, group: ProcessGroup) -> dict[str, list[int]]:
    """Name -> [bytes, XXH3 digest] of each file, worked out by all ranks together, each reading its share."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    digests = torch.zeros(len(paths), dtype=torch.int64)
    for number in range(group.rank, len(paths), group.size):
        with paths[number].open("rb") as file:
            digest = hashlib.file_digest(file, xxhash.xxh3_64).digest()
        digests[number] = int.from_bytes(digest, "big", signed=True)
    sums = ds.sum_over_group(digests).tolist()
    return {str(path.relative_to(folder)): [path.stat().st_size, each] for path, each in zip(paths, sums, strict=True)}


def _drop(checkpoint: Path, why: str, group: ProcessGroup) -> None:
    """Remove a checkpoint that does not serve, and say so in the log."""
    ds.wait_for_all()  # nobody is reading it any more
    if group.rank == 0:
        print(f"the checkpoint {checkpoint.name} {why}; it is dropped", flush=True)
        shutil.rmtree(checkpoint)
    ds.wait_for_all()


def _words(layout: ds.Layout, other: ds.Layout) -> str:
    """What of a layout another one has not: `zero_stage 1, workers 2`."""
    return ", ".join(f"{name} {value}" for name, value in sorted(layout.items()) if other.get(name) != value)
