"""From the n-grams that a search looked at to a ranking of documents (SEAL, Bevilacqua et al. 2022; MINDER, 2023).

An n-gram that the model finds more likely than the corpus does is evidence for every document that contains it:

    w(n) = max(0, log [ P(n|q) (1 - P(n)) / (P(n) (1 - P(n|q))) ]) ^ 2,    P(n) = (count + 5) / (tokens + 5)

Documents are found by the rare n-grams, then the best of them are scored by all of them. N-grams are taken
by falling weight; one that overlaps with what is covered already does not count, one whose tokens the
document has shown already counts less, and each counts once a document.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np

from workers.decoding.beam import Candidates
from workers.decoding.view import View

SMOOTHING = 5.0
RARE = 1500
"""N-grams that occur more often find no documents."""
FULLY_SCORED = 1500
"""Documents that are scored by all n-grams."""
REPETITION = 0.8
"""How much of a weight is lost where all of an n-gram's tokens were seen in the document."""
SHORTEST = 2
"""Single tokens are no evidence: with them, wide beams do worse than narrow ones."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One query's n-grams by falling weight."""

    weight: np.ndarray
    lo: np.ndarray
    hi: np.ndarray
    length: np.ndarray


class EvidenceScorer:
    """Scores documents of one index. Holds scratch arrays the size of the corpus, so make one a worker."""

    def __init__(self, views: Sequence[View], documents: int) -> None:
        index = views[0].index
        self.token_count = index.token_count
        self.tokens = index.shards[0].tokens
        self.order = index.shards[0].order.astype(np.int64)
        self.row_starts = index.shards[0].row_starts.astype(np.int64)
        self.covered = np.zeros(len(self.tokens), dtype=np.int64)
        self.seen_type = np.zeros(int(index.boundary) + 1, dtype=np.int64)
        self.stamp = 0

    def rank(
        self, candidates: Sequence[Candidates], query: int, depth: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """(documents, scores) of the best `depth`, best first; ties are broken at random by `rng`.

        `candidates`: one a view. `query`: row of the batch.
        """
        found = candidates[0]
        return self.rank_evidence(weigh(found, np.flatnonzero(found.query == query), self.token_count), depth, rng)

    def rank_evidence(self, evidence: Evidence, depth: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """As `rank`, from n-grams that have their weights."""
        rare = evidence.hi - evidence.lo <= RARE
        found = self._scores(_subset(evidence, rare), np.empty(0, dtype=np.int64))
        documents, scores = _best(*found, FULLY_SCORED, rng)
        if len(documents) and not rare.all():
            documents, scores = self._scores(evidence, np.sort(documents))
        return _best(documents, scores, depth, rng)

    def _scores(self, evidence: Evidence, only: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.stamp += 1
        ngram, document = _hits(
            evidence.lo, evidence.hi, evidence.length, self.order, self.row_starts, only, self.covered, self.stamp
        )
        grouped = np.argsort(document, kind="stable")
        ngram, document = ngram[grouped], document[grouped]
        first_at = self.order[evidence.lo]
        new, self.stamp = _discounted(
            ngram, document, evidence.weight, evidence.length, first_at, self.tokens, self.seen_type, self.stamp
        )
        kept, begins = np.unique(document, return_index=True)
        return kept, np.add.reduceat(new, begins) if len(begins) else new


def weigh(candidates: Candidates, chosen: np.ndarray, token_count: int) -> Evidence:
    """Evidence out of one query's candidates (`chosen`: their entries); weightless and too short ones are left out."""
    long_enough = candidates.length[chosen] >= min(SHORTEST, int(candidates.length[chosen].max(initial=SHORTEST)))
    chosen = chosen[long_enough]
    lo, hi = candidates.lo[chosen, 0], candidates.hi[chosen, 0]
    weight = weights(candidates.score[chosen], hi - lo, token_count)
    by_weight = np.argsort(-weight, kind="stable")
    by_weight = by_weight[weight[by_weight] > 0]
    return Evidence(
        weight=weight[by_weight],
        lo=lo[by_weight],
        hi=hi[by_weight],
        length=candidates.length[chosen][by_weight],
    )


def weights(log_prob: np.ndarray, count: np.ndarray, token_count: int) -> np.ndarray:
    """w(n) of the formula above, from log P(n|q)."""
    log_prob = np.minimum(log_prob, -1e-10)
    log_prior = np.log((count + SMOOTHING) / (token_count + SMOOTHING))
    log_prior = np.minimum(log_prior, -1e-10)
    odds = log_prob + np.log(-np.expm1(log_prior)) - log_prior - np.log(-np.expm1(log_prob))
    return np.maximum(odds, 0.0) ** 2


def _subset(evidence: Evidence, mask: np.ndarray) -> Evidence:
    return Evidence(
        weight=evidence.weight[mask], lo=evidence.lo[mask], hi=evidence.hi[mask], length=evidence.length[mask]
    )


def _best(
    documents: np.ndarray, scores: np.ndarray, most: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    ranked = np.lexsort((rng.random(len(scores)), -scores))[:most]
    return documents[ranked], scores[ranked]


@numba.njit(cache=True)
def _hits(
    lo: np.ndarray,
    hi: np.ndarray,
    length: np.ndarray,
    order: np.ndarray,
    row_starts: np.ndarray,
    only: np.ndarray,
    covered: np.ndarray,
    stamp: int,
) -> tuple[np.ndarray, np.ndarray]:
    """(n-gram, document) of each first occurrence that overlaps with nothing covered, by falling weight.

    `only`: sorted documents to look at, all where empty. `covered` marks positions with `stamp`.
    """
    most = 0
    for n in range(len(lo)):
        most += hi[n] - lo[n]
    ngrams = np.empty(most, dtype=np.int64)
    documents = np.empty(most, dtype=np.int64)
    last_ngram = np.full(len(row_starts), -1, dtype=np.int64)
    found = 0
    for n in range(len(lo)):
        for row in range(lo[n], hi[n]):
            start = order[row]
            document = np.searchsorted(row_starts, start, side="right") - 1
            if len(only) > 0:
                at = np.searchsorted(only, document)
                if at == len(only) or only[at] != document:
                    continue
            free = True
            for position in range(start, start + length[n]):
                if covered[position] == stamp:
                    free = False
                    break
            if not free:
                continue
            for position in range(start, start + length[n]):
                covered[position] = stamp
            if last_ngram[document] != n:
                last_ngram[document] = n
                ngrams[found] = n
                documents[found] = document
                found += 1
    return ngrams[:found], documents[:found]


@numba.njit(cache=True)
def _discounted(
    ngram: np.ndarray,
    document: np.ndarray,
    weight: np.ndarray,
    length: np.ndarray,
    first_at: np.ndarray,
    tokens: np.ndarray,
    seen_type: np.ndarray,
    stamp: int,
) -> tuple[np.ndarray, int]:
    """Each hit's weight times 1 - r + r x (token types new to the document / its token types). Hits are grouped
    by document, in falling weight. Returns them and the last stamp used on `seen_type`."""
    out = np.empty(len(ngram), dtype=np.float64)
    types = np.empty(int(length.max()) if len(length) else 0, dtype=np.int64)
    for hit in range(len(ngram)):
        if hit == 0 or document[hit] != document[hit - 1]:
            stamp += 1
        n = ngram[hit]
        distinct = 0
        new = 0
        for at in range(first_at[n], first_at[n] + length[n]):
            token = tokens[at]
            repeated = False
            for earlier in range(distinct):
                if types[earlier] == token:
                    repeated = True
                    break
            if repeated:
                continue
            types[distinct] = token
            distinct += 1
            if seen_type[token] != stamp:
                new += 1
        for each in range(distinct):
            seen_type[types[each]] = stamp
        out[hit] = weight[n] * (1.0 - REPETITION + REPETITION * new / distinct)
    return out, stamp
