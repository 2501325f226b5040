"""Stand-ins for the worker functions, so that sweeps are tested in seconds: they write files of the right form.

A training's seed chooses its fate: 13 diverges, 14 breaks on its first attempt, 15 is killed on its first; of 16
and 18 rank 1 is killed on its first, where rank 0 of 18 notices; 17 logs a step and is killed, always. A search
with 7 beams is killed on its first. A trial of a tuning is best with a learning rate of 0.01, and diverges above 0.05;
with the seed 13 all do, with 14 all break, with 15 each takes a second. As with torch, a process that has joined a
group keeps it, and a group works only while all of its members live.
"""

import json
import math
import os
import signal
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from workers.errors import Diverged
from workers.settings import ProcessGroup

JOBS = {
    "corpus": "sweep_jobs:corpus",
    "tokenizer": "sweep_jobs:prepare",
    "embeddings": "sweep_jobs:prepare",
    "identifiers": "sweep_jobs:prepare",
    "baselines": "sweep_jobs:baselines",
    "tune": "sweep_jobs:trial",
    "train": "sweep_jobs:train",
    "score": "sweep_jobs:score",
    "search": "sweep_jobs:search",
}

joined: list[str] = []
"""Groups that this process was asked to join; it is in the first."""


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


def corpus(settings: Any, *, out: Path) -> None:
    queries = {"train": 100, "dev": settings.dev, "test": settings.test}
    _write(out / "summary.json", {"name": "tiny", "hash": "h", "documents": 9, "queries": queries, "train_pairs": 100})


def prepare(settings: Any, *, out: Path, **needs: Path) -> None:
    assert all(folder.is_dir() for folder in needs.values())
    _write(out / "made.json", sorted(needs))


def baselines(settings: Any, *, corpus: Path, tokenizer: Path, out: Path) -> None:
    _write(out / "baselines.json", [{"baseline": "random", "n_documents": 9, "n_queries": 3, "hit@10": 0.1}])


def _join(out: Path, group: ProcessGroup, notices: bool) -> None:
    """Returns when all ranks have come; an error where they do not belong to the same group."""
    joined.append(group.address or "alone")
    meeting = joined[-1].rpartition(":")[2]
    (out / f"rank{group.rank}-{meeting}.new").write_text(joined[0])
    (out / f"rank{group.rank}-{meeting}.new").rename(out / f"rank{group.rank}-{meeting}")
    if group.rank:
        return
    marks = [out / f"rank{rank}-{meeting}" for rank in range(group.size)]
    while not all(mark.exists() for mark in marks):  # as a collective would wait
        time.sleep(0.01)
        if notices and (out / "killed").exists() and (out / "killed").read_text() == group.address:
            raise RuntimeError("connection closed by peer")
    if len({mark.read_text() for mark in marks}) > 1:
        raise RuntimeError("a stale process group")


def trial(settings: Any, looks: Any, report: Any, *, out: Path, corpus: Path, **more: Any) -> None:
    rate = settings.training.learning_rate
    with (corpus.parents[2] / "trials.log").open("a") as log:
        log.write(f"{rate}\n")
    if settings.seed == 14:
        raise RuntimeError(f"broken\nwith {rate}")
    for share in looks.shares:
        time.sleep(0.5 if settings.seed == 15 else 0.0)
        if settings.seed == 13 or rate > 0.05:
            raise Diverged("loss is nan")
        report(share, 3.0 - share + (math.log(rate / 0.01) / 2) ** 2)


def train(
    settings: Any, *, tokenizer: Path, identifiers: Path, embeddings: Path | None = None, out: Path, **more: Any
) -> None:
    group: ProcessGroup = more.get("group", ProcessGroup())
    print(f"training, rank {group.rank}")
    first = not (out / "tried").exists()
    (out / "tried").touch()
    if settings.seed == 13:
        raise Diverged("loss is nan at step 1")
    if settings.seed == 14 and first:
        raise RuntimeError("broken once")
    if settings.seed == 15 and first:
        os.kill(os.getpid(), signal.SIGKILL)
    if settings.seed in (16, 18) and group.rank == 1 and not (out / "killed").exists():
        (out / "killed").write_text(str(group.address))
        os.kill(os.getpid(), signal.SIGKILL)
    _join(out, group, notices=settings.seed == 18)
    if group.rank:
        return
    line = {"step": 1, "steps": 1, "pairs": 2, "loss": 3.0, "learning_rate": 0.1, "gradient_norm": 1.0, "seconds": 0.1}
    (out / "curve.jsonl").write_text(json.dumps(line) + "\n")
    (out / "weights").mkdir(exist_ok=True)
    _write(out / "weights" / "config.json", {})
    if settings.seed == 17:
        os.kill(os.getpid(), signal.SIGKILL)
    metrics = {"n_params": 10, "n_total": 20, "d_pairs": settings.pairs, "train_seconds": 0.1, "peak_memory_bytes": 5}
    _write(out / "metrics.json", metrics)


def score(settings: Any, *, corpus: Path, tokenizer: Path, identifiers: Path, train: Path, out: Path) -> None:
    assert (train / "metrics.json").exists()
    _write(out / "metrics.json", {"cgl": 1.5, "cgl_chance": 2.0, "eval_seconds": 0.25, "n_queries": 2})
    pq.write_table(pa.table({"query": ["a", "b"], "cgl": [1.0, 2.0]}), out / "queries.parquet")


def search(settings: Any, *, corpus: Path, tokenizer: Path, identifiers: Path, train: Path, out: Path) -> None:
    if settings.budget.beams == 7 and not (out / "killed").exists():
        (out / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    metrics = {"hit@10": 0.1 * settings.budget.beams, "beams": settings.budget.beams, "eval_seconds": 0.5}
    metrics["max_new_tokens"] = settings.budget.max_new_tokens or 8
    _write(out / "metrics.json", metrics | {"n_queries": 2, "peak_memory_bytes": 7})
    pq.write_table(pa.table({"query": ["b", "a"], "rank": [1, None]}), out / "queries.parquet")
    (out / "run.trec").write_text("a Q0 d 1 1.0 x\n")
