"""Ranking by written identifiers against dictionaries."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.decoding.beam import Candidates
from workers.decoding.constraint import can_grow, children
from workers.decoding.index import build_index
from workers.decoding.naming import rank_named
from workers.decoding.view import View
from workers.ragged import Ragged

VOCABULARY = 4
QUERY = 3
Path = tuple[int, ...]


class Names:
    """One view: rows and the documents that they name, and some written prefixes of rows with log-probabilities."""

    def __init__(self, rows: list[list[int]], documents: list[int], shard_tokens: int = 1000) -> None:
        self.rows, self.documents = rows, documents
        index = build_index(Ragged.of(rows), VOCABULARY, "rows", shard_tokens)
        self.view = View(
            name="names", index=index, documents=np.array(documents, dtype=np.int32), marker=None, max_length=9
        )

    def candidates(self, written: dict[Path, float], in_beam: dict[Path, bool] | None = None) -> Candidates:
        """As a search would give them, behind one of another query that names every document."""
        index = self.view.index
        states = [index.whole(), *(self._state(path) for path in written)]
        lo, hi = (np.array(each, dtype=np.int64) for each in zip(*states, strict=True))
        length = np.array([1] + [len(path) for path in written])
        grows = [False] + [bool(can_grow(index, lo[i : i + 1], hi[i : i + 1], length[i])[0]) for i in range(1, len(lo))]
        return Candidates(
            query=np.array([QUERY - 1] + [QUERY] * len(written)),
            lo=lo,
            hi=hi,
            length=length,
            score=np.array([-0.01, *written.values()]),
            grows=np.array(grows),
            in_beam=np.array([True] + [in_beam is None or in_beam[path] for path in written]),
        )

    def _state(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        lo, hi = self.view.index.whole()
        for depth, token in enumerate(path):
            found = children(self.view.index, lo[None], hi[None], depth)
            (at,) = np.flatnonzero(found.token == token)
            lo, hi = found.lo[at], found.hi[at]
        return lo, hi

    def prefixes(self) -> list[Path]:
        return sorted({tuple(row[: n + 1]) for row in self.rows for n in range(len(row))})


def reference(names: list[Names], written: list[dict[Path, float] | None], in_beam, most: list[int], kept) -> dict:
    """{document: score} by sums in dictionaries."""
    total: dict[int, float] = {}
    for each, paths, beam, longest in zip(names, written, in_beam, most, strict=True):
        ended: list[tuple[float, set[int]]] = []
        for path, score in (paths or {}).items():
            below = [d for row, d in zip(each.rows, each.documents, strict=True) if tuple(row[: len(path)]) == path]
            grows = any(tuple(row[: len(path)]) == path and len(row) > len(path) for row in each.rows)
            if beam[path] and (not grows or len(path) == longest):
                ended.append((score, set(below)))
        for score, below in sorted(ended, key=lambda one: -one[0])[:kept]:
            for document in below:
                total[document] = total.get(document, 0.0) + math.exp(score)
    return {document: math.log(value) for document, value in total.items()}


row_strategy = st.lists(st.integers(0, VOCABULARY - 1), max_size=3)


@st.composite
def case_strategy(draw):
    names, written, in_beam, most = [], [], [], []
    for _ in range(draw(st.integers(1, 3))):
        rows = draw(st.lists(row_strategy, min_size=1, max_size=14))
        documents = draw(
            st.one_of(
                st.just(list(range(len(rows)))),
                st.lists(st.integers(0, 9), min_size=len(rows), max_size=len(rows)),
            )
        )
        each = Names(rows, documents, draw(st.sampled_from([6, 1000])))
        most.append(draw(st.integers(1, 3)))
        picked = [path for path in each.prefixes() if len(path) <= most[-1] and draw(st.booleans())]
        names.append(each)
        written.append({path: -draw(st.integers(1, 900)) / 100 for path in picked})
        in_beam.append({path: draw(st.integers(0, 3)) > 0 for path in picked})
        if draw(st.integers(0, 4)) == 0:
            written[-1] = None
    return names, written, in_beam, most


@settings(max_examples=300, deadline=None)
@given(case_strategy(), st.integers(1, 12), st.sampled_from([None, 1, 3]))
def test_equals_dictionaries(case, depth, kept) -> None:
    """Shared identifiers, several a document, several views and shards, prefixes cut off, more rows than `depth`."""
    names, written, in_beam, most = case
    candidates = [
        None if paths is None else each.candidates(paths, beam)
        for each, paths, beam in zip(names, written, in_beam, strict=True)
    ]
    views = [each.view for each in names]
    expected = reference(names, written, in_beam, most, kept)
    for seed in range(3):
        documents, scores = rank_named(views, candidates, most, kept, QUERY, depth, np.random.default_rng(seed))
        assert (documents.dtype, scores.dtype) == (np.int64, np.float64)
        assert len(set(documents.tolist())) == len(documents)
        best = sorted(expected.values(), reverse=True)[:depth]
        assert scores.tolist() == pytest.approx(best), "the best scores that there are"
        assert scores.tolist() == pytest.approx([expected[document] for document in documents.tolist()])


@pytest.mark.parametrize("shard_tokens", [6, 1000])
@pytest.mark.parametrize("shared", [False, True])
def test_documents_of_a_wide_state_are_equally_likely(shard_tokens: int, shared: bool) -> None:
    """Also where some of them have more rows below it than others."""
    rows = [[1, each % 3] for each in range(10)] + [[2, 0], [2, 1]]
    documents = [*range(10), 10, 11]
    if shared:
        rows, documents = [*rows, [1, 3], [1, 2], [1, 3]], [*documents, 0, 0, 1]
    names = Names(rows, documents, shard_tokens)
    candidates = [names.candidates({(1,): -0.5, (2, 0): -0.2})]
    draws, count = 1200, Counter[int]()
    for seed in range(draws):
        found, _ = rank_named([names.view], candidates, [1], None, QUERY, 4, np.random.default_rng(seed))
        count.update(found.tolist())
        assert found[0] == 10
        assert len(found) == 4
    assert set(count) == set(range(11))
    for document in range(10):
        assert count[document] / draws == pytest.approx(0.3, abs=4.5 * math.sqrt(0.3 * 0.7 / draws))


def test_ties_are_broken_at_random_and_seeded() -> None:
    names = Names([[0], [0], [0], [1], [2]], [0, 1, 2, 3, 4])
    candidates = [names.candidates({(0,): -1.0, (1,): -1.0, (2,): -2.0})]
    orders = []
    for seed in [*range(30), *range(30)]:
        found, _ = rank_named([names.view], candidates, [3], None, QUERY, 10, np.random.default_rng(seed))
        assert sorted(found[:4].tolist()) == [0, 1, 2, 3]
        assert found[4] == 4
        orders.append(tuple(found.tolist()))
    assert orders[:30] == orders[30:]
    assert len(set(orders)) > 10


def test_nothing_written_names_nothing() -> None:
    names = Names([[1, 2]], [0])
    unfinished = names.candidates({(1,): -0.1})
    for candidates in ([None], [names.candidates({})], [unfinished]):
        found, scores = rank_named([names.view], candidates, [2], None, QUERY, 10, np.random.default_rng(0))
        assert len(found) == len(scores) == 0
    assert rank_named([names.view], [unfinished], [1], None, QUERY, 10, np.random.default_rng(0))[0].tolist() == [0]
