"""Constrained beam search over an index, for a batch of queries, synchronous in depth."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from workers.decoding import numba_step
from workers.decoding.index import Index
from workers.decoding.step import Beams, Chosen
from workers.models.sessions import Session

Step = Callable[[Index, Beams, np.ndarray, int, int, int], Chosen]
"""As `step.best_continuations`."""


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Every continuation that a step looked at: the best 2 x beams of each query. One entry each."""

    query: np.ndarray
    """Row of the batch."""
    lo: np.ndarray
    hi: np.ndarray
    """int64 (entries, shards): the state in the index; the sum of hi - lo is how often the sequence occurs."""
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


def beam_search(
    session: Session, index: Index, beams: int, max_new_tokens: int, best: Step = numba_step.best_continuations
) -> SearchResult:
    """The `beams` best sequences at each depth that only follow continuations in the index.

    Fewer continuations than beams are fine: there are then fewer beams. A sequence that cannot be continued
    leaves its place to the next best one.
    """
    queries = len(session.first)
    log_probs = session.first.float().cpu().numpy()
    lo, hi = index.whole()
    live = Beams(
        query=np.arange(queries), lo=np.tile(lo, (queries, 1)), hi=np.tile(hi, (queries, 1)), score=np.zeros(queries)
    )
    looked_at: list[Candidates] = []
    rows = [np.ones(queries, dtype=np.int64)]
    for depth in range(max_new_tokens):
        chosen = best(index, live, log_probs, depth, queries, 2 * beams)
        query = live.query[chosen.beam]
        looked_at.append(_candidates(chosen, query, depth + 1, beams))
        alive = _first_per_query(np.flatnonzero(chosen.grows), query, beams)
        if depth + 1 == max_new_tokens or not len(alive):
            break
        log_probs = _advance(session, chosen.beam[alive], chosen.token[alive])
        live = Beams(query=query[alive], lo=chosen.lo[alive], hi=chosen.hi[alive], score=chosen.score[alive])
        rows.append(np.bincount(live.query, minlength=queries))
    return SearchResult(candidates=_concatenate(looked_at), rows=np.stack(rows, axis=1))


def _first_per_query(entries: np.ndarray, query: np.ndarray, most: int) -> np.ndarray:
    mine = query[entries]
    return entries[np.arange(len(entries)) - np.searchsorted(mine, mine) < most]


def _advance(session: Session, parents: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    device = session.first.device
    moved = (torch.from_numpy(np.asarray(each, dtype=np.int64)).to(device) for each in (parents, tokens))
    return session.advance(*moved).float().cpu().numpy()


def _candidates(chosen: Chosen, query: np.ndarray, length: int, beams: int) -> Candidates:
    return Candidates(
        query=query,
        lo=chosen.lo,
        hi=chosen.hi,
        length=np.full(len(query), length),
        score=chosen.score,
        complete=~chosen.grows & (chosen.place < beams),
    )


def _concatenate(parts: list[Candidates]) -> Candidates:
    names = ("query", "lo", "hi", "length", "score", "complete")
    return Candidates(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})
