"""Evidence scoring against a plain implementation of the published rule."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.decoding import evidence as module
from workers.decoding.evidence import Evidence, EvidenceScorer, weights
from workers.decoding.index import build_index
from workers.decoding.view import View
from workers.ragged import Ragged

documents_strategy = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=14), min_size=1, max_size=6)


def occurrences(rows: list[list[int]], ngram: tuple[int, ...]) -> list[tuple[int, int]]:
    """(document, place) of each, by what follows it (a document's end last): the order an index lists them in."""
    found = [
        (document, at)
        for document, row in enumerate(rows)
        for at in range(len(row) - len(ngram) + 1)
        if tuple(row[at : at + len(ngram)]) == ngram
    ]
    text = [token for row in rows for token in (*row, 99)]
    starts = np.cumsum([0] + [len(row) + 1 for row in rows])
    return sorted(found, key=lambda each: text[starts[each[0]] + each[1] :])


def cover(rows, ngrams: dict[tuple[int, ...], float], allowed) -> dict[int, list[tuple[tuple[int, ...], float]]]:
    """N-grams by falling weight; one counts for a document where it overlaps with nothing that counted before."""
    covered: set[tuple[int, int]] = set()
    hits: dict[int, list[tuple[tuple[int, ...], float]]] = {}
    for ngram, weight in ngrams.items():
        counted: set[int] = set()
        for document, at in occurrences(rows, ngram):
            places = {(document, place) for place in range(at, at + len(ngram))}
            if document not in allowed or places & covered:
                continue
            covered |= places
            if document not in counted:
                hits.setdefault(document, []).append((ngram, weight))
                counted.add(document)
    return hits


def discounted(hits: list[tuple[tuple[int, ...], float]]) -> float:
    seen: set[int] = set()
    total = 0.0
    for ngram, weight in hits:
        types = set(ngram)
        total += weight * (1 - 0.8 + 0.8 * len(types - seen) / len(types))
        seen |= types
    return total


def reference(rows, ngrams: dict[tuple[int, ...], float], rare: int, fully: int) -> dict[int, float]:
    counts = {ngram: len(occurrences(rows, ngram)) for ngram in ngrams}
    first = cover(rows, {n: w for n, w in ngrams.items() if counts[n] <= rare}, range(len(rows)))
    found = sorted(first, key=lambda document: -discounted(first[document]))[:fully]
    return {document: discounted(hits) for document, hits in cover(rows, ngrams, found).items()}


@settings(max_examples=200, deadline=None)
@given(documents_strategy, st.integers(0, 10**6), st.sampled_from([1500, 2, 1]))
def test_equals_the_plain_rule(rows, seed, rare) -> None:
    rng = np.random.default_rng(seed)
    index = build_index(Ragged.of(rows), 5, "suffixes")
    distinct = sorted({tuple(r[i : i + n]) for r in rows for n in (1, 2, 3) for i in range(len(r) - n + 1)})
    picked = [distinct[i] for i in rng.permutation(len(distinct))[:12]]
    weight = np.sort(rng.random(len(picked)))[::-1].copy()
    intervals = [interval(index, ngram) for ngram in picked]
    evidence = Evidence(
        weight=weight,
        lo=np.array([lo for lo, _ in intervals]),
        hi=np.array([hi for _, hi in intervals]),
        length=np.array([len(ngram) for ngram in picked]),
    )
    old = module.RARE
    module.RARE = rare
    try:
        documents, scores = scorer_of(index).rank_evidence(evidence, 100, np.random.default_rng(0))
    finally:
        module.RARE = old
    expected = reference(rows, dict(zip(picked, weight.tolist(), strict=True)), rare, 1500)
    assert dict(zip(documents.tolist(), scores.tolist(), strict=True)) == pytest.approx(expected)
    assert sorted(scores, reverse=True) == list(scores)


def scorer_of(index) -> EvidenceScorer:
    rows = int(index.first_rows[-1])
    documents = np.arange(rows, dtype=np.int32)
    return EvidenceScorer((View(name="body", index=index, documents=documents, marker=None, max_length=9),), rows)


def interval(index, ngram: tuple[int, ...]) -> tuple[int, int]:
    inside = [
        i
        for i, at in enumerate(index.shards[0].order)
        if tuple(index.shards[0].tokens[at : at + len(ngram)].tolist()) == ngram
    ]
    return inside[0], inside[-1] + 1


@settings(max_examples=100, deadline=None)
@given(st.floats(-30, 0), st.integers(0, 1000))
def test_weight_equals_the_formula(log_prob: float, count: int) -> None:
    tokens = 1000
    log_prob = min(log_prob, -1e-10)
    given_query, prior = math.exp(log_prob), min((count + 5) / (tokens + 5), math.exp(-1e-10))
    odds = math.log(given_query) + math.log(-math.expm1(math.log(prior)))
    odds -= math.log(prior) + math.log(-math.expm1(log_prob))
    value = weights(np.array([log_prob]), np.array([count]), tokens)[0]
    assert value == pytest.approx(max(0.0, odds) ** 2, rel=1e-9, abs=1e-12)


def test_scorer_forgets_the_query_before() -> None:
    index = build_index(Ragged.of([[1, 2, 3], [2, 3, 4]]), 5, "suffixes")
    lo, hi = interval(index, (2, 3))
    evidence = Evidence(weight=np.array([1.0]), lo=np.array([lo]), hi=np.array([hi]), length=np.array([2]))
    scorer = scorer_of(index)
    for _ in range(3):
        documents, scores = scorer.rank_evidence(evidence, 10, np.random.default_rng(0))
        assert sorted(documents.tolist()) == [0, 1]
        assert scores.tolist() == [1.0, 1.0]


def test_no_evidence_ranks_nothing() -> None:
    index = build_index(Ragged.of([[1, 2]]), 5, "suffixes")
    nothing = np.empty(0, dtype=np.int64)
    evidence = Evidence(weight=np.empty(0), lo=nothing, hi=nothing, length=nothing)
    documents, scores = scorer_of(index).rank_evidence(evidence, 10, np.random.default_rng(0))
    assert len(documents) == len(scores) == 0
