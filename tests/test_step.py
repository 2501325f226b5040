"""Backends of a beam step against the reference: the same continuations, states, scores and order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.decoding import numba_step, step, torch_step
from workers.decoding.index import build_index
from workers.decoding.step import Beams, Chosen
from workers.ragged import Ragged

QUERIES = 3
FAST = {"numba": numba_step.best_continuations, "torch": torch_step.best_continuations}


def compare(rows, vocabulary, sort, shard_tokens, seed, most, longest, ties, backends=FAST) -> None:
    """Walk from the root with random log-probabilities; every backend sees the reference's beams."""
    index = build_index(Ragged.of(rows), vocabulary, sort, shard_tokens)
    rng = np.random.default_rng(seed)
    lo, hi = (np.tile(each, (QUERIES, 1)) for each in index.whole())
    live = Beams(query=np.arange(QUERIES), lo=lo, hi=hi, score=np.zeros(QUERIES))
    for depth in range(longest):
        log_probs = -rng.exponential(size=(len(live.query), vocabulary + 7)).astype(np.float32)
        if ties:
            log_probs = np.round(log_probs)
        expected = step.best_continuations(index, live, log_probs, depth, QUERIES, most)
        for name, backend in backends.items():
            assert_equal(expected, backend(index, live, log_probs, depth, QUERIES, most), name)
        grown = np.flatnonzero(expected.grows)
        if not len(grown):
            break
        live = Beams(
            query=live.query[expected.beam[grown]],
            lo=expected.lo[grown],
            hi=expected.hi[grown],
            score=expected.score[grown],
        )


def assert_equal(expected: Chosen, found: Chosen, name: str) -> None:
    for field in ("beam", "token", "score", "place", "grows"):
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field), err_msg=f"{name}: {field}")
    there = expected.hi > expected.lo
    np.testing.assert_array_equal(found.hi > found.lo, there, err_msg=name)
    np.testing.assert_array_equal(found.lo[there], expected.lo[there], err_msg=name)
    np.testing.assert_array_equal(found.hi[there], expected.hi[there], err_msg=name)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 5), max_size=9), min_size=1, max_size=6),
    st.sampled_from(["suffixes", "rows"]),
    st.sampled_from([1, 7, 1 << 20]),
    st.integers(0, 1000),
    st.integers(1, 9),
    st.booleans(),
)
def test_equal_on_small_corpora(rows, sort: str, shard_tokens: int, seed: int, most: int, ties: bool) -> None:
    compare(rows, 6, sort, shard_tokens, seed, most, 8, ties)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 5).flatmap(
        lambda length: st.lists(st.lists(st.integers(0, 5), min_size=length, max_size=5), min_size=1, max_size=6)
    ),
    st.sampled_from([6, 400]),
    st.sampled_from([20, 1 << 20]),
    st.integers(0, 1000),
    st.integers(1, 9),
    st.booleans(),
)
def test_equal_where_rows_are_stored_by_columns(
    rows, vocabulary: int, shard_tokens: int, seed: int, most: int, ties: bool
) -> None:
    """Tokens that count from another base at each depth, in one byte and, with a larger vocabulary, in two."""
    stride = 1 if vocabulary == 6 else 70
    rows = [[token * (stride if depth == 2 else 1) for depth, token in enumerate(row)] for row in rows]
    rows.sort(key=lambda row: [*row, vocabulary])  # the end of a row comes after any token
    compare(rows, vocabulary, "columns", shard_tokens, seed, most, 6, ties)


def test_equal_where_many_codes_are_stored_by_columns() -> None:
    """More continuations than the pool holds, at each depth."""
    rows = np.unique(np.random.default_rng(0).integers(30, 90, size=(30_000, 4)), axis=0)
    for ties in (False, True):
        compare(rows.tolist(), 90, "columns", 1 << 20, 2, 40, 5, ties)


@pytest.mark.parametrize("vocabulary", [300, 3000, 70_000])
@pytest.mark.parametrize("shard_tokens", [1 << 20, 20_000])
@pytest.mark.parametrize("most", [2, 200])
def test_equal_where_intervals_are_wide(vocabulary: int, shard_tokens: int, most: int) -> None:
    """Frequent tokens, so that beams are looked up by token as well as enumerated; 32-bit tokens among them."""
    rng = np.random.default_rng(0)
    rows = [(rng.zipf(1.3, size=rng.integers(1, 300)) % vocabulary).tolist() for _ in range(200)]
    rows[0][0] = vocabulary - 1
    backends = FAST if most == 2 and vocabulary < 70_000 else {"numba": FAST["numba"]}  # the other looks everything up
    for ties in (False, True):
        compare(rows, vocabulary, "suffixes", shard_tokens, 1, most, 5, ties, backends)


def test_tokens_that_the_model_rules_out_come_last() -> None:
    """A log-probability of minus infinity is still a continuation where there are too few others."""
    index = build_index(Ragged.of([[0, 1], [2, 1], [3, 1]]), 6, "rows")
    lo, hi = (each[None] for each in index.whole())
    live = Beams(query=np.zeros(1, dtype=np.int64), lo=lo, hi=hi, score=np.zeros(1))
    log_probs = np.array([[-np.inf, 0, -1, -np.inf, 0, 0]], dtype=np.float32)
    for backend in (step.best_continuations, *FAST.values()):
        assert backend(index, live, log_probs, 0, 1, 2).token.tolist() == [2, 0]
