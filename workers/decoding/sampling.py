"""Sampling under the constraint: the model's distribution over the allowed continuations, at a temperature.

Samples of a query that have written the same tokens so far are one row with a count, so the model never sees
the same prefix twice: a step splits each row's count over its continuations by one multinomial draw, which is
the same as drawing one by one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.special import softmax

from workers.decoding.beam import Candidates, SearchResult, advance, concatenate, numbers
from workers.decoding.constraint import Children, can_grow, children
from workers.decoding.index import Index
from workers.models.sessions import Session


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """What is drawn."""

    samples: int
    temperature: float
    max_new_tokens: int


def sample(
    session: Session, index: Index, sampling: Sampling, generators: Sequence[np.random.Generator]
) -> SearchResult:
    """Draw `samples` sequences a query; candidates are the distinct prefixes that were drawn, with their scores.

    A score is the model's own log-probability, at temperature 1 and not renormalised, so that it compares with a beam
    search's. A finished sequence is `complete`. `generators`: one a query, so that a query's draws do not depend on
    its batch.
    """
    queries = len(session.first)
    log_probs = numbers(session.first)
    query, score, count = np.arange(queries), np.zeros(queries), np.full(queries, sampling.samples)
    lo, hi = (np.tile(each, (queries, 1)) for each in index.whole())
    drawn: list[Candidates] = []
    rows = [np.ones(queries, dtype=np.int64)]
    for depth in range(sampling.max_new_tokens):
        step = children(index, lo, hi, depth)
        values = log_probs[step.beam, step.token]
        times = _split(step, values, sampling.temperature, query, count, generators)
        kept = np.flatnonzero(times)
        parents = step.beam[kept]
        query, lo, hi, count = query[parents], step.lo[kept], step.hi[kept], times[kept]
        score = score[parents] + values[kept]
        grows = can_grow(index, lo, hi, depth + 1)
        length, in_beam = np.full(len(query), depth + 1), np.ones(len(query), dtype=bool)
        drawn.append(Candidates(query=query, lo=lo, hi=hi, length=length, score=score, grows=grows, in_beam=in_beam))
        if depth + 1 == sampling.max_new_tokens or not grows.any():
            break
        log_probs = advance(session, parents[grows], step.token[kept][grows])
        query, lo, hi, score, count = query[grows], lo[grows], hi[grows], score[grows], count[grows]
        rows.append(np.bincount(query, minlength=queries))
    return SearchResult(candidates=concatenate(drawn), rows=np.stack(rows, axis=1))


def _split(
    step: Children,
    log_probs: np.ndarray,
    temperature: float,
    query: np.ndarray,
    count: np.ndarray,
    generators: Sequence[np.random.Generator],
) -> np.ndarray:
    """How many of each row's samples go on with each of its continuations: int64 (continuations,)."""
    times = np.zeros(len(log_probs), dtype=np.int64)
    begins = np.searchsorted(step.beam, np.arange(len(query) + 1))
    for row, (begin, end) in enumerate(pairwise(begins)):
        if begin < end:
            # Least numbers for what the model rules out: it is drawn where there is nothing else.
            mine = np.maximum(log_probs[begin:end].astype(np.float64), np.finfo(np.float32).min)
            shares = softmax((mine - mine.max()) / temperature)
            times[begin:end] = generators[query[row]].multinomial(count[row], shares)
    return times
