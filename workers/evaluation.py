"""Evaluating a trained model: its CGL once, and its retrieval under each budget.

Steps of one training run back to back in one worker, which keeps the model and the index loaded between them.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from transformers import PreTrainedModel

from results.store import read_json, write_json
from workers import ranking
from workers.cgl import contest_losses, draw_contests
from workers.corpus.documents import Corpus, load
from workers.decoding.beam import Candidates, beam_search
from workers.decoding.evidence import EvidenceScorer, weigh
from workers.flops import inference_flops
from workers.identifiers.sets import IdentifierSet
from workers.memory import peak_bytes, reuse_freed_memory, start_peak
from workers.models import build
from workers.models.sessions import open_session
from workers.settings import Budget, EvaluationSettings, ScoreJob, SearchJob
from workers.tokenized import TokenizedCorpus
from workers.warm import keep


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A trained model with what it is evaluated on."""

    model: PreTrainedModel
    corpus: Corpus
    tokenized: TokenizedCorpus
    ids: IdentifierSet
    scorer: EvidenceScorer | None
    query_length: int
    """Where a query was cut in training, and is cut now."""

    @property
    def end(self) -> int:
        """The token behind a query."""
        return self.tokenized.end if self.model.config.is_encoder_decoder else self.tokenized.mark

    def queries(self, split: str) -> np.ndarray:
        """Rows of the corpus' queries table, the longest queries last."""
        rows = np.array([row for row, query in enumerate(self.corpus.queries) if query.split == split], dtype=np.int64)
        return rows[np.argsort(self.tokenized.queries.lengths[rows], kind="stable")]


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What retrieval gave for every query of a split."""

    run: dict[str, list[tuple[str, float]]]
    latency_ms: dict[str, float]
    flops: np.ndarray


def score(job: ScoreJob, *, corpus: Path, tokenizer: Path, identifiers: Path, train: Path, out: Path) -> None:
    """CGL in both forms and NLL, each with its interval; per query in `queries.parquet`."""
    loaded = load_trained(corpus, tokenizer, identifiers, train)
    began = time.perf_counter()
    settings = job.evaluation
    contests = draw_contests(
        loaded.ids.held_out, np.sort(loaded.queries(settings.split)), settings.negatives, settings.seed
    )
    losses = contest_losses(loaded.model, loaded.ids, contests, loaded.end, loaded.query_length)
    metrics: dict[str, Any] = {
        "cgl_chance": float(np.log1p(settings.negatives)),
        "cgl_published_chance": float(np.log1p(1 / settings.negatives)),
        "n_queries": len(contests),
    }
    values = {"cgl": losses.cgl, "cgl_published": losses.published, "nll": losses.nll}
    metrics |= ranking.summarise(values, settings.bootstrap, settings.seed)
    columns = {
        "query": [loaded.corpus.queries[contest.query].qid for contest in contests],
        "cgl": losses.cgl,
        "cgl_published_positive": losses.published_positive,
        "cgl_published_negative": losses.published_negative,
        "nll": losses.nll,
    }
    pq.write_table(pa.table(columns), out / "queries.parquet")
    write_json(out / "metrics.json", metrics | {"eval_seconds": time.perf_counter() - began})


def search(job: SearchJob, *, corpus: Path, tokenizer: Path, identifiers: Path, train: Path, out: Path) -> None:
    """Rank documents for every held-out query under one budget: metrics, per-query ranks, a TREC run file."""
    loaded = load_trained(corpus, tokenizer, identifiers, train)
    start_peak()
    began = time.perf_counter()
    settings = job.evaluation
    answers = retrieve(loaded, settings, job.budget)
    seconds = time.perf_counter() - began
    queries = loaded.corpus.split(settings.split)
    qrels = {query.qid: set(query.docids) for query in queries}
    metrics: dict[str, Any] = {
        "beams": job.budget.beams,
        "max_new_tokens": new_tokens(job.budget, loaded.ids),
        "n_queries": len(queries),
        "infer_flops_per_query": float(answers.flops.mean()),
        "latency_ms": float(np.median(list(answers.latency_ms.values()))),
        "queries_per_s": len(queries) / seconds,
        "eval_seconds": seconds,
        "peak_memory_bytes": peak_bytes(),
    }
    metrics |= ranking.summarise(ranking.measure(qrels, answers.run), settings.bootstrap, settings.seed)
    ranks = [ranking.first_relevant_rank(query.docids, answers.run[query.qid]) for query in queries]
    columns = {
        "query": [query.qid for query in queries],
        "rank": pa.array(ranks, pa.int64()),
        "latency_ms": [answers.latency_ms[query.qid] for query in queries],
    }
    pq.write_table(pa.table(columns), out / "queries.parquet")
    ranking.write_trec(out / "run.trec", answers.run, "gridlaw")
    write_json(out / "metrics.json", metrics)


def retrieve(loaded: Loaded, settings: EvaluationSettings, budget: Budget) -> Answers:
    """Search and rank in batches of queries of like length."""
    run: dict[str, list[tuple[str, float]]] = {}
    latency: dict[str, float] = {}
    flops: list[np.ndarray] = []
    rows = loaded.queries(settings.split)
    for start in range(0, len(rows), settings.batch):
        batch = rows[start : start + settings.batch]
        began = time.perf_counter()
        ends = np.full(len(batch), loaded.end)
        session = open_session(loaded.model, loaded.tokenized.queries, batch, ends, loaded.query_length)
        found = beam_search(session, loaded.ids.index, budget.beams, new_tokens(budget, loaded.ids))
        ranked = _rank(loaded, found.candidates, batch, budget.beams, settings)
        elapsed = 1000 * (time.perf_counter() - began) / len(batch)
        lengths = np.minimum(loaded.tokenized.queries.lengths[batch], loaded.query_length) + 1
        flops.append(inference_flops(build.shape_of(loaded.model), lengths, found.rows))
        for row, documents in zip(batch, ranked, strict=True):
            qid = loaded.corpus.queries[row].qid
            run[qid] = [(loaded.corpus.documents[document].docid, score) for document, score in documents]
            latency[qid] = elapsed
    return Answers(run=run, latency_ms=latency, flops=np.concatenate(flops))


def new_tokens(budget: Budget, ids: IdentifierSet) -> int:
    """How many tokens may be written. A whole identifier must fit where only whole ones count."""
    if ids.ranks_by == "identifier" or budget.max_new_tokens is None:
        return ids.max_length
    return budget.max_new_tokens


def load_trained(corpus: Path, tokenizer: Path, identifiers: Path, train: Path) -> Loaded:
    """Load once for all the budgets of a training: the worker keeps it until another is asked for or trained."""
    return keep((corpus, tokenizer, identifiers, train), lambda: _load(corpus, tokenizer, identifiers, train))


def _load(corpus: Path, tokenizer: Path, identifiers: Path, train: Path) -> Loaded:
    reuse_freed_memory()
    ids = IdentifierSet.load(identifiers)
    return Loaded(
        model=build.load(train / "weights"),
        corpus=load(corpus),
        tokenized=TokenizedCorpus.load(tokenizer),
        ids=ids,
        scorer=EvidenceScorer(ids.index) if ids.ranks_by == "evidence" else None,
        query_length=read_json(train / "metrics.json")["query_length"],
    )


def _rank(
    loaded: Loaded, candidates: Candidates, batch: np.ndarray, beams: int, settings: EvaluationSettings
) -> list[list[tuple[int, float]]]:
    """(document, score) of each query of the batch, best first, at most `settings.depth`."""
    ranked = []
    index = loaded.ids.index
    for place, row in enumerate(batch):
        chosen = np.flatnonzero(candidates.query == place)
        if loaded.scorer is not None:
            evidence = weigh(candidates, chosen, len(index.tokens) - len(loaded.corpus.documents))
            rng = np.random.default_rng([settings.seed, int(row)])
            documents, scores = loaded.scorer.rank(evidence, settings.depth, rng)
        else:
            chosen = chosen[candidates.complete[chosen]]
            best = chosen[np.argsort(-candidates.score[chosen], kind="stable")[:beams]][: settings.depth]
            documents, scores = index.row_of(index.order[candidates.lo[best]]), candidates.score[best]
        ranked.append(list(zip(documents.tolist(), scores.tolist(), strict=True)))
    return ranked
