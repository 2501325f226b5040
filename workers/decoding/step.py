"""One step of a beam search: of all continuations that the constraint allows, each query's best.

`best_continuations` here is the readable reference: it enumerates all continuations. Ties go to the earlier
beam, then to the smaller token, in every backend.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from workers.decoding.constraint import can_grow, children
from workers.decoding.index import Index


@dataclass(frozen=True, kw_only=True)
class Beams:
    """The live beams of a batch, grouped by query, the best of each first."""

    query: np.ndarray
    """int64 (beams,), ascending: row of the batch."""
    lo: np.ndarray
    hi: np.ndarray
    """int64 (beams, shards)."""
    score: np.ndarray
    """float64 (beams,): sum of log-probabilities."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Continuations, grouped by query in ascending order, the best of each query first."""

    beam: np.ndarray
    """int64 (entries,): which of the beams it continues."""
    token: np.ndarray
    lo: np.ndarray
    hi: np.ndarray
    """int64 (entries, shards)."""
    score: np.ndarray
    place: np.ndarray
    """int64 (entries,): 0 for the best of its query."""
    grows: np.ndarray
    """bool: whether anything but a boundary follows."""


def best_continuations(
    index: Index, beams: Beams, log_probs: np.ndarray, depth: int, queries: int, most: int
) -> Chosen:
    """The `most` best continuations of each query. `log_probs`: float32 (beams, vocabulary) of the next token."""
    step = children(index, beams.lo, beams.hi, depth)
    total = beams.score[step.beam] + log_probs[step.beam, step.token]
    best, place = best_per_query(beams.query[step.beam], total, queries, most)
    return Chosen(
        beam=step.beam[best],
        token=step.token[best],
        lo=step.lo[best],
        hi=step.hi[best],
        score=total[best],
        place=place,
        grows=can_grow(index, step.lo[best], step.hi[best], depth + 1),
    )


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
