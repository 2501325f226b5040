"""Copies of finished steps on this machine, of a results folder that is elsewhere.

<kind>/<key>/...      the files of a step
<kind>/<key>.json     their sizes, written last: with it there, the copy is whole
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from results import files


@dataclass(frozen=True)
class Cache:
    """A machine's copies, shared by its processes."""

    root: Path

    def folder(self, kind: str, key: str) -> Path:
        """Where the copy of a step is or would be."""
        return self.root / kind / key

    def sizes(self, kind: str, key: str) -> dict[str, int] | None:
        """Name -> bytes of a copy's files; None unless every file has the size that was recorded."""
        folder = self.folder(kind, key)
        try:
            sizes: dict[str, int] = files.read_json(_record(folder))
            whole = all((folder / name).stat().st_size == size for name, size in sizes.items())
        except (OSError, ValueError):
            return None
        return sizes if whole else None

    @contextmanager
    def changing(self, kind: str, key: str) -> Iterator[Path]:
        """A folder beside the copy to download to; one process of this machine at a time, the others wait."""
        folder = self.folder(kind, key)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder.with_name(f"{key}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # goes with the process
            yield folder.with_name(f"{key}.new")

    def install(self, new: Path, kind: str, key: str, sizes: dict[str, int]) -> None:
        """Make a whole folder the copy. Whoever calls this is `changing` it."""
        folder = self.folder(kind, key)
        _record(folder).unlink(missing_ok=True)
        if folder.exists():
            bad = folder.with_name(f"{key}.{os.getpid()}.bad")
            folder.rename(bad)
            files.remove(bad)
        new.rename(folder)
        files.write_json(_record(folder), sizes)

    def forget(self, kind: str, key: str) -> None:
        """Remove a copy that may not be there."""
        folder = self.folder(kind, key)
        _record(folder).unlink(missing_ok=True)
        files.remove(folder)


def _record(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")
