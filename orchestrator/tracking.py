"""Weights & Biases: one run a training with its curve, its evaluations as a table.

A thread of its own writes finished trainings from a bounded queue; where W&B is slow or broken, trainings
are left out and counted, and the sweep goes on. Nothing is printed or asked.
"""

import json
import netrc
import os
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlparse

from orchestrator.grid import Loaded, Tracking
from orchestrator.rows import budget_name
from results import files
from results.store import Store

QUEUE = 1000
"""Trainings that may wait to be written."""
PATIENCE_SECONDS = 20.0
"""How long the end of a sweep waits for W&B to make progress before it leaves the rest out."""
CONFIG = (
    "grid",
    "corpus",
    "corpus_hash",
    "n_documents",
    "identifiers",
    "family",
    "model",
    "init",
    "seed",
    "n_params",
    "n_total",
    "n_embedding",
    "d_pairs",
    "d_tokens",
    "epochs",
    "learning_rate",
    "zero_stage",
    "workers",
)
"""Columns of a row that are the same for all trials of a training: what dashboards group by."""
BUDGET = ("beams", "max_new_tokens", "views", "samples", "temperature", "rerank")
MEASURED = ("hit@1", "hit@10", "hit@100", "rr@10", "ndcg@10", "latency_ms", "queries_per_s")


@dataclass(frozen=True, kw_only=True)
class Training:
    """What is written of one training: its key is the W&B run's id."""

    key: str
    name: str
    config: Mapping[str, Any]
    curve: Sequence[Mapping[str, Any]]
    rows: Sequence[Mapping[str, Any]]
    """Rows of its trials."""
    tags: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class _Tracked:
    """What W&B has of a training."""

    trials: frozenset[str] = frozenset()
    """Those that are done."""
    curve: bool = False
    """Whether the whole curve was logged."""


def mode_of(settings: Tracking) -> str:
    """`online`, `offline` or `off`. `auto` does what WANDB_MODE says, but never asks for a key."""
    if settings.wandb != "auto":
        return settings.wandb
    said = os.environ.get("WANDB_MODE", "").lower()
    if said in ("disabled", "offline"):
        return "off" if said == "disabled" else "offline"
    has_key = _has_key() if said == "online" else bool(os.environ.get("WANDB_API_KEY"))
    return "online" if has_key else "offline"


def check(loaded: Loaded) -> None:
    """Raises BadInput where W&B would have to ask for a key."""
    if loaded.grid.tracking.wandb == "online" and not _has_key():
        raise loaded.source.error(("tracking", "wandb"), "online needs WANDB_API_KEY to be set")


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        return host is not None and netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


class Tracker:
    """Hands trainings to the thread. Use as a context; `report` says what was left out."""

    def __init__(self, settings: Tracking, store: Store, group: str) -> None:
        self._settings, self._store, self._group = settings, store, group
        self._mode = mode_of(settings)
        self._queue: queue.Queue[Training] = queue.Queue(maxsize=QUEUE)
        self._thread: threading.Thread | None = None
        self._left_out = 0
        self._reason = ""
        self._last_progress = time.monotonic()

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, *exception: object) -> None:
        """Wait for the queue as long as it moves."""
        if self._thread is None:
            return
        if exception[0] is None:
            self._last_progress = time.monotonic()
            while self._thread.is_alive() and time.monotonic() - self._last_progress < PATIENCE_SECONDS:
                if self._queue.unfinished_tasks == 0:
                    break
                time.sleep(0.05)
        self._left_out += self._queue.unfinished_tasks
        if self._queue.unfinished_tasks:
            self._reason = self._reason or "W&B was too slow"

    def wants(self, key: str, trials: Sequence[str]) -> bool:
        """Whether a training is to be written: not where all of its trials have been before."""
        return self._mode != "off" and not set(trials) <= self._tracked(key).trials

    def put(self, training: Training) -> None:
        """Take in a training whose evaluations have ended."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
            self._thread.start()
        try:
            self._queue.put_nowait(training)
        except queue.Full:
            self._left_out += 1
            self._reason = self._reason or "W&B was too slow"

    def report(self) -> str:
        """One line on what was left out; nothing where all is well."""
        if not self._left_out:
            return ""
        return f"tracking: {self._left_out} trainings are not in W&B: {self._reason}"

    def _marker(self, key: str) -> str:
        return f"{self._group}/wandb/tracked/{key}.json"

    def _tracked(self, key: str) -> "_Tracked":
        try:
            found = json.loads(self._store.read_text(self._marker(key)))
            return _Tracked(trials=frozenset(found["trials"]), curve=bool(found["curve"]))
        except (FileNotFoundError, ValueError, KeyError):
            return _Tracked()

    def _work(self) -> None:
        while True:
            training = self._queue.get()
            try:
                self._write(training)
            except Exception as error:  # whatever W&B raises, the sweep goes on; `report` tells
                self._left_out += 1
                self._reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            finally:
                self._last_progress = time.monotonic()
                self._queue.task_done()

    def _write(self, training: Training) -> None:
        import wandb

        before = self._tracked(training.key)
        folder = self._store.local_folder(self._group)
        folder.mkdir(parents=True, exist_ok=True)
        run = wandb.init(
            project=self._settings.project,
            entity=self._settings.entity,
            id=training.key,
            name=training.name,
            group=self._group,
            tags=tuple(tag[:64] for tag in training.tags),
            config=dict(training.config),
            dir=str(folder),
            mode="online" if self._mode == "online" else "offline",
            resume="allow" if self._mode == "online" else None,
            reinit="create_new",
            settings=wandb.Settings(
                silent=True, console="off", quiet=True, disable_git=True, save_code=False, x_disable_stats=True
            ),
        )
        if not before.curve:
            for line in training.curve:
                values = {name: line[name] for name in ("pairs", "loss", "learning_rate", "gradient_norm")}
                run.log(values, step=line["step"])
        done = [row for row in training.rows if row["status"] == "done"]
        columns = BUDGET + MEASURED
        figures = [[row.get(name) for name in columns] for row in done]
        run.log({"evaluations": wandb.Table(columns=[*columns], data=figures)})
        for row in done:
            run.summary.update({f"{budget_name(row)}/{one}": row.get(one) for one in MEASURED})
            run.summary.update({name: row.get(name) for name in ("cgl", "cgl_published", "nll", "n_params", "d_pairs")})
        run.finish(exit_code=0 if len(done) == len(training.rows) else 1)
        trials = sorted({row["trial"] for row in done} | before.trials)
        # An evaluation that is done says that the curve is whole; a failed training's is logged again.
        marker = files.as_json({"trials": trials, "curve": before.curve or bool(done)})
        self._store.write_text(self._marker(training.key), marker)
