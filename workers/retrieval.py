"""Retrieval with a trained model: search in each view, then from what was written to ranked documents."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from results.files import read_json
from workers import reranking
from workers.corpus.documents import Corpus, load
from workers.decoding.beam import Candidates, Search, SearchResult, beam_search
from workers.decoding.device_beam import beam_search_on_device
from workers.decoding.evidence import EvidenceScorer, RowsOfDocuments, least_evidence
from workers.decoding.naming import rank_named
from workers.decoding.sampling import Sampling, sample
from workers.decoding.torch_step import DeviceIndex
from workers.decoding.view import View
from workers.errors import BadInput
from workers.flops import inference_flops
from workers.identifiers.sets import IdentifierSet
from workers.memory import reuse_freed_memory, search_limit
from workers.models import build
from workers.models.sessions import ScoringSession, open_session
from workers.reranking import Ranking
from workers.search_memory import SearchMemory
from workers.settings import Budget, EvaluationSettings
from workers.stopping import stop_here
from workers.tokenized import TokenizedCorpus
from workers.warm import keep


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A trained model with what it is evaluated on."""

    model: PreTrainedModel
    corpus: Corpus
    tokenized: TokenizedCorpus
    ids: IdentifierSet
    query_length: int
    """Where a query was cut in training, and is cut now."""

    @property
    def end(self) -> int:
        """The token behind a query."""
        return self.tokenized.end if self.model.config.is_encoder_decoder else self.tokenized.mark

    @cached_property
    def scorer(self) -> EvidenceScorer:
        """For identifiers that rank by evidence."""
        return EvidenceScorer(self.ids.views, len(self.corpus.documents))

    @cached_property
    def rows_of(self) -> list[RowsOfDocuments]:
        """Rows of a document, by view."""
        return [RowsOfDocuments(view.documents) for view in self.ids.views]

    @cached_property
    def device_indexes(self) -> list[DeviceIndex]:
        """The views' indexes where the model is."""
        return [DeviceIndex.of(view.index, self.model.device) for view in self.ids.views]

    def queries(self, split: str) -> np.ndarray:
        """Rows of the corpus' queries table, the longest queries last."""
        rows = np.array([row for row, query in enumerate(self.corpus.queries) if query.split == split], dtype=np.int64)
        return rows[np.argsort(self.tokenized.queries.lengths[rows], kind="stable")]

    def prompt_lengths(self, rows: np.ndarray) -> np.ndarray:
        """Tokens that the model reads of the given queries."""
        return np.minimum(self.tokenized.queries.lengths[rows], self.query_length) + 1


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What retrieval gave for every query of a split."""

    run: dict[str, list[tuple[str, float]]]
    latency_ms: dict[str, float]
    flops: np.ndarray
    """float64 (queries,): of every query, the shortest first."""
    batch: int
    """Queries that were decoded together."""


def load_trained(corpus: Path, tokenizer: Path, identifiers: Path, train: Path) -> Loaded:
    """Load once for all the budgets of a training: the worker keeps it until another is asked for or trained.

    Raises BadInput where the training's weights were dropped.
    """
    return keep((corpus, tokenizer, identifiers, train), lambda: _load(corpus, tokenizer, identifiers, train))


def _load(corpus: Path, tokenizer: Path, identifiers: Path, train: Path) -> Loaded:
    if not (train / "weights").is_dir():
        raise BadInput(
            f"training.keep_weights: the weights of the training {train.name} were dropped when its evaluations had "
            "been done; to evaluate it again it must be trained again, with keep_weights: true"
        )
    reuse_freed_memory()
    return Loaded(
        model=build.load(train / "weights"),
        corpus=load(corpus),
        tokenized=TokenizedCorpus.load(tokenizer),
        ids=IdentifierSet.load(identifiers),
        query_length=read_json(train / "metrics.json")["query_length"],
    )


def retrieve(loaded: Loaded, settings: EvaluationSettings, budget: Budget) -> Answers:
    """Search and rank in batches of queries of like length. Raises Interrupted between two of them when asked to."""
    run: dict[str, list[tuple[str, float]]] = {}
    latency: dict[str, float] = {}
    flops: list[np.ndarray] = []
    rows = loaded.queries(settings.split)
    size = batch_size(loaded, settings, budget)
    for start in range(0, len(rows), size):
        stop_here(f"searching, {start} of {len(rows)} queries done")
        batch = rows[start : start + size]
        began = time.perf_counter()
        ranked, cost = _answer(loaded, settings, budget, batch)
        elapsed = 1000 * (time.perf_counter() - began) / len(batch)
        flops.append(cost)
        for row, (documents, scores) in zip(batch, ranked, strict=True):
            qid = loaded.corpus.queries[row].qid
            docids = [loaded.corpus.documents[document].docid for document in documents]
            run[qid] = list(zip(docids, scores.tolist(), strict=True))
            latency[qid] = elapsed
    return Answers(run=run, latency_ms=latency, flops=np.concatenate(flops), batch=size)


def batch_size(loaded: Loaded, settings: EvaluationSettings, budget: Budget) -> int:
    """Queries that are decoded together: as asked for, else as many as memory allows by the formula.

    Where both a batch and a limit to memory are given, the smaller of the two.
    """
    if settings.batch is not None and settings.memory_mb is None:
        return settings.batch
    views = [loaded.ids.views[number] for number in searched(loaded.ids, budget)]
    memory = SearchMemory(
        shape=build.shape_of(loaded.model),
        prompt=int(loaded.prompt_lengths(loaded.queries(settings.split)).max(initial=1)),
        new_tokens=max(new_tokens(budget, view) if budget.rerank is None else view.max_length for view in views),
        value_bytes=loaded.model.dtype.itemsize,
        device=loaded.model.device.type,
    )
    limit = search_limit(settings.memory_mb)
    rows = max(budget.beams or 0, budget.samples or 0)
    if budget.rerank is not None:
        each = 1 if loaded.ids.ranks_by == "evidence" else max(view.most_rows for view in views)
        rows = max(rows, budget.rerank * each)
    held = 1 if budget.rerank is None else len(views)  # encoded queries are kept to rank again
    allowed = memory.queries(rows, limit // held)
    return allowed if settings.batch is None else min(allowed, settings.batch)


def searched(ids: IdentifierSet, budget: Budget) -> list[int]:
    """Numbers of the views that a budget searches."""
    return [number for number, view in enumerate(ids.views) if budget.views is None or view.name in budget.views]


def new_tokens(budget: Budget, view: View) -> int:
    """How many tokens may be written: the view's longest identifier, or fewer where the budget has fewer."""
    return min(budget.max_new_tokens or view.max_length, view.max_length)


def _answer(
    loaded: Loaded, settings: EvaluationSettings, budget: Budget, batch: np.ndarray
) -> tuple[list[Ranking], np.ndarray]:
    """The ranking of each query of a batch, and its FLOPs, float64 (queries,)."""
    shape, lengths = build.shape_of(loaded.model), loaded.prompt_lengths(batch)
    flops = np.zeros(len(batch))
    sessions: list[ScoringSession | None] = [None] * len(loaded.ids.views)
    candidates: list[Candidates | None] = [None] * len(loaded.ids.views)
    for number in searched(loaded.ids, budget):
        session = _open(loaded, loaded.ids.views[number], batch)
        if budget.rerank is not None:
            sessions[number] = session
        found = _write(loaded, settings, budget, number, session, batch)
        candidates[number] = found.candidates
        flops += inference_flops(shape, lengths, found.rows)
    ranked = [_rank(loaded, settings, budget, candidates, place, row) for place, row in enumerate(batch.tolist())]
    if budget.rerank is not None:
        identifiers = _in_full(loaded, budget.rerank, candidates, ranked)
        ranked, passes = reranking.rerank(loaded.ids, identifiers, sessions, ranked)
        for rows in passes:
            if rows is not None:
                flops += inference_flops(shape, lengths, rows) - inference_flops(shape, lengths, rows[:, :1])
    return ranked, flops


def _open(loaded: Loaded, view: View, batch: np.ndarray) -> ScoringSession:
    ends = np.full(len(batch), loaded.end if view.marker is None else view.marker)
    return open_session(loaded.model, loaded.tokenized.queries, batch, ends, loaded.query_length)


def _write(
    loaded: Loaded,
    settings: EvaluationSettings,
    budget: Budget,
    number: int,
    session: ScoringSession,
    batch: np.ndarray,
) -> SearchResult:
    """Search in one view, or sample from it."""
    view = loaded.ids.views[number]
    if budget.samples is not None:
        sampling = Sampling(
            samples=budget.samples, temperature=budget.temperature, max_new_tokens=new_tokens(budget, view)
        )
        generators = [np.random.default_rng([settings.seed, row, 1 + number]) for row in batch.tolist()]
        return sample(session, view.index, sampling, generators)
    assert budget.beams is not None
    by_evidence = loaded.ids.ranks_by == "evidence"
    search = Search(
        beams=budget.beams,
        max_new_tokens=new_tokens(budget, view),
        floor=least_evidence(view.index.token_count) if by_evidence else -np.inf,
        wanted=None if by_evidence or new_tokens(budget, view) < view.max_length else budget.beams,
    )
    if session.first.device.type == "cpu":
        return beam_search(session, view.index, search)
    return beam_search_on_device(session, loaded.device_indexes[number], search)


def _rank(
    loaded: Loaded,
    settings: EvaluationSettings,
    budget: Budget,
    candidates: Sequence[Candidates | None],
    place: int,
    row: int,
) -> Ranking:
    """One query's documents, at most `settings.depth`. Ties are broken at random, seeded."""
    rng = np.random.default_rng([settings.seed, row])
    if loaded.ids.ranks_by == "evidence":
        return loaded.scorer.rank(candidates, place, settings.depth, rng)
    most = [new_tokens(budget, view) for view in loaded.ids.views]
    return rank_named(loaded.ids.views, candidates, most, budget.beams, place, settings.depth, rng)


def _in_full(
    loaded: Loaded, most: int, candidates: Sequence[Candidates | None], ranked: Sequence[Ranking]
) -> reranking.Identifiers:
    if loaded.ids.ranks_by == "evidence":
        return reranking.evident_spans(loaded.scorer, candidates, ranked, most)
    there = [None if each is None else rows for each, rows in zip(candidates, loaded.rows_of, strict=True)]
    return reranking.whole_identifiers(loaded.ids.views, there, ranked, most)
