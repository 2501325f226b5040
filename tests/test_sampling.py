"""Constrained sampling against exact probabilities over a small trie."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_beam import VOCABULARY, TableSession, path_log_probs, rows_strategy, sequences

from workers.decoding.index import build_index
from workers.decoding.sampling import Sampling, sample
from workers.ragged import Ragged


def generators(queries: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, query]) for query in range(queries)]


@settings(max_examples=60, deadline=None)
@given(rows_strategy, st.integers(1, 20), st.integers(0, 99), st.booleans(), st.sampled_from([6, 1 << 20]))
def test_only_real_sequences_with_the_models_scores(rows, samples, seed, suffixes, shard_tokens) -> None:
    index = build_index(Ragged.of(rows), VOCABULARY, "suffixes" if suffixes else "rows", shard_tokens)
    sampling = Sampling(samples=samples, temperature=0.7, max_new_tokens=6)
    found = sample(TableSession(2, seed), index, sampling, generators(2))
    strings = {tuple(r[s:]) for r in rows for s in (range(len(r)) if suffixes else ([0] if r else []))}
    for query in range(2):
        mine = sequences(found.candidates, index, query)
        for path, score in mine.items():
            assert any(string[: len(path)] == path for string in strings)
            expected = sum(float(path_log_probs((query, *path[:d]), seed)[token]) for d, token in enumerate(path))
            assert score == pytest.approx(expected, abs=1e-4)
        assert sum(len(path) == 1 for path in mine) <= samples
        assert bool(mine) == bool(strings - {()})
    assert (found.rows <= samples).all()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_follow_the_tempered_distribution(temperature: float) -> None:
    rows = [[0, 1], [0, 2], [3, 1], [4, 5]]
    index = build_index(Ragged.of(rows), VOCABULARY, "rows")
    sampling = Sampling(samples=1, temperature=temperature, max_new_tokens=2)
    count: dict[tuple[int, ...], int] = {}
    draws = 1500
    for seed in range(draws):
        found = sample(TableSession(1, 7), index, sampling, generators(1, seed))
        (path,) = sequences(found.candidates, index, 0, only_complete=True)
        count[path] = count.get(path, 0) + 1

    def share(options: list[int], path: tuple[int, ...]) -> dict[int, float]:
        values = np.array([float(path_log_probs((0, *path), 7)[token]) / temperature for token in options])
        return dict(zip(options, np.exp(values) / np.exp(values).sum(), strict=True))

    first, second = share([0, 3, 4], ()), share([1, 2], (0,))
    expected = {(0, 1): first[0] * second[1], (0, 2): first[0] * second[2], (3, 1): first[3], (4, 5): first[4]}
    for path, probability in expected.items():
        assert count.get(path, 0) / draws == pytest.approx(probability, abs=4 * np.sqrt(0.25 / draws))


def test_a_query_draws_the_same_in_any_batch() -> None:
    index = build_index(Ragged.of(np.random.default_rng(0).integers(0, 9, size=(30, 4)).tolist()), VOCABULARY, "rows")
    sampling = Sampling(samples=5, temperature=1.0, max_new_tokens=4)
    together = sample(TableSession(3, 1), index, sampling, generators(3))
    alone = sample(TableSession(1, 1), index, sampling, generators(1))
    assert sequences(together.candidates, index, 0) == sequences(alone.candidates, index, 0)
