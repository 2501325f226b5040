"""Evidence scoring against a plain implementation of the published rule."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.decoding import evidence as module
from workers.decoding.beam import Candidates
from workers.decoding.evidence import EvidenceScorer, weights
from workers.decoding.index import build_index
from workers.decoding.view import View
from workers.ragged import Ragged

VOCABULARY = 5
Ngram = tuple[int, ...]


class Texts:
    """The rows of one view as lists, and n-grams of theirs with log-probabilities; all that the plain rule reads."""

    def __init__(
        self, rows: list[list[int]], documents: list[int], shard_tokens: int, vocabulary: int = VOCABULARY
    ) -> None:
        self.rows, self.documents, self.boundary = rows, documents, vocabulary
        index = build_index(Ragged.of(rows), vocabulary, "suffixes", shard_tokens)
        self.view = View(
            name="body", index=index, documents=np.array(documents, dtype=np.int32), marker=None, max_length=9
        )

    def occurrences(self, ngram: Ngram) -> list[tuple[int, int]]:
        """(row, place) of each: shard after shard, by what follows it (a row's end last)."""
        found = [
            (row, at)
            for row, tokens in enumerate(self.rows)
            for at in range(len(tokens) - len(ngram) + 1)
            if tuple(tokens[at : at + len(ngram)]) == ngram
        ]
        text = [token for row in self.rows for token in (*row, self.boundary)]
        starts = np.cumsum([0] + [len(row) + 1 for row in self.rows])
        shard = [int(np.searchsorted(self.view.index.first_rows, row, side="right")) for row in range(len(self.rows))]
        ends = [int(starts[self.view.index.first_rows[shard[row]]]) for row in range(len(self.rows))]
        return sorted(found, key=lambda hit: (shard[hit[0]], text[starts[hit[0]] + hit[1] : ends[hit[0]]]))

    def candidates(self, log_probs: dict[Ngram, float], query: int) -> Candidates:
        """As a search would give them, among those of another query."""
        shards = self.view.index.shards
        states = np.array([[interval(shard, ngram) for shard in shards] for ngram in log_probs], dtype=np.int64)
        states = states.reshape(len(log_probs), len(shards), 2)
        other = np.array([[(0, len(shard.order)) for shard in shards]], dtype=np.int64)
        states = np.concatenate([other, states])
        return Candidates(
            query=np.array([query - 1] + [query] * len(log_probs)),
            lo=states[:, :, 0],
            hi=states[:, :, 1],
            length=np.array([1] + [len(ngram) for ngram in log_probs]),
            score=np.array([-0.01, *log_probs.values()]),
            grows=np.ones(1 + len(log_probs), dtype=bool),
            in_beam=np.ones(1 + len(log_probs), dtype=bool),
        )


def interval(shard, ngram: Ngram) -> tuple[int, int]:
    inside = [i for i, at in enumerate(shard.order) if tuple(shard.tokens[at : at + len(ngram)].tolist()) == ngram]
    return (inside[0], inside[-1] + 1) if inside else (0, 0)


def weighed(texts: list[Texts], log_probs: list[dict[Ngram, float]]) -> list[tuple[float, int, Ngram]]:
    """(weight, view, n-gram) in the order of the rule."""
    longest = max((len(ngram) for each in log_probs for ngram in each), default=0)
    found = []
    for view, (text, each) in enumerate(zip(texts, log_probs, strict=True)):
        tokens = sum(len(row) for row in text.rows)
        for ngram, log_prob in each.items():
            weight = weights(np.array([log_prob]), np.array([len(text.occurrences(ngram))]), tokens)[0]
            if len(ngram) >= min(2, longest) and weight > 0:
                found.append((float(weight), view, ngram))
    return sorted(found, key=lambda each: (-each[0], each[1], each[2]))


def score(hits: list[tuple[float, Ngram, set]]) -> float:
    """One document's score by its matches, in the order of the rule: (weight, n-gram, positions)."""
    taken: set = set()
    counted: list = []
    seen: set[int] = set()
    total = 0.0
    for weight, ngram, positions in hits:
        if positions & taken:
            continue
        taken |= positions
        view = min(positions)[0]
        if (view, ngram) in counted:
            continue
        counted.append((view, ngram))
        types = set(ngram)
        total += weight * (1.0 - 0.8 + 0.8 * len(types - seen) / len(types))
        seen |= types
    return total


def matches(texts: list[Texts], view: int, ngram: Ngram) -> list[tuple[int, set]]:
    """(document, positions) in the order of the index."""
    return [
        (texts[view].documents[row], {(view, row, at + i) for i in range(len(ngram))})
        for row, at in texts[view].occurrences(ngram)
    ]


def reference(texts: list[Texts], log_probs: list[dict[Ngram, float]], rare: int, fully: int) -> dict[int, float]:
    ngrams = weighed(texts, log_probs)
    first: dict[int, list] = {}
    for weight, view, ngram in ngrams:
        found = matches(texts, view, ngram)
        for document, positions in found if len(found) <= rare else []:
            first.setdefault(document, []).append((weight, ngram, positions))
    chosen = sorted(first, key=lambda document: -score(first[document]))[:fully]
    full: dict[int, list] = {document: [] for document in chosen}
    for weight, view, ngram in ngrams:
        for document, positions in sorted(matches(texts, view, ngram), key=lambda each: min(each[1])):
            if document in full:
                full[document].append((weight, ngram, positions))
    return {document: score(hits) for document, hits in full.items()}


tokens_strategy = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=14)


@st.composite
def texts_strategy(draw, documents: int) -> Texts:
    if draw(st.booleans()):  # the body: a row a document
        rows = draw(st.lists(tokens_strategy, min_size=documents, max_size=documents))
        owners = list(range(documents))
    else:
        rows = draw(st.lists(tokens_strategy, min_size=1, max_size=8))
        owners = draw(st.lists(st.integers(0, documents - 1), min_size=len(rows), max_size=len(rows)))
    return Texts(rows, owners, draw(st.sampled_from([8, 20, 1000])))


@st.composite
def case_strategy(draw):
    documents = draw(st.integers(1, 6))
    texts = draw(st.lists(texts_strategy(documents), min_size=1, max_size=3))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    steps = draw(st.sampled_from([1, 1000]))  # few distinct weights, or many
    log_probs = []
    for text in texts:
        distinct = sorted({tuple(r[i : i + n]) for r in text.rows for n in (1, 2, 3, 4) for i in range(len(r) - n + 1)})
        picked = [distinct[i] for i in rng.permutation(len(distinct))[: rng.integers(0, 15)]]
        log_probs.append({ngram: -float(rng.integers(1, steps + 1)) / steps for ngram in picked})
    return documents, texts, log_probs


@settings(max_examples=300, deadline=None)
@given(case_strategy(), st.sampled_from([1500, 2, 1]), st.sampled_from([1500, 2, 1]), st.sampled_from([100, 2, 1]))
def test_equals_the_plain_rule(case, rare, fully, depth) -> None:
    documents, texts, log_probs = case
    scorer = EvidenceScorer([text.view for text in texts], documents)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "RARE", rare)
        patch.setattr(module, "FULLY_SCORED", fully)
        for _ in range(2):  # a scorer forgets the query before
            candidates = [text.candidates(each, 3) for text, each in zip(texts, log_probs, strict=True)]
            ranked, scores = scorer.rank(candidates, 3, depth, np.random.default_rng(0))
            expected = reference(texts, log_probs, rare, fully)
            assert scores.tolist() == pytest.approx(sorted(expected.values(), reverse=True)[:depth])
            assert scores.tolist() == pytest.approx([expected[document] for document in ranked.tolist()])
            assert len(set(ranked.tolist())) == len(ranked)
            assert (ranked.dtype, scores.dtype) == (np.int64, np.float64)


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


def test_no_evidence_ranks_nothing() -> None:
    text = Texts([[1, 2]], [0], 1000)
    scorer = EvidenceScorer([text.view, text.view], 1)
    unlikely = {(1, 2): -40.0}
    for candidates in ([None, None], [text.candidates({}, 0), None], [None, text.candidates(unlikely, 0)]):
        documents, scores = scorer.rank(candidates, 0, 10, np.random.default_rng(0))
        assert len(documents) == len(scores) == 0


def test_documents_of_one_token_are_found_where_nothing_longer_was_written() -> None:
    text = Texts([[1], [2], [1]] + [[4] * 9] * 9, list(range(12)), 1000)
    scorer = EvidenceScorer([text.view], 12)
    documents, _ = scorer.rank([text.candidates({(1,): -0.1}, 0)], 0, 10, np.random.default_rng(0))
    assert sorted(documents.tolist()) == [0, 2]
    documents, _ = scorer.rank([text.candidates({(1,): -0.1, (4, 4): -0.1}, 0)], 0, 10, np.random.default_rng(0))
    assert sorted(documents.tolist()) == list(range(3, 12))


def test_equal_documents_are_ranked_at_random() -> None:
    text = Texts([[1, 2, 3]] * 6 + [[4] * 9] * 9, list(range(15)), 1000)
    scorer = EvidenceScorer([text.view], 15)
    candidates = [text.candidates({(1, 2): -0.1, (2, 3): -0.2}, 0)]
    found = [scorer.rank(candidates, 0, 10, np.random.default_rng(seed)) for seed in range(5)]
    for documents, scores in found:
        assert sorted(documents.tolist()) == list(range(6))
        assert len(set(scores.tolist())) == 1
    assert len({tuple(documents) for documents, _ in found}) > 1


def test_ngrams_are_looked_for_in_their_own_view() -> None:
    body = Texts([[1, 2, 3], [4, 4, 4, 4, 4, 4, 4, 4]], [0, 1], 1000)
    titles = Texts([[0, 1], [1, 2, 3]], [0, 1], 1000)
    scorer = EvidenceScorer([body.view, titles.view], 2)
    documents, _ = scorer.rank([body.candidates({(1, 2): -0.1}, 0), None], 0, 10, np.random.default_rng(0))
    assert documents.tolist() == [0]
