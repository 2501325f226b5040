"""Evidence scoring as it is usually written, with dictionaries and sets: the same rule as `workers.decoding.evidence`.

Of one view with one shard. N-grams are matched against a document through a dictionary of them, so the time does not
suffer from a slow search; what it costs is that of Python's objects.
"""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from workers.decoding.beam import Candidates
from workers.decoding.evidence import FULLY_SCORED, RARE, SHORTEST, weights
from workers.decoding.view import View

REPETITION = 0.8
Match = tuple[float, tuple[int, ...], int]
"""Weight, n-gram, position."""


def rank(view: View, candidates: Candidates, depth: int) -> list[tuple[int, float]]:
    """(document, score) of the best `depth`, equal ones in any order."""
    ngrams = _weighed(view, candidates)
    found: dict[int, list[Match]] = defaultdict(list)
    for ngram, (weight, lo, hi) in ngrams.items():
        if hi - lo <= RARE:
            starts = view.index.shards[0].order[lo:hi]
            rows = view.index.shards[0].row_of(starts)
            for row, start in zip(rows.tolist(), starts.tolist(), strict=True):
                found[int(view.documents[row])].append((weight, ngram, start))
    best = sorted(found, key=lambda document: -_score(found[document]))[:FULLY_SCORED]
    rows_of = defaultdict(list)
    for row in np.flatnonzero(np.isin(view.documents, best)).tolist():
        rows_of[int(view.documents[row])].append(row)
    lengths = sorted({len(ngram) for ngram in ngrams})
    rank_of = {ngram: place for place, ngram in enumerate(ngrams)}
    scores = {}
    for document in best:
        matches = [match for row in rows_of[document] for match in _matches(view, row, ngrams, lengths)]
        scores[document] = _score(sorted(matches, key=lambda match: (rank_of[match[1]], match[2])))
    return sorted(scores.items(), key=lambda each: -each[1])[:depth]


def _weighed(view: View, candidates: Candidates) -> dict[tuple[int, ...], tuple[float, int, int]]:
    """N-grams by falling weight, with their interval."""
    shortest = min(SHORTEST, int(candidates.length.max(initial=0)))
    shard = view.index.shards[0]
    known = []
    weight = weights(candidates.score, (candidates.hi - candidates.lo)[:, 0], view.index.token_count)
    for entry in range(len(weight)):
        length, lo, hi = int(candidates.length[entry]), int(candidates.lo[entry, 0]), int(candidates.hi[entry, 0])
        if weight[entry] > 0 and length >= shortest:
            start = int(shard.order[lo])
            ngram = tuple(shard.tokens[start : start + length].tolist())
            known.append((-float(weight[entry]), ngram, lo, hi))
    return {ngram: (-negative, lo, hi) for negative, ngram, lo, hi in sorted(known)}


def _matches(view: View, row: int, ngrams: dict, lengths: list[int]) -> Iterator[Match]:
    shard = view.index.shards[0]
    begin, end = int(shard.row_starts[row]), int(shard.row_starts[row + 1]) - 1
    text = tuple(shard.tokens[begin:end].tolist())
    for at in range(len(text)):
        for length in lengths:
            ngram = text[at : at + length]
            if at + length <= len(text) and ngram in ngrams:
                yield ngrams[ngram][0], ngram, begin + at


def _score(matches: list[Match]) -> float:
    taken: set[int] = set()
    counted: set[tuple[int, ...]] = set()
    seen: set[int] = set()
    total = 0.0
    for weight, ngram, start in matches:
        positions = range(start, start + len(ngram))
        if not taken.isdisjoint(positions):
            continue
        taken.update(positions)
        if ngram not in counted:
            counted.add(ngram)
            types = set(ngram)
            total += weight * (1.0 - REPETITION + REPETITION * len(types - seen) / len(types))
            seen |= types
    return total
