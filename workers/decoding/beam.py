"""Constrained beam search over an index, for a batch of queries, synchronous in depth."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from workers.decoding.constraint import Children, can_grow, children
from workers.decoding.index import Index
from workers.models.sessions import Session


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Every continuation that a step looked at: the best 2 x beams of each query. Flat arrays, one entry each."""

    query: np.ndarray
    """Row of the batch."""
    lo: np.ndarray
    hi: np.ndarray
    """Interval of the index; hi - lo is how often the sequence occurs."""
    length: np.ndarray
    """Tokens written."""
    score: np.ndarray
    """float64: sum of log-probabilities, not renormalised over what the constraint allows."""
    complete: np.ndarray
    """bool: nothing but a boundary follows, and it was among the query's best `beams` of its step."""


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What a search looked at and what it cost."""

    candidates: Candidates
    rows: np.ndarray
    """int64 (queries, forward passes): beams of each query that went through the model in each pass."""


def beam_search(session: Session, index: Index, beams: int, max_new_tokens: int) -> SearchResult:
    """The `beams` best sequences at each depth that only follow continuations in the index.

    Fewer continuations than beams are fine: there are then fewer beams. A sequence that cannot be continued
    leaves its place to the next best one.
    """
    first = session.first
    queries = len(first)
    log_probs = first.float().cpu().numpy()
    query = np.arange(queries)
    lo = np.zeros(queries, dtype=np.int64)
    hi = np.full(queries, len(index.order), dtype=np.int64)
    score = np.zeros(queries)
    looked_at: list[Candidates] = []
    rows = [np.ones(queries, dtype=np.int64)]
    for depth in range(max_new_tokens):
        step = children(index, lo, hi, depth)
        total = score[step.beam] + log_probs[step.beam, step.token]
        best, place = best_per_query(query[step.beam], total, queries, 2 * beams)
        grows = can_grow(index, step.lo[best], depth + 1)
        looked_at.append(_candidates(step, best, query, total, depth + 1, ~grows & (place < beams)))
        alive = _first_per_query(best[grows], query[step.beam[best[grows]]], beams)
        if depth + 1 == max_new_tokens or not len(alive):
            break
        parents = step.beam[alive]
        log_probs = _advance(session, parents, step.token[alive])
        query, lo, hi, score = query[parents], step.lo[alive], step.hi[alive], total[alive]
        rows.append(np.bincount(query, minlength=queries))
    return SearchResult(candidates=_concatenate(looked_at), rows=np.stack(rows, axis=1))


def best_per_query(query: np.ndarray, score: np.ndarray, queries: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Entries of the `most` best scores of each query, best first, and their place among them from 0.

    `query` is ascending. Of equal scores the earlier entry wins.
    """
    ends = np.searchsorted(query, np.arange(queries + 1))
    picked: list[np.ndarray] = []
    for begin, end in pairwise(ends):
        scores = score[begin:end]
        if len(scores) > most:
            cut = np.partition(scores, len(scores) - most)[len(scores) - most]
            chosen = np.flatnonzero(scores >= cut)
        else:
            chosen = np.arange(len(scores))
        picked.append(begin + chosen[np.argsort(-scores[chosen], kind="stable")[:most]])
    place = [np.arange(len(each)) for each in picked]
    return np.concatenate(picked), np.concatenate(place)


def _first_per_query(entries: np.ndarray, query: np.ndarray, most: int) -> np.ndarray:
    starts = np.searchsorted(query, query)
    return entries[np.arange(len(entries)) - starts < most]


def _advance(session: Session, parents: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    parents, tokens = parents.astype(np.int64, copy=False), tokens.astype(np.int64)
    return session.advance(torch.from_numpy(parents), torch.from_numpy(tokens)).cpu().numpy()


def _candidates(
    step: Children, best: np.ndarray, query: np.ndarray, total: np.ndarray, length: int, complete: np.ndarray
) -> Candidates:
    return Candidates(
        query=query[step.beam[best]],
        lo=step.lo[best],
        hi=step.hi[best],
        length=np.full(len(best), length),
        score=total[best],
        complete=complete,
    )


def _concatenate(parts: list[Candidates]) -> Candidates:
    names = ("query", "lo", "hi", "length", "score", "complete")
    return Candidates(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})
