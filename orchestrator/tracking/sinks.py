"""Where runs go: to the service, as trainings go on, or into offline folders, each written at once."""

import shutil
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from orchestrator.tracking.training import Training, define_axes, exit_code, write_curve, write_evaluations
from results import dashboard
from results.dashboard import Identity, Place
from results.store import Store

if TYPE_CHECKING:
    import wandb

OPEN = 15
"""Runs that are open at once, beside one that is being completed: each sends some ten requests a minute."""
TENURE_SECONDS = 120.0
"""How long a run stays open before another may have its place: to resume one takes the service three requests."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """What W&B has of a training, or will where the folder is synced."""

    trials: frozenset[str] = frozenset()
    """Those in its table."""
    last: int = -1
    """Its last step."""
    folder: str = ""
    """The last offline folder."""


Intend = Callable[[Known], None]
"""Takes what W&B has once the folder, which may not be whole yet, is."""


class Sink(Protocol):
    """Takes trainings. Both raise whatever wandb does where that fails."""

    def follow(self, training: Training) -> None:
        """Show what a training that is going on has logged so far."""

    def complete(self, training: Training, known: Known, intend: Intend) -> Known:
        """Write all of a training that has ended and that W&B has not; returns what it has then."""

    def close(self) -> None:
        """End what is open; raises nothing."""


def _identity(training: Training, group: str) -> Identity:
    return Identity(
        id=training.key,
        name=training.name,
        group=group,
        job_type="train",
        tags=training.tags,
        config=training.config,
    )


class Offline:
    """Writes a folder when a training has ended, and another one with the rest where there is more later.

    While it goes on there is nothing to see: a folder that grows would be sent half by whoever syncs it meanwhile,
    and be taken for sent.
    """

    def __init__(self, place: Place, store: Store, group: str) -> None:
        self._place, self._store, self._group = place, store, group

    def follow(self, training: Training) -> None:
        """Nothing; see above."""

    def complete(self, training: Training, known: Known, intend: Intend) -> Known:
        """Write a folder with what no earlier one has."""
        last = known.last

        def write(run: "wandb.Run") -> int:
            nonlocal last
            define_axes(run)
            last = write_evaluations(run, training, write_curve(run, training, last), known.trials)
            return exit_code(training)

        with dashboard.written_offline(self._place, _identity(training, self._group), write) as made:
            folder = self._free(made.name, training.key)
            now = Known(trials=known.trials | training.done, last=last, folder=folder)
            intend(now)
            for name in dashboard.parts(made):
                self._store.put_file(f"{self._group}/wandb/{folder}/{name}", made / name)
        return now

    def _free(self, name: str, key: str) -> str:
        """A name that no folder has; wandb's have the second in them."""
        while self._store.listing(f"{self._group}/wandb/{name}"):
            name = f"{name.removesuffix(f'-{key}')}x-{key}"
        return name

    def close(self) -> None:
        """Nothing is open between two trainings."""
        dashboard.stop()


@dataclass(kw_only=True)
class _Open:
    """A run that is open."""

    run: "wandb.Run"
    last: int
    """The last step that W&B has, or will."""
    since: float


class Online:
    """Keeps some runs open, and resumes the others when there is more to write."""

    def __init__(self, place: Place, group: str, folder: Path) -> None:
        self._place, self._group, self._folder = place, group, folder
        self._open: OrderedDict[str, _Open] = OrderedDict()
        """The one that was used longest ago first."""

    def follow(self, training: Training) -> None:
        """Send the steps that are new; not where all places are taken by runs that were opened a moment ago."""
        if not training.curve or (training.key not in self._open and not self._make_room()):
            return
        held = self._opened(training)
        held.last = write_curve(held.run, training, held.last)

    def complete(self, training: Training, known: Known, intend: Intend) -> Known:
        """Send what is missing and end the run. What the service has is asked of itself."""
        held = self._opened(training)
        held.last = write_curve(held.run, training, held.last)
        held.last = write_evaluations(held.run, training, held.last, known.trials)
        last = held.last
        self._end(training.key, exit_code(training))
        return Known(trials=known.trials | training.done, last=last)

    def close(self) -> None:
        """End all that are open: their trainings go on in another process, or are resumed."""
        self._open.clear()
        dashboard.stop()

    def _make_room(self) -> bool:
        if len(self._open) < OPEN:
            return True
        key, oldest = next(iter(self._open.items()))
        if time.monotonic() - oldest.since < TENURE_SECONDS:
            return False
        self._end(key, 0)
        return True

    def _opened(self, training: Training) -> _Open:
        if training.key not in self._open:
            run = dashboard.start(self._place, _identity(training, self._group), self._folder)
            define_axes(run)
            self._open[training.key] = _Open(run=run, last=run.starting_step - 1, since=time.monotonic())
        self._open.move_to_end(training.key)
        return self._open[training.key]

    def _end(self, key: str, exit_code: int) -> None:
        run = self._open.pop(key).run
        folder = Path(run.settings.sync_dir)
        try:
            dashboard.finish(run, exit_code)
        finally:
            with suppress(OSError):
                shutil.rmtree(folder)


def sink(place: Place, store: Store, group: str, folder: Path) -> Sink:
    """For the place's mode.

    Args:
        folder: of this machine, for what wandb keeps of runs that are open.
    """
    return Online(place, group, folder) if place.mode == "online" else Offline(place, store, group)
