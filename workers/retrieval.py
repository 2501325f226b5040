"""Retrieval with a trained model: search in each view, then from what was written to ranked documents."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from results.store import read_json
from workers.corpus.documents import Corpus, load
from workers.decoding.beam import Candidates, Search, beam_search
from workers.decoding.evidence import EvidenceScorer
from workers.decoding.view import View
from workers.flops import inference_flops
from workers.identifiers.sets import IdentifierSet
from workers.models import build
from workers.models.sessions import open_session
from workers.settings import Budget, EvaluationSettings
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


def load_trained(corpus: Path, tokenizer: Path, identifiers: Path, train: Path) -> Loaded:
    """Load once for all the budgets of a training: the worker keeps it until another is asked for or trained."""
    return keep((corpus, tokenizer, identifiers, train), lambda: _load(corpus, tokenizer, identifiers, train))


def _load(corpus: Path, tokenizer: Path, identifiers: Path, train: Path) -> Loaded:
    ids = IdentifierSet.load(identifiers)
    texts = load(corpus)
    return Loaded(
        model=build.load(train / "weights"),
        corpus=texts,
        tokenized=TokenizedCorpus.load(tokenizer),
        ids=ids,
        scorer=EvidenceScorer(ids.views, len(texts.documents)) if ids.ranks_by == "evidence" else None,
        query_length=read_json(train / "metrics.json")["query_length"],
    )


def retrieve(loaded: Loaded, settings: EvaluationSettings, budget: Budget) -> Answers:
    """Search and rank in batches of queries of like length."""
    run: dict[str, list[tuple[str, float]]] = {}
    latency: dict[str, float] = {}
    flops: list[np.ndarray] = []
    rows = loaded.queries(settings.split)
    for start in range(0, len(rows), settings.batch):
        batch = rows[start : start + settings.batch]
        began = time.perf_counter()
        found = [_search(loaded, view, batch, budget) for view in loaded.ids.views]
        candidates = [each for each, _ in found]
        ranked = [_rank(loaded, candidates, place, int(row), settings) for place, row in enumerate(batch)]
        elapsed = 1000 * (time.perf_counter() - began) / len(batch)
        flops.append(np.sum([cost for _, cost in found], axis=0))
        for row, (documents, scores) in zip(batch, ranked, strict=True):
            qid = loaded.corpus.queries[row].qid
            docids = [loaded.corpus.documents[document].docid for document in documents]
            run[qid] = list(zip(docids, scores.tolist(), strict=True))
            latency[qid] = elapsed
    return Answers(run=run, latency_ms=latency, flops=np.concatenate(flops))


def _search(loaded: Loaded, view: View, batch: np.ndarray, budget: Budget) -> tuple[Candidates, np.ndarray]:
    """What was written in one view, and the FLOPs of each query."""
    ends = np.full(len(batch), loaded.end if view.marker is None else view.marker)
    session = open_session(loaded.model, loaded.tokenized.queries, batch, ends, loaded.query_length)
    search = Search(beams=budget.beams, max_new_tokens=new_tokens(budget, loaded.ids, view))
    found = beam_search(session, view.index, search)
    lengths = np.minimum(loaded.tokenized.queries.lengths[batch], loaded.query_length) + 1
    return found.candidates, inference_flops(build.shape_of(loaded.model), lengths, found.rows)


def new_tokens(budget: Budget, ids: IdentifierSet, view: View) -> int:
    """How many tokens may be written. A whole identifier must fit where only whole ones count."""
    if ids.ranks_by == "identifier" or budget.max_new_tokens is None:
        return view.max_length
    return budget.max_new_tokens


def _rank(
    loaded: Loaded, candidates: Sequence[Candidates], place: int, row: int, settings: EvaluationSettings
) -> tuple[np.ndarray, np.ndarray]:
    """(documents, scores) of one query, best first, at most `settings.depth`. Ties are broken at random, seeded."""
    rng = np.random.default_rng([settings.seed, row])
    if loaded.scorer is not None:
        return loaded.scorer.rank(candidates, place, settings.depth, rng)
    return rank_identifiers(loaded.ids.views, candidates, place, settings.depth, rng)


def rank_identifiers(
    views: Sequence[View], candidates: Sequence[Candidates], query: int, depth: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(documents, scores) by finished identifiers: a document's score is the log of their probabilities' sum.

    An identifier that several documents share counts in full for each; ties are broken at random by `rng`.
    """
    documents: list[np.ndarray] = []
    scores: list[np.ndarray] = []
    for view, found in zip(views, candidates, strict=True):
        for entry in np.flatnonzero((found.query == query) & found.complete):
            named = np.unique(view.documents[view.index.rows(found.lo[entry], found.hi[entry])])
            documents.append(named)
            scores.append(np.full(len(named), found.score[entry]))
    if not documents:
        return np.empty(0, dtype=np.int64), np.empty(0)
    distinct, owner = np.unique(np.concatenate(documents), return_inverse=True)
    total = np.full(len(distinct), -np.inf)
    np.logaddexp.at(total, owner, np.concatenate(scores))
    best = np.lexsort((rng.random(len(distinct)), -total))[:depth]
    return distinct[best], total[best]
