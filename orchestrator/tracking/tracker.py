"""The thread that keeps W&B in step with the results folder, and never keeps a sweep waiting."""

import json
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.grid import Loaded, Tracking
from orchestrator.tracking.sinks import Known, Sink, sink
from orchestrator.tracking.training import Training
from results import dashboard, files
from results.dashboard import Place
from results.store import Store

FOLLOW_SECONDS = 15.0
"""Least time between two looks at the curve of a training that is going on."""
PATIENCE_SECONDS = 20.0
"""How long the end of a sweep waits for W&B to make progress before it leaves the rest out."""
END_SECONDS = 600.0
"""How long it waits at most."""
INTERRUPTED_SECONDS = 3.0
"""How long it waits where the sweep was interrupted."""
PAUSE_SECONDS = 30.0
"""How long W&B is left alone after it has failed; twice as long after each further time."""
LONGEST_PAUSE_SECONDS = 600.0
LAST_PAUSE_SECONDS = 2.0
"""How long where the sweep waits for it."""
TRIES = 3
"""Of one training in one sweep; and failures in a row after which the end of a sweep waits no more."""


def place_of(settings: Tracking) -> Place:
    """Where a grid's runs go, in this environment."""
    return Place(mode=dashboard.mode_of(settings.wandb), project=settings.project, entity=settings.entity)


def check(loaded: Loaded) -> None:
    """Raises BadInput where W&B would have to ask for a key."""
    if loaded.grid.tracking.wandb == "online" and not dashboard.has_key():
        raise loaded.source.error(("tracking", "wandb"), "online needs WANDB_API_KEY to be set")


@dataclass(frozen=True, kw_only=True)
class _Marker:
    """The note beside the results of what W&B was given of a training, and where."""

    place: Place
    known: Known
    digest: str

    def covers(self, place: Place) -> bool:
        """Whether what is there need not be written to this place: what was sent needs no offline folder."""
        there = (self.place.project, self.place.entity) == (place.project, place.entity)
        return there and (self.place.mode == "online" or place.mode == "offline")


class Tracker:
    """Shows trainings in W&B while and after they run. Use as a context; `report` says what was left out.

    `began` and `ended` return at once and take keys only: what waits is no longer than the grid, and whatever was
    missed is read from the results folder later, in this sweep or in the next.

    Args:
        store: the results folder; notes of what W&B has, and offline runs, lie in `<grid>/wandb/`.
        grid: the grid's name, which groups its runs.
        read: what the results folder says of a training now, by its key. Called in the tracker's own thread.
    """

    def __init__(self, settings: Tracking, store: Store, grid: str, read: Callable[[str], Training]) -> None:
        self._place, self._store, self._grid, self._read = place_of(settings), store, grid, read
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        self._following: dict[str, float] = {}
        """Key of a training that runs -> when to look at it next."""
        self._due: dict[str, frozenset[str]] = {}
        """Key of a training that has ended -> its trials."""
        self._busy = self._closing = self._aborted = False
        self._tries: dict[str, int] = {}
        self._left_out: set[str] = set()
        self._reason = ""
        self._pauses = 0
        self._resume_at = self._progress_at = 0.0

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, *exception: object) -> None:
        """Wait as long as W&B takes what is still to be written, within limits; hardly where an error ends it."""
        with self._changed:
            self._closing, self._aborted = True, exception[0] is not None
            self._resume_at = min(self._resume_at, time.monotonic() + LAST_PAUSE_SECONDS)
            self._changed.notify()
        if self._thread is None:
            return
        began = self._progress_at = time.monotonic()
        patience = INTERRUPTED_SECONDS if self._aborted else PATIENCE_SECONDS
        while self._thread.is_alive():
            now = time.monotonic()
            if now - self._progress_at > patience or now - began > END_SECONDS:
                break
            self._thread.join(timeout=0.05)
        with self._changed:
            self._aborted = True
            self._left_out |= self._due.keys()

    def began(self, key: str) -> None:
        """A training runs now, from its beginning or its checkpoint: show its curve while it does."""
        self._tell(lambda: self._following.setdefault(key, 0.0))

    def ended(self, key: str, trials: Sequence[str]) -> None:
        """All of a training's trials have their rows: write it whole, unless W&B has all of them."""

        def change() -> None:
            self._following.pop(key, None)
            self._due[key] = frozenset(trials)

        self._tell(change)

    def report(self) -> str:
        """One line on what was left out; nothing where all is well."""
        if not self._left_out:
            return ""
        why = self._reason or "W&B was too slow"
        return f"tracking: {len(self._left_out)} trainings are not in W&B (the same command sends them later): {why}"

    def _tell(self, change: Callable[[], object]) -> None:
        if self._place.mode == "off":
            return
        with self._changed:
            change()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
                self._thread.start()
            self._changed.notify()

    # ------------------------------------------------------------ in the thread

    def _work(self) -> None:
        with dashboard.scratch() as folder:
            target = sink(self._place, self._store, self._grid, folder)
            while (key := self._next()) is not None:
                try:
                    self._write(target, key)
                    self._pauses, self._progress_at = 0, time.monotonic()
                except Exception as error:  # whatever W&B raises, the sweep goes on; `report` tells
                    self._failed(target, key, error)
            target.close()

    def _next(self) -> str | None:
        """The training to look at next, waiting for one; None where it is time to go."""
        with self._changed:
            while not self._aborted:
                now = time.monotonic()
                if self._closing and (not self._due or self._pauses >= TRIES):
                    return None
                if now >= self._resume_at:
                    if self._due:
                        return next(iter(self._due))
                    if self._following and min(self._following.values()) <= now:
                        return min(self._following, key=self._following.__getitem__)
                self._changed.wait(self._wait(now))
            return None

    def _wait(self, now: float) -> float | None:
        """Seconds until there may be something to do; None: until told."""
        if self._due:
            return self._resume_at - now
        if self._following:
            return max(self._resume_at, min(self._following.values())) - now
        return None

    def _write(self, target: Sink, key: str) -> None:
        trials = self._due.get(key)
        if trials is None:
            with self._changed:
                if key in self._following:
                    self._following[key] = time.monotonic() + FOLLOW_SECONDS
            target.follow(self._read(key))
            return
        marker = self._marker(key)
        if marker is None or not trials <= marker.known.trials:
            self._complete(target, key, marker)
        with self._changed:
            if self._due.get(key) == trials:
                del self._due[key]

    def _complete(self, target: Sink, key: str, marker: "_Marker | None") -> None:
        training = self._read(key)
        digest = training.digest()
        if marker is not None and marker.digest == digest:
            return  # it has failed trials, which are what they were

        def intend(known: Known) -> None:
            self._note(key, _Marker(place=self._place, known=known, digest=digest), before=marker)

        known = target.complete(training, marker.known if marker else Known(), intend)
        self._note(key, _Marker(place=self._place, known=known, digest=digest))

    def _failed(self, target: Sink, key: str, error: Exception) -> None:
        """Leave W&B alone for a while, and a training that fails again and again for good."""
        self._reason = dashboard.why(error)
        target.close()  # runs of a process that has failed are in an unknown state
        with self._changed:
            self._tries[key] = self._tries.get(key, 0) + 1
            if self._tries[key] >= TRIES and self._due.pop(key, None) is not None:
                self._left_out.add(key)
            longest = LAST_PAUSE_SECONDS if self._closing else LONGEST_PAUSE_SECONDS
            pause = min(PAUSE_SECONDS * 2**self._pauses, longest)
            self._pauses += 1
            self._resume_at = time.monotonic() + pause

    # ------------------------------------------------------------ notes

    def _name(self, key: str) -> str:
        return f"{self._grid}/wandb/tracked/{key}.json"

    def _marker(self, key: str) -> _Marker | None:
        """The note of a training; None where there is none that says anything about this place."""
        with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            found = json.loads(self._store.read_text(self._name(key)))
            if "before" in found and not self._is_there(key, found["folder"]):
                found = found["before"]  # the process ended while it wrote the folder
            marker = _Marker(
                place=Place(**found["place"]),
                known=Known(trials=frozenset(found["trials"]), last=found["last"], folder=found["folder"]),
                digest=found["digest"],
            )
            return marker if marker.covers(self._place) else None
        return None

    def _is_there(self, key: str, folder: str) -> bool:
        return f"run-{key}.wandb" in self._store.listing(f"{self._grid}/wandb/{folder}")

    def _note(self, key: str, marker: _Marker, **more: _Marker | None) -> None:
        said = _plain(marker) | {name: _plain(value) if value else None for name, value in more.items()}
        self._store.write_text(self._name(key), files.as_json(said))


def _plain(marker: _Marker) -> dict[str, Any]:
    known = marker.known
    return {
        "place": asdict(marker.place),
        "trials": sorted(known.trials),
        "last": known.last,
        "folder": known.folder,
        "digest": marker.digest,
    }
