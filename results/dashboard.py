"""Runs in Weights & Biases, as sweeps and laws write them: quiet, bounded in time, with nothing of this machine.

wandb prints, asks for keys, sends host, user, paths and environment, and waits for uploads as long as it takes;
none of this happens here. An offline run becomes a folder that says all by itself: `wandb sync` finds it on any
machine, because no table or file of it lies in wandb's own folders under the user's home.
"""

import netrc
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlparse

if TYPE_CHECKING:
    import wandb

Mode = Literal["online", "offline", "off"]
START_SECONDS = 15.0
"""How long W&B may take to create or resume a run."""
FINISH_SECONDS = 15.0
"""How long it may take to receive the rest of a run that ends."""
LONGEST_ID = 64
LONGEST_TAG = 64
_GAVE_UP = b"filestream: fatal error"
"""What wandb writes into a run's log when the service has refused its history for good; it raises nothing."""
_SECRETS = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")


class NotTaken(RuntimeError):
    """The service has not taken all of a run."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where runs go."""

    mode: Mode
    project: str
    entity: str | None = None


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a run is known by."""

    id: str
    """The same id is the same run, whoever writes it. At most 64 characters."""
    name: str
    group: str
    job_type: str
    tags: Sequence[str] = ()
    config: Mapping[str, Any] = field(default_factory=dict)


def mode_of(wanted: str) -> Mode:
    """What `auto`, `online`, `offline` or `off` comes to.

    `auto` does what WANDB_MODE says, but never asks for a key: without one, runs are offline. Where WANDB_MODE says
    nothing, they are online if WANDB_API_KEY is set.
    """
    if wanted in ("online", "offline", "off"):
        return wanted  # type: ignore[return-value]
    said = os.environ.get("WANDB_MODE", "").lower()
    if said in ("disabled", "offline"):
        return "off" if said == "disabled" else "offline"
    return "online" if (has_key() if said == "online" else bool(os.environ.get("WANDB_API_KEY"))) else "offline"


def has_key() -> bool:
    """Whether there is a key for the service, in the environment or in ~/.netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        return host is not None and netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def why(error: BaseException) -> str:
    """An exception in one line, without what must not be shown."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    for name in _SECRETS:
        if secret := os.environ.get(name):
            text = text.replace(secret, f"<{name}>")
    return text[:300]


def start(place: Place, identity: Identity, folder: Path) -> "wandb.Run":
    """Create a run, or, online, go on with the one of this id; its files lie below `folder`.

    Online, `starting_step` is the first step that the service lacks; what is logged before it is left out there.

    Raises:
        Exception: whatever wandb raises where the service cannot be reached or refuses, within START_SECONDS.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # crash reports name the host
    import wandb

    settings: dict[str, Any] = {"console": "off", "silent": True, "quiet": True, "disable_git": True}
    settings |= {"save_code": False, "disable_code": True, "program": "gridlaw", "host": "", "email": ""}
    settings |= {"x_disable_stats": True, "x_disable_meta": True, "x_disable_machine_info": True}
    settings |= {"x_save_requirements": False, "init_timeout": START_SECONDS}
    settings |= {"finish_timeout": FINISH_SECONDS, "finish_timeout_raises": True}
    wandb.setup(wandb.Settings(silent=True))
    return wandb.init(
        project=place.project,
        entity=place.entity,
        id=identity.id,
        name=identity.name,
        group=identity.group,
        job_type=identity.job_type,
        tags=tuple(tag[:LONGEST_TAG] for tag in identity.tags),
        config=dict(identity.config),
        dir=str(folder),
        mode="online" if place.mode == "online" else "offline",
        resume="allow" if place.mode == "online" else None,
        reinit="create_new",
        settings=wandb.Settings(**settings),
    )


def finish(run: "wandb.Run", exit_code: int) -> None:
    """End a run and wait until the service has it.

    Raises:
        TimeoutError: it has not within FINISH_SECONDS.
        NotTaken: it has refused something for good.
    """
    folder = Path(run.settings.sync_dir)
    run.finish(exit_code=exit_code)
    for log in (folder / "logs").glob("*.log"):
        if _GAVE_UP in log.read_bytes():
            raise NotTaken("W&B has refused some of the run")


def stop() -> None:
    """End wandb's own process, and all runs that are open; within FINISH_SECONDS. Another `start` starts it again."""
    if "wandb" not in sys.modules:
        return
    import wandb

    with suppress(Exception, SystemExit):  # it reports what the service refused; the caller knows
        wandb.teardown()


def log_table(
    run: "wandb.Run",
    key: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    step: int,
    commit: bool = True,
) -> None:
    """Log a table as a file of the run; a step that is not committed takes more.

    `run.log` alone would make an artifact of it too: seven more requests, and, offline, a file under the user's home
    that the run's folder refers to.
    """
    import wandb

    table = wandb.Table(columns=list(columns), data=[list(row) for row in rows], allow_mixed_types=True)
    table.bind_to_run(run, key, step)
    run.log({key: table}, step=step, commit=commit)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder of this machine for what wandb keeps while it writes."""
    folder = tempfile.mkdtemp(prefix="gridlaw-wandb-")
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def written_offline(place: Place, identity: Identity, write: Callable[["wandb.Run"], int]) -> Iterator[Path]:
    """The folder of a new offline run, for as long as the block lasts.

    `wandb sync` sends folders of the same id one after another, in the order in which they were begun, each after
    what the service has. So a run that goes on in another folder must hold only what is new there.

    Args:
        write: fills the run; returns its exit code.
    """
    with scratch() as where:
        run = start(place, identity, where)
        try:
            code = write(run)
        except BaseException:
            with suppress(Exception):
                run.finish(exit_code=1)
            raise
        folder = Path(run.settings.sync_dir)
        finish(run, code)
        yield folder


def parts(folder: Path) -> list[str]:
    """Names of the files that an offline run is made of; the one that makes it a run comes last."""
    files = [path for path in sorted((folder / "files").rglob("*")) if path.is_file()]
    return [str(path.relative_to(folder)) for path in (*files, *folder.glob("*.wandb"))]
