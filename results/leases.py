"""Who does which step: a lease a step, named after the driver that holds it, and a heartbeat a driver.

Nothing more is asked of the storage than that a file or object that was created is in every list that is made
later, and one that was deleted in none. So it is the same on a file system and on an object store.

    leases/<kind>/<key>.<driver>.<n>   an empty file: the driver does the step, or is about to; never made twice
    drivers/<driver>                   its heartbeat, written again every few seconds
    drivers/<driver>.dead              somebody found that it no longer beats

To take a lease, a driver lists the claims on the step, creates its own, and lists again; if another living driver's is
in either list it withdraws. Two that both enter are impossible: each has listed after its own claim was there, so
the later of the two has seen the earlier one's. Clocks of two machines are never compared: a driver is dead when its
process is gone, where that can be looked up, or when its heartbeat has stood still for a minute of the clock of whoever
looks, who has looked all the while.
"""

import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from results.errors import LostLease
from results.store import DRIVERS, LEASES, Store

BEAT_SECONDS = 5.0
"""Between two heartbeats of a driver."""
DEAD_SECONDS = 60.0
"""How long a heartbeat must have stood still for its driver to be dead."""
BURIED_SECONDS = 600.0
"""How long a note of a driver's death stays for the driver itself to find, should it only have been suspended."""
DEAD = ".dead"


@dataclass(frozen=True, kw_only=True)
class Driver:
    """A process that runs a sweep."""

    id: str
    host: str
    pid: int
    began: str
    """ISO 8601 in UTC, by its own clock."""
    place: str
    """Where its process number means something: the machine's boot and its process namespace; empty: unknown."""
    start: str
    """When its process began, in the units of its machine; empty: unknown."""

    @property
    def is_gone(self) -> bool:
        """Whether it ran on this machine and no longer does."""
        return bool(self.place) and self.place == _place() and _start(self.pid) != self.start


def this_driver() -> Driver:
    """A new driver of this process."""
    host = socket.gethostname()
    name = re.sub(r"[^A-Za-z0-9-]+", "-", host)[:40]
    return Driver(
        id=f"{name}-{os.getpid()}-{secrets.token_hex(4)}",
        host=host,
        pid=os.getpid(),
        began=datetime.now(UTC).isoformat(timespec="seconds"),
        place=_place(),
        start=_start(os.getpid()),
    )


def _place() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + " " + os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _start(pid: int) -> str:
    """Of a living process; empty where there is none of the number, or where this cannot be known."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


class Observer:
    """What one observer knows of the drivers of a results folder. Reads only."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._clock = store, clock
        self._seen: dict[str, tuple[bytes | None, float, float]] = {}
        """Driver -> its heartbeat, for how long it has stood still, and when that was looked at."""

    def look(self, driver: str) -> bytes | None:
        """Read a driver's heartbeat; None where it has none."""
        try:
            content: bytes | None = self._store.read_bytes(f"{DRIVERS}/{driver}")
        except FileNotFoundError:
            content = None
        before, stood, looked = self._seen.get(driver, (content, 0.0, self._clock()))
        # While nobody looked, because the storage was away or this process suspended, others may have been as well.
        stood += min(self._clock() - looked, 2 * BEAT_SECONDS)
        self._seen[driver] = content, stood if content == before else 0.0, self._clock()
        return content

    def stood(self, driver: str) -> float:
        """For how many seconds of looking the heartbeat has been what it is."""
        return self._seen[driver][1]

    def is_dead(self, driver: str) -> bool:
        """Whether a driver is known to be dead by now; one that is seen for the first time gets its time."""
        if f"{driver}{DEAD}" in self._store.listing(DRIVERS):
            return True
        known = _parsed(self.look(driver))
        return (known is not None and known.is_gone) or self.stood(driver) >= DEAD_SECONDS

    def drivers(self) -> list[Driver]:
        """All that are not known to be dead."""
        names = [name for name in self._store.listing(DRIVERS) if "." not in name]
        found = [_parsed(self.look(name)) for name in names if not self.is_dead(name)]
        return [driver for driver in found if driver is not None]

    def holders(self, kind: str) -> dict[str, str]:
        """Key -> driver, of the steps that drivers not known to be dead do."""
        claims = [name.split(".") for name in self._store.listing(f"{LEASES}/{kind}")]
        alive = {driver: not self.is_dead(driver) for driver in {driver for _, driver, _ in claims}}
        return {key: driver for key, driver, _ in claims if alive[driver]}


def living(store: Store, patience: float = 1.5 * BEAT_SECONDS) -> list[Driver]:
    """The drivers alive: on this machine by their process, on others if they beat within `patience` seconds."""
    observer = Observer(store)
    drivers = observer.drivers()
    here = _place()
    waiting = {driver.id: observer.look(driver.id) for driver in drivers if driver.place != here or not here}
    until = time.monotonic() + patience
    while waiting and time.monotonic() < until:
        time.sleep(0.25)
        waiting = {driver: beat for driver, beat in waiting.items() if observer.look(driver) == beat}
    return [driver for driver in drivers if driver.id not in waiting]


def _parsed(heartbeat: bytes | None) -> Driver | None:
    try:
        found: Mapping[str, Any] = json.loads(heartbeat or b"")
        return Driver(**{name: found[name] for name in Driver.__dataclass_fields__})
    except (ValueError, KeyError, TypeError):
        return None


class Leases:
    """The leases of one driver. As a context it beats in a thread, and lets go of everything at its end.

    Every method raises OSError where the storage cannot be reached.
    """

    def __init__(
        self, store: Store, driver: Driver | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.driver = driver or this_driver()
        self._store, self._clock = store, clock
        self._observer = Observer(store, clock)
        self._held: dict[tuple[str, str], str] = {}
        """(kind, key) -> the name of the claim."""
        self._claims = 0
        self._beats = 0
        self._last_beat = clock()
        self._lost = False
        self._guard = threading.RLock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, name="heartbeat", daemon=True)

    def __enter__(self) -> "Leases":
        self.beat()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()
        with suppress(OSError):  # what cannot be told is found out a minute later
            self.leave()

    # ------------------------------------------------------------ heartbeat

    def beat(self) -> None:
        """Write the heartbeat. Raises LostLease where the driver was declared dead."""
        with self._guard:
            self._find_death()
            content = {**asdict(self.driver), "beat": self._beats}
            self._store.write_bytes(f"{DRIVERS}/{self.driver.id}", json.dumps(content, sort_keys=True).encode())
            self._beats += 1
            self._find_death()  # again: it may have been declared between the two, and the heartbeat stands there anew
            self._last_beat = self._clock()

    def _find_death(self) -> None:
        there = self._store.listing(DRIVERS)
        if self._lost or f"{self.driver.id}{DEAD}" in there or (self._beats and self.driver.id not in there):
            self._lost = True
            raise LostLease(f"this driver, {self.driver.id}, was declared dead by another: it did not beat for a while")

    def _keep_beating(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            with suppress(OSError):  # the storage is away; the next beat tells what others made of it
                try:
                    self.beat()
                except LostLease:
                    return
                self.tidy()

    def tidy(self) -> None:
        """Look at the other drivers, bury those that are dead, and delete claims that could not be deleted before."""
        with self._guard:
            for claim in self._claims_of(self.driver.id) - set(self._held.values()):
                self._store.delete(claim)
            for name in self._store.listing(DRIVERS):
                driver, _, end = name.partition(".")
                if driver == self.driver.id or name.startswith("."):
                    continue
                if not end and self._observer.is_dead(driver):
                    self._bury(driver)
                elif f".{end}" == DEAD:
                    self._forget(driver)

    def _claims_of(self, driver: str) -> set[str]:
        """Names of all claims of a driver."""
        folders = [f"{LEASES}/{kind}" for kind in self._store.listing(LEASES)]
        names = {f"{folder}/{name}" for folder in folders for name in self._store.listing(folder)}
        return {name for name in names if name.split(".")[1] == driver}

    def _bury(self, driver: str) -> None:
        """Remove a dead driver's claims and its heartbeat; one that may wake again finds a note of it."""
        known = _parsed(self._observer.look(driver))
        if known is None or not known.is_gone:
            self._store.create(f"{DRIVERS}/{driver}{DEAD}")
        for claim in self._claims_of(driver):
            self._store.delete(claim)
        self._store.delete(f"{DRIVERS}/{driver}")

    def _forget(self, driver: str) -> None:
        """Remove the note of a death that is long past."""
        if self._observer.look(driver) is None and self._observer.stood(driver) >= BURIED_SECONDS:
            self._store.delete(f"{DRIVERS}/{driver}{DEAD}")

    def leave(self) -> None:
        """Let go of every lease and stop being a driver."""
        with self._guard:
            self._held.clear()
            for claim in self._claims_of(self.driver.id):
                self._store.delete(claim)
            self._store.delete(f"{DRIVERS}/{self.driver.id}")
            self._store.delete(f"{DRIVERS}/{self.driver.id}{DEAD}")

    # ------------------------------------------------------------ leases

    def take(self, kind: str, key: str) -> bool:
        """Whether the step is this driver's to do now. Never waits; after a no, ask again a random while later.

        Raises:
            LostLease: this driver was declared dead.
        """
        with self._guard:
            if (kind, key) in self._held:
                return True
            self._be_sure()
            if self._is_wanted(kind, key):
                return False
            self._claims += 1
            claim = f"{LEASES}/{kind}/{key}.{self.driver.id}.{self._claims}"
            try:
                self._store.create(claim)
                withdraws = self._is_wanted(kind, key)
                self._be_sure()
            except BaseException:
                self._let_go(claim)
                raise
            if withdraws:
                self._let_go(claim)
                return False
            self._held[kind, key] = claim
            return True

    def _be_sure(self) -> None:
        """Beat now if the last one is so long ago that others may soon think this driver dead."""
        if self._lost or self._clock() - self._last_beat > DEAD_SECONDS / 2:
            self.beat()

    def _is_wanted(self, kind: str, key: str) -> bool:
        """Whether a living driver other than this one has a claim; the dead are buried."""
        for name in self._store.listing(f"{LEASES}/{kind}"):
            of, driver, _ = name.split(".")
            if of != key or driver == self.driver.id:
                continue
            if not self._observer.is_dead(driver):
                return True
            self._bury(driver)
        return False

    def release(self, kind: str, key: str) -> None:
        """Let go of a step; nothing happens where it is not held."""
        with self._guard:
            if (kind, key) in self._held:
                self._let_go(self._held.pop((kind, key)))

    def _let_go(self, claim: str) -> None:
        with suppress(OSError):  # `tidy` deletes it when the storage is back
            self._store.delete(claim)

    def holders(self, kind: str) -> dict[str, str]:
        """Key -> driver of the steps that living drivers do, this one among them."""
        return self._observer.holders(kind)
