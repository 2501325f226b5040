"""While a step is worked on in a folder of this machine, what a next attempt on another machine would need is kept.

Kept are the small files at the top of the folder, and of the sub-folders with a file `WHOLE` in them (checkpoints) the
newest. A machine that is lost costs what was done since.
"""

import os
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from results.errors import LostLease
from results.files import WHOLE
from results.remote import Remote

KEEP_SECONDS = 10.0
"""Between two looks at the folder."""
SMALL = 4 * 2**20
"""Bytes; larger files at the top are results in the making, and wait for the step's end."""

Kept = dict[str, tuple[str, int]]
"""Name in the step's folder -> name of the object below the step's own, and its bytes."""


@dataclass(kw_only=True)
class Keeper:
    """Uploads from a folder, in a thread while it is entered. `write` makes what is kept known, whole or not at all."""

    remote: Remote
    folder: Path
    base: str
    """Of the step's objects."""
    attempt: str
    write: Callable[[Kept], None]
    kept: Kept = field(default_factory=dict)
    _states: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Name -> bytes and time of change of what was uploaded."""
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Keeper":
        self._thread = threading.Thread(target=self._run, name="keeping", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(KEEP_SECONDS):
            # OSError: the storage is away, or the folder changed under the hand; the next look is soon.
            with suppress(OSError):
                try:
                    self.keep()
                except LostLease:
                    return

    def adopt(self) -> None:
        """What is kept already is what is in the folder, where that has the same size."""
        for name, (_, size) in self.kept.items():
            with suppress(FileNotFoundError):
                if (state := _state(self.folder / name))[0] == size:
                    self._states[name] = state

    def keep(self) -> None:
        """Upload what is new: the newest checkpoint first, because a log may be cut to it and cannot be added to."""
        before = dict(self.kept)
        checkpoint = self._newest_whole()
        found = self._upload_whole(checkpoint) if checkpoint else {}
        if not found:  # the one that is kept, if it is still the newest or went while it was looked at
            found = {name: place for name, place in before.items() if "/" in name}
        for path in sorted(self.folder.iterdir()):
            if path.is_file() and path.name[0] != ".":
                state = _state(path)
                if state[0] <= SMALL:
                    found[path.name] = self._upload(path, path.name, state)
        if found != before:
            self.write(found)
            self.kept = found
        for name, (place, _) in before.items():
            if name not in found and place.startswith(self.attempt):
                self.remote.delete(f"{self.base}/{place}")

    def _newest_whole(self) -> Path | None:
        marked = [(marker.stat().st_mtime_ns, marker.parent) for marker in self.folder.glob(f"*/{WHOLE}")]
        return max(marked)[1] if marked else None

    def _upload_whole(self, checkpoint: Path) -> Kept:
        """Upload a checkpoint from hard links to its files, which stay when it is removed; nothing where it is kept."""
        mark = f"{checkpoint.name}/{WHOLE}"
        if mark in self.kept and self._states.get(mark) == _state(checkpoint / WHOLE):
            return {}
        staging = self.folder.with_name(f"{self.folder.name}.staging")
        shutil.rmtree(staging, ignore_errors=True)
        try:
            shutil.copytree(checkpoint, staging, copy_function=os.link)
            if not (staging / WHOLE).exists():
                return {}
            paths = [path for path in sorted(staging.rglob("*")) if path.is_file()]
            return {
                name: self._upload(path, name, _state(path))
                for path in paths
                for name in [f"{checkpoint.name}/{path.relative_to(staging)}"]
            }
        except (FileNotFoundError, shutil.Error):
            return {}
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _upload(self, path: Path, name: str, state: tuple[int, int]) -> tuple[str, int]:
        """Upload a file unless it is the one that was, and say where it is now."""
        if self._states.get(name) != state or name not in self.kept:
            place = f"{self.attempt}/{name}"
            size = self.remote.upload(path, f"{self.base}/{place}")
            self._states[name] = state
            return place, size
        return self.kept[name]

    def upload_all(self) -> dict[str, int]:
        """Everything in the folder, as the files of the finished step: name -> bytes."""
        sizes: dict[str, int] = {}
        for path in sorted(self.folder.rglob("*")):
            name = str(path.relative_to(self.folder))
            if path.is_file():
                place = f"{self.attempt}/{name}"
                sizes[name] = path.stat().st_size
                if self._states.get(name) != _state(path) or self.kept.get(name, ("",))[0] != place:
                    sizes[name] = self.remote.upload(path, f"{self.base}/{place}")
        return sizes


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns
