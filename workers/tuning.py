"""One trial of a tuning: a training that is looked at on its way, on queries that are held out for that.

Looked at: the dev queries, never the test queries, which tables and laws are made of.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workers.corpus.documents import query_splits
from workers.errors import Diverged
from workers.identifiers.sets import IdentifierSet
from workers.models.loss import IGNORED, pair_tensors
from workers.settings import ProcessGroup, TrainJob
from workers.tokenized import TokenizedCorpus
from workers.training import ALONE, plan_batches, train

DEV_PAIRS = 1024
"""Pairs (dev query, identifier) that a trial is judged by, at most."""
BATCH = 64
"""Of them in a forward pass."""
LARGEST_NLL = 1000.0
"""Nats a token; what is not below it has diverged."""

Report = Callable[[float, float], None]
"""Called by rank 0 with the share of the training that is done and the dev queries' NLL. May raise to end the trial."""


def trial(
    job: TrainJob,
    shares: Sequence[float],
    report: Report,
    *,
    corpus: Path,
    tokenizer: Path,
    identifiers: Path,
    embeddings: Path | None = None,
    out: Path,
    group: ProcessGroup = ALONE,
) -> None:
    """Train and report at each of the `shares` (rising, in (0, 1]) of the optimizer steps.

    Every rank of `group` calls this with the same arguments. Raises what `workers.training.train` raises, and
    Diverged where the dev queries' NLL is not a usable number.
    """
    dev = DevPairs(corpus, tokenizer, identifiers, job)
    steps = plan_batches(job.pairs, job.training, group.size).steps
    looked_at = {max(1, round(share * steps)): share for share in shares}  # the larger share where two fall together

    def look(done: int, engine: Any) -> None:
        if done in looked_at:
            nll = dev.nll(engine)
            if group.rank == 0:
                report(looked_at[done], nll)

    train(
        job, tokenizer=tokenizer, identifiers=identifiers, embeddings=embeddings, out=out, group=group, after_step=look
    )


class DevPairs:
    """Identifiers of the dev queries: all of them, or DEV_PAIRS drawn by the job's seed."""

    def __init__(self, corpus: Path, tokenizer: Path, identifiers: Path, job: TrainJob) -> None:
        tokenized, ids = TokenizedCorpus.load(tokenizer), IdentifierSet.load(identifiers)
        is_dev = np.array(query_splits(corpus)) == "dev"
        rows = np.flatnonzero(is_dev[ids.held_out.source])
        if len(rows) > DEV_PAIRS:
            rows = np.random.default_rng(job.seed).choice(rows, size=DEV_PAIRS, replace=False)
        lengths = ids.held_out.sources.lengths[ids.held_out.source[rows]]
        self.pairs = ids.held_out.take(rows[np.argsort(lengths, kind="stable")])
        self._ends = ids.ends(self.pairs.view, tokenized.mark if job.model.family == "llama" else tokenized.end)
        self._longest = job.training.query_length

    def nll(self, engine: Any) -> float:
        """Mean NLL of an identifier's token under the engine's model as it is now, in nats.

        Every rank goes through all pairs, because under ZeRO stage 3 none has the whole model. Raises Diverged.
        """
        total, tokens = 0.0, 0
        engine.eval()
        with torch.no_grad():
            for start in range(0, len(self.pairs), BATCH):
                rows = np.arange(start, min(start + BATCH, len(self.pairs)))
                inputs = pair_tensors(
                    self.pairs.sources,
                    self.pairs.source[rows],
                    self.pairs.target,
                    rows,
                    self._ends[rows],
                    self._longest,
                )
                count = int((inputs[2] != IGNORED).sum())
                total += float(engine(*(tensor.to(engine.device) for tensor in inputs))) * count
                tokens += count
        engine.train()
        mean = total / tokens if tokens else math.nan
        if not mean < LARGEST_NLL:
            raise Diverged(f"the NLL of the dev queries' identifiers is {mean}")
        return mean
