"""A results folder in an object store, where nothing can be renamed: what is whole is said by an object written last.

    steps/<kind>/files/<key>/<attempt>/...       files of an attempt, in the making or finished
    steps/<kind>/begun/<key>/<attempt>.json      what is kept of an attempt that has not finished the step
    steps/<kind>/done/<key>/<attempt>.json       the step is finished: names and sizes of its files
    steps/<kind>/failed/<key>.json               it has failed for good

An attempt is `<number>-<owner>`, its number one higher than that of any before; without an owner it is at rest. The
files of one are deleted only when a later one has finished, so of several `done` the latest is always whole.
Steps are worked on, and fetched to, in a scratch folder of the machine.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from results import files
from results.caching import Cache
from results.errors import LostLease, TornFile
from results.keeping import Keeper, Kept
from results.remote import Address, Remote
from results.store import DROPPED, STEPS, Store

SCRATCH = "GRIDLAW_SCRATCH"
"""Environment variable: where a machine has room for steps that are worked on and fetched."""
PATIENCE_SECONDS, FIRST_PATIENCE_SECONDS = 60.0, 5.0
"""For which a request is tried again; less before anything is begun."""
AT_ONCE = 8
"""Files that are transferred at the same time."""


@dataclass(frozen=True)
class ObjectStore(Store):
    """See `Store`."""

    place: Address
    scratch: Path | None = None
    """Of each machine; None: what the environment says there, or a folder for temporary files."""
    patience: float = PATIENCE_SECONDS
    """Seconds for which a request that fails is tried again."""

    @property
    def address(self) -> str:
        return self.place.text()

    @property
    def is_shared(self) -> bool:
        return False

    @cached_property
    def _remote(self) -> Remote:
        return Remote(address=self.place, patience=self.patience)

    @cached_property
    def _here(self) -> Path:
        """This store's part of the scratch folder, which is this user's alone."""
        base = self.scratch or Path(os.environ.get(SCRATCH) or Path(tempfile.gettempdir()) / f"gridlaw-{os.getuid()}")
        base.mkdir(parents=True, exist_ok=True, mode=0o700)
        if base.stat().st_uid != os.getuid():
            raise PermissionError(f"{base}: belongs to another user; {SCRATCH} may name another folder")
        return base.absolute() / hashlib.sha256(self.address.encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        return self.place.folder.rpartition("/")[2] or self.place.bucket

    def below(self, folder: str) -> "ObjectStore":
        return replace(self, place=replace(self.place, folder=f"{self.place.folder}/{folder}".strip("/")))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.place, self.scratch, self.patience)

    def shown(self, name: str) -> str:
        return self.place.text(name)

    def shown_step(self, kind: str, key: str) -> str:
        return self.shown(_files(kind, key))

    def local_folder(self, name: str) -> Path:
        return self._here / "grids" / name

    def check_there(self) -> None:
        Remote(address=self.place, patience=FIRST_PATIENCE_SECONDS).check_bucket()

    def check_writable(self, folder: str) -> None:
        self.check_there()
        remote = Remote(address=self.place, patience=FIRST_PATIENCE_SECONDS)
        probe = f".writable-{os.getpid()}"
        remote.write(probe, b"")
        remote.delete(probe)

    # ------------------------------------------------------------ what is there

    def finished(self, kind: str) -> set[str]:
        return set(self._remote.names(f"{STEPS}/{kind}/done"))

    def is_finished(self, kind: str, key: str) -> bool:
        return bool(self._remote.names(_done(kind, key)))

    def _marker(self, kind: str, key: str) -> tuple[str, dict[str, int]] | None:
        """The attempt that has finished the step, and the sizes of its files."""
        markers = self._remote.names(_done(kind, key))
        if not markers:
            return None
        sizes: dict[str, int] = json.loads(self._remote.read(f"{_done(kind, key)}/{markers[-1]}"))["files"]
        return markers[-1].removesuffix(".json"), sizes

    def _newest_begun(self, kind: str, key: str) -> tuple[str, dict[str, Any]] | None:
        """The latest attempt that has not finished, and what is kept of it."""
        names = [name for name in self._remote.names(_begun(kind, key)) if name.endswith(".json")]
        if not names:
            return None
        with suppress(FileNotFoundError):  # finished this moment
            return names[-1].removesuffix(".json"), json.loads(self._remote.read(f"{_begun(kind, key)}/{names[-1]}"))
        return None

    def partial(self, kind: str) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        for name in sorted(self._remote.below(f"{STEPS}/{kind}/begun")):
            key, _, attempt = name.partition("/")
            if attempt.endswith(".json"):
                found[key] = attempt.removesuffix(".json").partition("-")[2] or None
        return found

    def peek(self, kind: str, key: str, name: str) -> bytes | None:
        folder = self._cached(kind, key)
        with suppress(FileNotFoundError):
            if folder is not None:
                return (folder / name).read_bytes()
        if marker := self._marker(kind, key):
            attempt, sizes = marker
            return self._remote.read(f"{_files(kind, key)}/{attempt}/{name}") if name in sizes else None
        if (begun := self._newest_begun(kind, key)) and name in begun[1]["files"]:
            with suppress(FileNotFoundError):
                return self._remote.read(f"{_files(kind, key)}/{begun[1]['files'][name][0]}")
        return None

    # ------------------------------------------------------------ fetching

    @cached_property
    def _cache(self) -> Cache:
        return Cache(self._here / "cache")

    def _cached(self, kind: str, key: str) -> Path | None:
        """The copy of a finished step on this machine, if it is whole; nobody is asked whether it still is what it was.

        But for one that lacks what was dropped: since then the step may have been done again.
        """
        sizes = self._cache.sizes(kind, key)
        if sizes is None or (DROPPED in sizes and (self._marker(kind, key) or ("", {}))[1] != sizes):
            return None
        return self._cache.folder(kind, key)

    def fetch(self, kind: str, key: str) -> Path:
        if (folder := self._cached(kind, key)) is not None:
            return folder
        with self._cache.changing(kind, key) as new:
            if self._cached(kind, key) is None:
                try:
                    self._download(kind, key, new)
                except (FileNotFoundError, TornFile):  # parts of it were dropped meanwhile
                    self._download(kind, key, new)
        return self._cache.folder(kind, key)

    def _download(self, kind: str, key: str, new: Path) -> None:
        marker = self._marker(kind, key)
        if marker is None:
            raise FileNotFoundError(f"{self.shown(_done(kind, key))}: no such finished step")
        attempt, sizes = marker
        files.remove(new)
        got = self._download_all(kind, key, {name: f"{attempt}/{name}" for name in sizes}, new)
        for name, size in sizes.items():
            if got[name] != size:
                where = self.shown(f"{_files(kind, key)}/{attempt}/{name}")
                raise TornFile(f"{where}: has {got[name]} bytes, not the {size} that were written")
        self._cache.install(new, kind, key, sizes)

    def _download_all(self, kind: str, key: str, places: dict[str, str], folder: Path) -> dict[str, int]:
        """Name -> bytes of the files that were downloaded into the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in places:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)

        def one(name: str) -> int:
            return self._remote.download(f"{_files(kind, key)}/{places[name]}", folder / name)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            return dict(zip(places, pool.map(one, places), strict=True))

    # ------------------------------------------------------------ working

    def workplace(self, kind: str, key: str, owner: str) -> Path:
        return self._here / "work" / kind / f"{key}.{owner}"

    @contextmanager
    def work(self, kind: str, key: str, owner: str) -> Iterator[Path | None]:
        if self.is_finished(kind, key):
            yield None
            return
        before = self._newest_begun(kind, key)
        attempt = _next(before, owner)
        kept: Kept = {name: (at, size) for name, (at, size) in before[1]["files"].items()} if before else {}
        self._write_begun(kind, key, attempt, kept)  # from here on, earlier attempts are fenced off
        folder = self._take(kind, key, owner, before)
        keeper = Keeper(
            remote=self._remote,
            folder=folder,
            base=_files(kind, key),
            attempt=attempt,
            write=lambda found: self._keep(kind, key, attempt, found),
            kept=kept,
        )
        keeper.adopt()
        try:
            with keeper:
                yield folder
            self._commit(kind, key, attempt, keeper)
        except LostLease:
            files.remove(folder)
            with suppress(OSError):
                if self.is_finished(kind, key):  # else a later attempt may stand on what this one has kept
                    self._remote.delete_below(f"{_files(kind, key)}/{attempt}")
            raise
        except BaseException:
            with suppress(OSError, LostLease):  # what went wrong in the first place says more
                keeper.keep()
                self._write_begun(kind, key, _next((attempt, {}), ""), keeper.kept, by=attempt)
            raise

    def _take(self, kind: str, key: str, owner: str, before: tuple[str, dict[str, Any]] | None) -> Path:
        """A folder to work in, with what an earlier attempt left: all of it on its machine, what was kept on others."""
        mine = self.workplace(kind, key, owner)
        mine.parent.mkdir(parents=True, exist_ok=True)
        by = before[1].get("by", "").partition("-")[2] if before else ""
        left = [path for path in mine.parent.glob(f"{key}.*") if path != mine]
        own = next((path for path in left if by and path.name == f"{key}.{by}"), None)
        wanted: dict[str, Any] = before[1]["files"] if before else {}
        if own is not None:
            own.rename(mine)
            wanted = {name: place for name, place in wanted.items() if before and name in before[1].get("put", ())}
        else:
            files.remove(mine)
        for other in left:
            files.remove(other)
        try:
            self._download_all(kind, key, {name: at for name, (at, _) in wanted.items()}, mine)
        except FileNotFoundError:  # the earlier attempt still works, and has removed what it had kept
            files.remove(mine)
            mine.mkdir()
        return mine

    def _write_begun(self, kind: str, key: str, attempt: str, kept: Kept, **more: Any) -> None:
        content = {"by": attempt, **more, "files": kept}
        self._remote.write(f"{_begun(kind, key)}/{attempt}.json", json.dumps(content).encode())

    def _keep(self, kind: str, key: str, attempt: str, kept: Kept) -> None:
        self._check(kind, key, attempt)
        self._write_begun(kind, key, attempt, kept)

    def _check(self, kind: str, key: str, attempt: str) -> None:
        """Raises LostLease unless the attempt is the latest and the step is not finished."""
        names = [name for name in self._remote.names(_begun(kind, key)) if name.endswith(".json")]
        if not names or names[-1] != f"{attempt}.json" or self._remote.names(_done(kind, key)):
            raise LostLease(f"{self.shown_step(kind, key)}: was taken over")

    def _commit(self, kind: str, key: str, attempt: str, keeper: Keeper) -> None:
        """Upload everything, then say that it is there; then remove what nobody needs any more."""
        self._check(kind, key, attempt)
        sizes = keeper.upload_all()
        self._check(kind, key, attempt)
        marker = json.dumps({"files": sizes}, sort_keys=True).encode()
        self._remote.write(f"{_done(kind, key)}/{attempt}.json", marker)
        with suppress(OSError), self._cache.changing(kind, key):
            self._cache.install(keeper.folder, kind, key, sizes)
        with suppress(OSError):
            for name in self._remote.below(_files(kind, key)):
                of, _, rest = name.partition("/")
                if of < attempt or (of == attempt and rest not in sizes):
                    self._remote.delete(f"{_files(kind, key)}/{name}")
            self._remote.delete_below(_begun(kind, key))

    def put(self, kind: str, key: str, name: str, content: bytes) -> None:
        attempt, begun = self._newest_begun(kind, key) or (_next(None, ""), {"by": "", "files": {}})
        place = f"{attempt}/{name}"
        self._remote.write(f"{_files(kind, key)}/{place}", content)
        put = sorted({*begun.get("put", ()), name})
        kept = {**begun["files"], name: (place, len(content))}
        self._write_begun(kind, key, attempt, kept, by=begun["by"], put=put)

    # ------------------------------------------------------------ ends

    def mark_failed(self, kind: str, key: str, record: dict[str, Any]) -> None:
        self._remote.write(_failed(kind, key), files.as_json(record).encode())

    def failed(self, kind: str) -> dict[str, dict[str, Any]]:
        names = self._remote.names(f"{STEPS}/{kind}/failed")
        keys = [name.removesuffix(".json") for name in names if name.endswith(".json")]
        found: dict[str, dict[str, Any]] = {}
        for key in keys:
            with suppress(FileNotFoundError):  # forgiven this moment
                found[key] = json.loads(self._remote.read(_failed(kind, key)))
        return found

    def failure(self, kind: str, key: str) -> dict[str, Any] | None:
        with suppress(FileNotFoundError):
            found: dict[str, Any] = json.loads(self._remote.read(_failed(kind, key)))
            return found
        return None

    def forgive(self, kind: str, key: str, *, restart: bool) -> None:
        if restart and not self.is_finished(kind, key):
            self._remote.delete_below(_begun(kind, key))
            self._remote.delete_below(_files(kind, key))
        self._remote.delete(_failed(kind, key))

    def drop(self, kind: str, key: str, names: Sequence[str]) -> None:
        marker = self._marker(kind, key)
        if marker is None:
            raise FileNotFoundError(f"{self.shown(_done(kind, key))}: no such finished step")
        attempt, sizes = marker
        base = f"{_files(kind, key)}/{attempt}"
        gone = [file for file in sizes if any(file == name or file.startswith(f"{name}/") for name in names)]
        before = json.loads(self._remote.read(f"{base}/{DROPPED}")) if DROPPED in sizes else []
        note = files.as_json(sorted({*before, *names})).encode()
        self._remote.write(f"{base}/{DROPPED}", note)
        left = {name: size for name, size in sizes.items() if name not in gone} | {DROPPED: len(note)}
        self._remote.write(f"{_done(kind, key)}/{attempt}.json", json.dumps({"files": left}, sort_keys=True).encode())
        for name in gone:
            self._remote.delete(f"{base}/{name}")
        self._cache.forget(kind, key)

    def reopen(self, kind: str, key: str) -> None:
        self._remote.delete_below(_done(kind, key))  # first: from here on it is not finished
        self._remote.delete_below(_begun(kind, key))
        self._remote.delete_below(_files(kind, key))
        self._cache.forget(kind, key)

    # ------------------------------------------------------------ files by name

    def read_bytes(self, name: str) -> bytes:
        return self._remote.read(name)

    def write_bytes(self, name: str, content: bytes) -> None:
        self._remote.write(name, content)

    def create(self, name: str) -> None:
        self._remote.write(name, b"")

    def put_file(self, name: str, path: Path) -> None:
        self._remote.upload(path, name)

    def listing(self, folder: str) -> list[str]:
        return self._remote.names(folder)

    def delete(self, name: str) -> None:
        self._remote.delete(name)


def _files(kind: str, key: str) -> str:
    return f"{STEPS}/{kind}/files/{key}"


def _begun(kind: str, key: str) -> str:
    return f"{STEPS}/{kind}/begun/{key}"


def _done(kind: str, key: str) -> str:
    return f"{STEPS}/{kind}/done/{key}"


def _failed(kind: str, key: str) -> str:
    return f"{STEPS}/{kind}/failed/{key}.json"


def _next(before: tuple[str, dict[str, Any]] | None, owner: str) -> str:
    """Name of an attempt after another one."""
    number = int(before[0].partition("-")[0]) + 1 if before else 1
    return f"{number:06d}-{owner}"
