"""The results folder, on a file system or an object store: finished steps, and the tables that are read from it.

    steps/<kind>/<key>/                    a finished step; shared by every grid here
    steps/<kind>/<key>.partial/            a step that was interrupted, or failed
    steps/<kind>/<key>.<owner>.partial/    a step that `owner` works on (or was killed at)
    <grid>/trials/<trial>.parquet          and likewise queries/, curves/, baselines/, runs/

A step becomes visible whole or not at all, so what is there is finished. There is no other state: scanning the
folder is how a sweep resumes. Nothing here is ever read with pickle.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow as pa

from results import parquet
from results.errors import TornFile, first_line

STEPS, LEASES, DRIVERS = "steps", "leases", "drivers"
"""Folders beside the grids' own."""
PARTIAL = ".partial"
DROPPED = "dropped.json"
"""In a finished step: the names of its parts that were removed since."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")


class Store(ABC):
    """A results folder. Small and without open files: it can be sent to another process.

    A `kind` and a `key` name a step; an `owner` is one attempt at it, a name of letters, digits, `-` and `_` that no
    other attempt has. Every method raises OSError where the storage cannot be reached or refuses.
    """

    @property
    @abstractmethod
    def address(self) -> str:
        """What `open_store` takes to open it again, anywhere."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The last part of its path or address."""

    @abstractmethod
    def below(self, folder: str) -> "Store":
        """A folder in it as a results folder of its own, such as a grid's."""

    @property
    @abstractmethod
    def is_shared(self) -> bool:
        """Whether the folder that a step is worked on in is the same for processes of several machines."""

    @abstractmethod
    def shown(self, name: str) -> str:
        """For a person: where the file or folder is, relative to the current folder where it lies below it."""

    def shown_step(self, kind: str, key: str) -> str:
        """For a person: where a step that is not finished keeps its files between attempts."""
        return self.shown(f"{STEPS}/{kind}/{key}{PARTIAL}")

    @abstractmethod
    def local_folder(self, name: str) -> Path:
        """A folder of this machine for files that others' tools write; below the results folder where it can be."""

    @abstractmethod
    def check_there(self) -> None:
        """Raises StorageTrouble, soon, where the storage does not answer or has no such bucket."""

    @abstractmethod
    def check_writable(self, folder: str) -> None:
        """Make the results folder; raises OSError where it, or the folder in it if it is there, cannot be written."""

    # ------------------------------------------------------------ steps

    @abstractmethod
    def finished(self, kind: str) -> set[str]:
        """Keys of all finished steps of a kind, by one scan."""

    @abstractmethod
    def is_finished(self, kind: str, key: str) -> bool:
        """Whether the step is there whole."""

    @abstractmethod
    def fetch(self, kind: str, key: str) -> Path:
        """A folder of this machine with the finished step's files, to read only. Raises FileNotFoundError."""

    @abstractmethod
    def work(self, kind: str, key: str, owner: str) -> AbstractContextManager[Path | None]:
        """The folder to do a step in; it becomes the finished step when the block ends without an error.

        Yields None where the step is finished already. Files left by an earlier attempt are in the folder, so
        training can resume, and an attempt that still works on it can no longer finish the step: who calls this has
        the step's lease (`results.leases`). After an error the files wait for the next attempt.

        Raises:
            LostLease: another attempt has taken the step over; nothing of this one is visible.
        """

    @abstractmethod
    def workplace(self, kind: str, key: str, owner: str) -> Path:
        """The folder that `work` yields, for processes of this machine that work beside the one that called it."""

    @abstractmethod
    def partial(self, kind: str) -> dict[str, str | None]:
        """Key -> owner of the steps that were begun and are not finished; None where nobody works on it now."""

    @abstractmethod
    def peek(self, kind: str, key: str, name: str) -> bytes | None:
        """One small file of a step, finished or begun; None where there is none."""

    @abstractmethod
    def put(self, kind: str, key: str, name: str, content: bytes) -> None:
        """Write one small file into a step that is not finished, whether it was begun or not."""

    @abstractmethod
    def mark_failed(self, kind: str, key: str, record: dict[str, Any]) -> None:
        """Record that the step has failed for good."""

    @abstractmethod
    def failed(self, kind: str) -> dict[str, dict[str, Any]]:
        """Key -> record of the steps that have failed for good; a record that is not whole is empty."""

    @abstractmethod
    def failure(self, kind: str, key: str) -> dict[str, Any] | None:
        """The record of one step that has failed for good; None where it has not."""

    @abstractmethod
    def forgive(self, kind: str, key: str, *, restart: bool) -> None:
        """Let a step that has failed be tried again, from where it was or (`restart`) from nothing."""

    @abstractmethod
    def drop(self, kind: str, key: str, names: Sequence[str]) -> None:
        """Remove files or folders of a finished step, such as weights; a note (`DROPPED`) says that they were there."""

    @abstractmethod
    def reopen(self, kind: str, key: str) -> None:
        """Let a finished step be done again, from nothing. Whoever calls this holds its lease."""

    # ------------------------------------------------------------ files by name, such as `squad/trials/x.parquet`

    @abstractmethod
    def read_bytes(self, name: str) -> bytes:
        """A file's content. Raises FileNotFoundError."""

    @abstractmethod
    def write_bytes(self, name: str, content: bytes) -> None:
        """One file, whole or not at all."""

    @abstractmethod
    def create(self, name: str) -> None:
        """An empty file, which need not outlast a loss of power."""

    @abstractmethod
    def put_file(self, name: str, path: Path) -> None:
        """Copy a file of this machine, whole or not at all."""

    @abstractmethod
    def listing(self, folder: str) -> list[str]:
        """Names of what is in a folder, sorted; none where there is no such folder."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove a file that may not be there."""

    def write_text(self, name: str, text: str) -> None:
        """One text file in UTF-8, whole or not at all."""
        self.write_bytes(name, text.encode())

    def read_text(self, name: str) -> str:
        """A text file in UTF-8. Raises FileNotFoundError."""
        return self.read_bytes(name).decode()

    def write_table(self, name: str, table: pa.Table) -> None:
        """One Parquet part, whole or not at all."""
        self.write_bytes(name, parquet.to_bytes(table))

    def read_table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """One Parquet part, with its own columns or some of them. Raises FileNotFoundError or TornFile."""
        content = self.read_bytes(name)
        try:
            return parquet.from_bytes(content, columns)
        except (OSError, pa.ArrowException) as error:  # the bytes are here, so it is they that are wrong
            raise TornFile(f"{self.shown(name)}: not a readable Parquet file ({first_line(error)})") from None
