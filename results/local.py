"""A results folder on a file system, this machine's or a shared one."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from results import files
from results.errors import LostLease
from results.store import DROPPED, PARTIAL, STEPS, Store

FAILED = ".failed.json"


@dataclass(frozen=True, kw_only=True)
class LocalStore(Store):
    """See `Store`. A step becomes visible by one rename of its whole folder."""

    root: Path
    """Absolute."""

    @property
    def address(self) -> str:
        return str(self.root)

    @property
    def name(self) -> str:
        return self.root.name or str(self.root)

    def below(self, folder: str) -> "LocalStore":
        return LocalStore(root=self.root / folder)

    @property
    def is_shared(self) -> bool:
        return True

    def shown(self, name: str) -> str:
        path = self.root / name
        return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)

    def local_folder(self, name: str) -> Path:
        return self.root / name

    def check_there(self) -> None:
        """A folder that is not there is empty."""

    def check_writable(self, folder: str) -> None:
        for path in (self.root, self.root / folder):
            if path == self.root or path.exists():
                path.mkdir(parents=True, exist_ok=True)
                with TemporaryFile(dir=path):
                    pass

    # ------------------------------------------------------------ steps

    def _kind(self, kind: str) -> Path:
        return self.root / STEPS / kind

    def _final(self, kind: str, key: str) -> Path:
        return self._kind(kind) / key

    def workplace(self, kind: str, key: str, owner: str) -> Path:
        return self._kind(kind) / f"{key}.{owner}{PARTIAL}"

    def _scan(self, kind: str) -> list[str]:
        """Names in a kind's folder."""
        with suppress(FileNotFoundError), os.scandir(self._kind(kind)) as entries:
            return [entry.name for entry in entries]
        return []

    def finished(self, kind: str) -> set[str]:
        return {name for name in self._scan(kind) if "." not in name}

    def is_finished(self, kind: str, key: str) -> bool:
        return self._final(kind, key).is_dir()

    def fetch(self, kind: str, key: str) -> Path:
        if not self.is_finished(kind, key):
            raise FileNotFoundError(f"{self._final(kind, key)}: no such finished step")
        return self._final(kind, key)

    @contextmanager
    def work(self, kind: str, key: str, owner: str) -> Iterator[Path | None]:
        final = self._final(kind, key)
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.is_dir():
            yield None
            return
        folder = self._take(kind, key, owner)
        # Held open, so that no other folder is given its number on disk.
        itself = os.open(folder, os.O_RDONLY)
        try:
            yield folder
            self._commit(folder, itself, final)
        except BaseException:
            self._rest(folder, itself, kind, key)
            raise
        finally:
            os.close(itself)

    def _take(self, kind: str, key: str, owner: str) -> Path:
        """Make the step's folder the owner's: the one that is there (the newest, should there be several), or new."""
        mine = self.workplace(kind, key, owner)
        begun = sorted(self._begun(kind, key), key=_modified)
        if not begun:
            mine.mkdir()
        elif begun[-1] != mine:
            begun[-1].rename(mine)
        for older in begun[:-1]:
            files.remove(older)
        return mine

    def _begun(self, kind: str, key: str) -> list[Path]:
        """Partial folders of a step: with its owner's name, or without; usually one."""
        at_rest = self._kind(kind) / (key + PARTIAL)
        if at_rest.is_dir():
            return [at_rest]
        names = (name for name in self._scan(kind) if name.startswith(key + ".") and name.endswith(PARTIAL))
        return [self._kind(kind) / name for name in names]

    def _rest(self, folder: Path, itself: int, kind: str, key: str) -> None:
        """After an error: the folder without its owner, unless another has it by now."""
        with suppress(OSError):
            if os.path.samestat(folder.stat(), os.fstat(itself)):
                folder.rename(self._kind(kind) / (key + PARTIAL))

    def _commit(self, folder: Path, itself: int, final: Path) -> None:
        """Make the step visible, if the folder is still the one that was worked in.

        An attempt that was taken over may have made a folder of the old name again, by writing a file into it, so
        the name does not say enough. Nobody else knows the name that it has while its identity is looked at.
        """
        leaving = folder.with_name(folder.name.removesuffix(PARTIAL) + "-done" + PARTIAL)
        try:
            files.sync(folder)
            folder.rename(leaving)
            if not os.path.samestat(leaving.stat(), os.fstat(itself)):
                files.remove(leaving)
                raise LostLease(f"{final}: was taken over")
            leaving.rename(final)
        except OSError as error:
            if isinstance(error, FileNotFoundError) or final.is_dir():
                files.remove(leaving)
                raise LostLease(f"{final}: was taken over") from None
            raise
        files.flush(final.parent)

    def partial(self, kind: str) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        for name in self._scan(kind):
            if name.endswith(PARTIAL):
                key, _, owner = name.removesuffix(PARTIAL).partition(".")
                found[key] = owner or None
        return found

    def peek(self, kind: str, key: str, name: str) -> bytes | None:
        final = self._final(kind, key)
        for folder in [final] if final.is_dir() else self._begun(kind, key):
            with suppress(FileNotFoundError):
                return (folder / name).read_bytes()
        return None

    def put(self, kind: str, key: str, name: str, content: bytes) -> None:
        *_, folder = sorted(self._begun(kind, key), key=_modified) or [self._kind(kind) / (key + PARTIAL)]
        files.write_atomically(folder / name, lambda temporary: temporary.write_bytes(content))

    def mark_failed(self, kind: str, key: str, record: dict[str, Any]) -> None:
        files.write_json(self._kind(kind) / (key + FAILED), record)

    def failed(self, kind: str) -> dict[str, dict[str, Any]]:
        keys = [name.removesuffix(FAILED) for name in self._scan(kind) if name.endswith(FAILED)]
        return {key: _record(self._kind(kind) / (key + FAILED)) for key in keys}

    def failure(self, kind: str, key: str) -> dict[str, Any] | None:
        path = self._kind(kind) / (key + FAILED)
        return _record(path) if path.exists() else None

    def forgive(self, kind: str, key: str, *, restart: bool) -> None:
        if restart:
            for folder in self._begun(kind, key):
                files.remove(folder)
        (self._kind(kind) / (key + FAILED)).unlink(missing_ok=True)

    def drop(self, kind: str, key: str, names: Sequence[str]) -> None:
        folder = self.fetch(kind, key)
        note = folder / DROPPED
        before = files.read_json(note) if note.exists() else []
        files.write_json(note, sorted({*before, *names}))
        for name in names:
            path = folder / name
            if path.is_dir():
                files.remove(path)
            else:
                path.unlink(missing_ok=True)

    def reopen(self, kind: str, key: str) -> None:
        final = self._final(kind, key)
        leaving = final.with_name(f".{key}.reopened")  # to be finished and half removed is nothing that a step may be
        files.remove(leaving)
        with suppress(FileNotFoundError):
            final.rename(leaving)
        files.remove(leaving)

    # ------------------------------------------------------------ files by name

    def read_bytes(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def write_bytes(self, name: str, content: bytes) -> None:
        files.write_atomically(self.root / name, lambda temporary: temporary.write_bytes(content))

    def create(self, name: str) -> None:
        path = self.root / name
        try:
            path.touch()
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    def put_file(self, name: str, path: Path) -> None:
        files.write_atomically(self.root / name, lambda temporary: temporary.write_bytes(path.read_bytes()))

    def listing(self, folder: str) -> list[str]:
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(self.root / folder) as entries:
            return sorted(entry.name for entry in entries)
        return []

    def delete(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)


def _modified(folder: Path) -> float:
    """When a folder was last written to; long ago where it is gone."""
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _record(path: Path) -> dict[str, Any]:
    try:
        found = files.read_json(path)
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
