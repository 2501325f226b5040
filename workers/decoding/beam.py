"""Constrained beam search over an index, for a batch of queries, synchronous in depth.

A beam whose score lies below its query's floor is not continued, since scores only fall. Where the best `wanted`
finished identifiers are asked for, the floor is the score of the worst of those found so far; where n-grams are wanted
as evidence, it is the score below which none weighs anything.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import torch

from workers.decoding import numba_step
from workers.decoding.index import Index
from workers.decoding.step import Beams, Chosen
from workers.errors import Diverged
from workers.models.sessions import Session

Step = Callable[[Index, Beams, np.ndarray, int, int, int], Chosen]
"""As `step.best_continuations`."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is searched for."""

    beams: int
    max_new_tokens: int
    floor: float = -np.inf
    """A score that nothing of interest lies below."""
    wanted: int | None = None
    """How many of the best finished sequences are asked for; None where unfinished ones are too."""


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Every continuation that a step looked at: the best 2 x beams of each query. One entry each, step after step
    within a query, the best of a step first."""

    query: np.ndarray
    """Row of the batch, ascending."""
    lo: np.ndarray
    hi: np.ndarray
    """int64 (entries, shards): the state in the index; the sum of hi - lo is how often the sequence occurs."""
    length: np.ndarray
    """Tokens written."""
    score: np.ndarray
    """float64: sum of log-probabilities, not renormalised over what the constraint allows."""
    grows: np.ndarray
    """bool: something other than a boundary follows."""
    in_beam: np.ndarray
    """bool: among the query's best `beams` of its step."""

    def of(self, query: int) -> slice:
        """The query's entries."""
        begin, end = np.searchsorted(self.query, [query, query + 1])
        return slice(int(begin), int(end))

    @property
    def complete(self) -> np.ndarray:
        """bool: finished, in the beam."""
        return self.in_beam & ~self.grows

    def ended(self, most: int, within: slice) -> np.ndarray:
        """bool, of a slice of the entries: finished or `most` tokens long, in the beam."""
        return self.in_beam[within] & (~self.grows[within] | (self.length[within] == most))


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What a search looked at and what it cost."""

    candidates: Candidates
    rows: np.ndarray
    """int64 (queries, forward passes): beams of each query that went through the model in each pass."""


def beam_search(
    session: Session, index: Index, search: Search, best: Step = numba_step.best_continuations
) -> SearchResult:
    """The best sequences at each depth that only follow continuations in the index.

    Fewer continuations than beams are fine: there are then fewer beams. A sequence that cannot be continued
    leaves its place to the next best one.
    """
    queries = len(session.first)
    log_probs = numbers(session.first)
    lo, hi = index.whole()
    live = Beams(
        query=np.arange(queries), lo=np.tile(lo, (queries, 1)), hi=np.tile(hi, (queries, 1)), score=np.zeros(queries)
    )
    floors = Floors.of(search, queries)
    looked_at: list[Candidates] = []
    rows = [np.ones(queries, dtype=np.int64)]
    for depth in range(search.max_new_tokens):
        chosen = best(index, live, log_probs, depth, queries, 2 * search.beams)
        query = live.query[chosen.beam]
        looked_at.append(candidates_of(chosen, query, depth + 1, search.beams))
        floors.raise_by(looked_at[-1])
        alive = _first_per_query(np.flatnonzero(chosen.grows), query, search.beams)
        alive = alive[chosen.score[alive] >= floors.values[query[alive]]]
        if depth + 1 == search.max_new_tokens or not len(alive):
            break
        log_probs = advance(session, chosen.beam[alive], chosen.token[alive])
        live = Beams(query=query[alive], lo=chosen.lo[alive], hi=chosen.hi[alive], score=chosen.score[alive])
        rows.append(np.bincount(live.query, minlength=queries))
    return SearchResult(candidates=concatenate(looked_at), rows=np.stack(rows, axis=1))


@dataclass
class Floors:
    """Each query's floor, which rises as sequences are finished."""

    values: np.ndarray
    """float64 (queries,)."""
    finished: np.ndarray | None
    """float64 (queries, wanted): the best finished scores so far, in no order."""

    @classmethod
    def of(cls, search: Search, queries: int) -> "Floors":
        """Before anything is finished."""
        finished = None if search.wanted is None else np.full((queries, search.wanted), -np.inf)
        return cls(values=np.full(queries, search.floor), finished=finished)

    def raise_by(self, found: Candidates) -> None:
        """Count in what a step has finished."""
        complete = np.flatnonzero(found.complete)
        if self.finished is None or not len(complete):
            return
        wanted = self.finished.shape[1]
        query, score = found.query[complete], found.score[complete]
        for each in np.unique(query):
            begin, end = np.searchsorted(query, [each, each + 1])
            self.finished[each] = np.sort(np.concatenate([self.finished[each], score[begin:end]]))[-wanted:]
        self.values = np.maximum(self.values, self.finished.min(axis=1))


def advance(session: Session, parents: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """float32 (rows, vocabulary): log-probabilities behind each new row, see `Session.advance`.

    Raises Diverged where they are not numbers.
    """
    return numbers(session.advance(torch.from_numpy(parents), torch.from_numpy(tokens)))


def numbers(log_probs: torch.Tensor) -> np.ndarray:
    """The tensor on the host. Raises Diverged where a row is not a number: then its first entry is none either."""
    values: np.ndarray = log_probs.numpy(force=True)
    if np.isnan(values[:, :1]).any():
        raise Diverged("the model gives tokens no finite likelihood")
    return values


def candidates_of(chosen: Chosen, query: np.ndarray, length: int, beams: int) -> Candidates:
    """What a step looked at."""
    return Candidates(
        query=query,
        lo=chosen.lo,
        hi=chosen.hi,
        length=np.full(len(query), length),
        score=chosen.score,
        grows=chosen.grows,
        in_beam=chosen.place < beams,
    )


def concatenate(parts: list[Candidates]) -> Candidates:
    """All steps' candidates in one, by query."""
    order = np.argsort(np.concatenate([part.query for part in parts]), kind="stable")
    names = [field.name for field in fields(Candidates)]
    return Candidates(**{name: np.concatenate([getattr(part, name) for part in parts])[order] for name in names})


def _first_per_query(entries: np.ndarray, query: np.ndarray, most: int) -> np.ndarray:
    mine = query[entries]
    return entries[np.arange(len(entries)) - np.searchsorted(mine, mine) < most]
