"""One trial of a tuning: a training that is measured on its way, on queries that are held out for that.

These are the dev queries, never the test queries, which tables and laws are made of.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workers import engine as ds
from workers import ranking
from workers.cgl import contest_losses, draw_contests
from workers.corpus.documents import load, query_splits
from workers.errors import Diverged
from workers.identifiers.sets import IdentifierSet
from workers.models.loss import IGNORED, pair_tensors
from workers.retrieval import Loaded, retrieve
from workers.settings import EvaluationSettings, LookSettings, ProcessGroup, TrainJob
from workers.tokenized import TokenizedCorpus
from workers.training import ALONE, plan_batches, train

DEV_PAIRS = 1024
"""Pairs (dev query, identifier) whose NLL is measured, at most."""
BATCH = 64
"""Of them in a forward pass."""
LARGEST_LOSS = 1000.0
"""Nats; what is not below it has diverged."""

Report = Callable[[float, float], None]
"""Called by rank 0 with the share of the training that is done and the loss then. May raise to end the trial."""


def trial(
    job: TrainJob,
    looks: LookSettings,
    report: Report,
    *,
    corpus: Path,
    tokenizer: Path,
    identifiers: Path,
    embeddings: Path | None = None,
    out: Path,
    group: ProcessGroup = ALONE,
) -> None:
    """Train, and report the dev queries' loss whenever a share of the optimizer steps is done that `looks` names.

    Every rank of `group` calls this with the same arguments. Raises what `workers.training.train` raises, and
    Diverged where the loss is no usable number.
    """
    dev = METRICS[looks.metric](corpus, tokenizer, identifiers, job, looks)
    steps = plan_batches(job.pairs, job.training, group.size).steps
    due = {max(1, round(share * steps)): share for share in looks.shares}  # the larger share where two fall together

    def look(done: int, engine: Any) -> None:
        if done not in due:
            return
        engine.eval()
        with torch.no_grad():
            loss = dev.loss(engine)
        engine.train()
        if not loss < LARGEST_LOSS:
            raise Diverged(f"the dev queries' loss is {loss} after step {done} of {steps}")
        if group.rank == 0:
            report(due[done], loss)

    train(
        job, tokenizer=tokenizer, identifiers=identifiers, embeddings=embeddings, out=out, group=group, after_step=look
    )


class DevSearch:
    """1 - RR@10 of the dev queries under the looks' budget."""

    def __init__(self, corpus: Path, tokenizer: Path, identifiers: Path, job: TrainJob, looks: LookSettings) -> None:
        assert looks.budget is not None
        self._corpus, self._budget, self._longest = load(corpus), looks.budget, job.training.query_length
        self._tokenized, self._ids = TokenizedCorpus.load(tokenizer), IdentifierSet.load(identifiers)
        self._qrels = {query.qid: set(query.docids) for query in self._corpus.split("dev")}

    def loss(self, engine: Any) -> float:
        """From 0, where every query finds a document of its own first, to 1."""
        with ds.whole_model(engine) as model:
            loaded = Loaded(
                model=model,
                corpus=self._corpus,
                tokenized=self._tokenized,
                ids=self._ids,
                query_length=self._longest,
            )
            answers = retrieve(loaded, EvaluationSettings(split="dev"), self._budget)
        return 1.0 - float(np.mean(ranking.measure(self._qrels, answers.run)["rr@10"]))


class DevPairs:
    """The mean NLL of a token of the dev queries' identifiers: of all, or of DEV_PAIRS drawn by the job's seed."""

    def __init__(self, corpus: Path, tokenizer: Path, identifiers: Path, job: TrainJob, looks: LookSettings) -> None:
        tokenized, ids = TokenizedCorpus.load(tokenizer), IdentifierSet.load(identifiers)
        rows = np.flatnonzero(np.isin(ids.held_out.source, _dev_queries(corpus)))
        if len(rows) > DEV_PAIRS:
            rows = np.random.default_rng(job.seed).choice(rows, size=DEV_PAIRS, replace=False)
        lengths = ids.held_out.sources.lengths[ids.held_out.source[rows]]
        self.pairs = ids.held_out.take(rows[np.argsort(lengths, kind="stable")])
        self._ends = ids.ends(self.pairs.view, _end(tokenized, job))
        self._longest = job.training.query_length

    def loss(self, engine: Any) -> float:
        """In nats. Every rank goes through all pairs, because under ZeRO stage 3 none has the whole model."""
        total, tokens = 0.0, 0
        for start in range(0, len(self.pairs), BATCH):
            rows = np.arange(start, min(start + BATCH, len(self.pairs)))
            pairs, ends = self.pairs, self._ends[rows]
            inputs = pair_tensors(pairs.sources, pairs.source[rows], pairs.target, rows, ends, self._longest)
            total += float(engine(*(tensor.to(engine.device) for tensor in inputs), 1.0))
            tokens += int((inputs[2] != IGNORED).sum())
        return total / tokens


class DevContests:
    """The mean CGL of the dev queries, as the score step measures that of the test queries."""

    def __init__(self, corpus: Path, tokenizer: Path, identifiers: Path, job: TrainJob, looks: LookSettings) -> None:
        self._ids = IdentifierSet.load(identifiers)
        self.contests = draw_contests(self._ids.held_out, _dev_queries(corpus), looks.negatives, job.seed)
        self._end, self._longest = _end(TokenizedCorpus.load(tokenizer), job), job.training.query_length

    def loss(self, engine: Any) -> float:
        """In nats. Under ZeRO stage 3 every rank has the whole model for as long as this takes."""
        with ds.whole_model(engine) as model:
            losses = contest_losses(model, self._ids, self.contests, self._end, self._longest)
        return float(losses.cgl.mean())


METRICS: dict[str, Callable[..., Any]] = {"dev_rr": DevSearch, "dev_cgl": DevContests, "dev_nll": DevPairs}


def _dev_queries(corpus: Path) -> np.ndarray:
    """Rows of the dev queries in the corpus' queries table."""
    return np.flatnonzero(np.array(query_splits(corpus)) == "dev")


def _end(tokenized: TokenizedCorpus, job: TrainJob) -> int:
    """The token behind a query."""
    return tokenized.mark if job.model.family == "llama" else tokenized.end
