"""Backends of a beam step against the reference: the same continuations, states, scores and order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.decoding import numba_step, step
from workers.decoding.index import build_index
from workers.decoding.step import Beams, Chosen
from workers.ragged import Ragged

QUERIES = 3
FAST = {"numba": numba_step.best_continuations}


def compare(
    rows, vocabulary: int, sort: str, shard_tokens: int, seed: int, most: int, longest: int, ties: bool
) -> None:
    """Walk from the root with random log-probabilities; every backend sees the reference's beams."""
    index = build_index(Ragged.of(rows), vocabulary, sort, shard_tokens)
    rng = np.random.default_rng(seed)
    lo, hi = (np.tile(each, (QUERIES, 1)) for each in index.whole())
    live = Beams(query=np.arange(QUERIES), lo=lo, hi=hi, score=np.zeros(QUERIES))
    for depth in range(longest):
        log_probs = -rng.exponential(size=(len(live.query), vocabulary)).astype(np.float32)
        if ties:
            log_probs = np.round(log_probs)
        expected = step.best_continuations(index, live, log_probs, depth, QUERIES, most)
        for name, backend in FAST.items():
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


@pytest.mark.parametrize("vocabulary", [300, 3000, 70_000])
@pytest.mark.parametrize("shard_tokens", [1 << 20, 20_000])
@pytest.mark.parametrize("most", [2, 200])
def test_equal_where_intervals_are_wide(vocabulary: int, shard_tokens: int, most: int) -> None:
    """Frequent tokens, so that beams are looked up by token as well as enumerated; 32-bit tokens among them."""
    rng = np.random.default_rng(0)
    rows = [(rng.zipf(1.3, size=rng.integers(1, 300)) % vocabulary).tolist() for _ in range(200)]
    rows[0][0] = vocabulary - 1
    for ties in (False, True):
        compare(rows, vocabulary, "suffixes", shard_tokens, 1, most, 5, ties)


def test_tokens_that_the_model_rules_out_come_last() -> None:
    """A log-probability of minus infinity is still a continuation where there are too few others."""
    index = build_index(Ragged.of([[0, 1], [2, 1], [3, 1]]), 6, "rows")
    lo, hi = (each[None] for each in index.whole())
    live = Beams(query=np.zeros(1, dtype=np.int64), lo=lo, hi=hi, score=np.zeros(1))
    log_probs = np.array([[-np.inf, 0, -1, -np.inf, 0, 0]], dtype=np.float32)
    for backend in (step.best_continuations, *FAST.values()):
        assert backend(index, live, log_probs, 0, 1, 2).token.tolist() == [2, 0]
