"""Beam search against exhaustive search and against a plain search over a dictionary trie."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.decoding import numba_step, step
from workers.decoding.beam import Candidates, Search, beam_search
from workers.decoding.device_beam import beam_search_on_device
from workers.decoding.index import build_index
from workers.decoding.step import best_per_query
from workers.decoding.torch_step import DeviceIndex
from workers.models.build import build
from workers.models.sessions import open_session
from workers.ragged import Ragged
from workers.settings import ModelSettings

VOCABULARY = 12
QUERIES = Ragged.of([[5, 6, 7], [8], [9, 10, 11, 3, 4]])
ENGINES = {
    "reference": lambda session, index, search: beam_search(session, index, search, step.best_continuations),
    "numba": lambda session, index, search: beam_search(session, index, search, numba_step.best_continuations),
    "device": lambda session, index, search: beam_search_on_device(
        session, DeviceIndex.of(index, torch.device("cpu")), search
    ),
}


class TableSession:
    """Log-probabilities that depend on the whole path through a seeded hash: a model with no structure to exploit."""

    def __init__(self, queries: int, seed: int) -> None:
        self.seed = seed
        self.queries = queries
        self.restart()
        self.first = self._log_probs()

    def restart(self) -> None:
        self.paths: list[tuple[int, ...]] = [(query,) for query in range(self.queries)]

    def advance(self, parents: torch.Tensor, tokens: torch.Tensor, each: int | None = None) -> torch.Tensor:
        self.paths = [(*self.paths[int(p)], int(t)) for p, t in zip(parents, tokens, strict=True)]
        return self._log_probs()

    def _log_probs(self) -> torch.Tensor:
        return torch.stack([path_log_probs(path, self.seed) for path in self.paths])


def path_log_probs(path: tuple[int, ...], seed: int) -> torch.Tensor:
    noise = np.random.default_rng([seed, len(path), *path]).standard_normal(VOCABULARY)
    return torch.log_softmax(torch.from_numpy(noise), 0).float()


def reference_search(rows, query: int, seed: int, beams: int, longest: int, suffixes: bool):
    """One query, over a dictionary trie: {sequence: score} of the best 2 x beams of each step, and those complete."""
    strings = [tuple(r[s:]) for r in rows for s in (range(len(r)) if suffixes else ([0] if r else []))]
    live = [((), 0.0)]
    seen, complete = {}, {}
    for depth in range(longest):
        found = []
        for path, score in live:
            log_probs = path_log_probs((query, *path), seed)
            for token in sorted({s[depth] for s in strings if len(s) > depth and s[:depth] == path}):
                found.append(((*path, token), score + float(log_probs[token])))
        found = sorted(found, key=lambda each: -each[1])[: 2 * beams]
        seen |= dict(found)
        grows = [any(s[: depth + 1] == path and len(s) > depth + 1 for s in strings) for path, _ in found]
        complete |= {path: s for (path, s), grow in list(zip(found, grows, strict=True))[:beams] if not grow}
        live = [each for each, grow in zip(found, grows, strict=True) if grow][:beams]
    return seen, complete


def sequences(candidates: Candidates, index, query: int, only_complete: bool = False) -> dict[tuple[int, ...], float]:
    chosen = np.flatnonzero((candidates.query == query) & (candidates.complete | (not only_complete)))
    paths = [tuple(index.prefix(candidates.lo[i], candidates.hi[i], candidates.length[i]).tolist()) for i in chosen]
    assert len(set(paths)) == len(paths), "a sequence was looked at twice"
    return dict(zip(paths, candidates.score[chosen].tolist(), strict=True))


rows_strategy = st.lists(st.lists(st.integers(0, VOCABULARY - 1), max_size=6), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(
    rows_strategy,
    st.integers(1, 6),
    st.integers(1, 5),
    st.integers(0, 99),
    st.booleans(),
    st.sampled_from([6, 1 << 20]),
    st.sampled_from(list(ENGINES)),
)
def test_equals_search_over_a_trie(rows, beams, longest, seed, suffixes, shard_tokens, engine) -> None:
    index = build_index(Ragged.of(rows), VOCABULARY, "suffixes" if suffixes else "rows", shard_tokens)
    search = Search(beams=beams, max_new_tokens=longest)
    found = ENGINES[engine](TableSession(3, seed), index, search).candidates
    for query in range(3):
        seen, complete = reference_search(rows, query, seed, beams, longest, suffixes)
        assert sequences(found, index, query) == pytest.approx(seen, abs=1e-4)
        assert set(sequences(found, index, query, only_complete=True)) == set(complete)


@settings(max_examples=60, deadline=None)
@given(rows_strategy, st.integers(1, 6), st.integers(0, 99), st.integers(1, 6), st.sampled_from(list(ENGINES)))
def test_a_floor_loses_nothing_that_matters(rows, beams, seed, wanted, engine) -> None:
    """The best finished sequences are the same where hopeless beams are dropped, and no more rows are spent."""
    index = build_index(Ragged.of(rows), VOCABULARY, "rows")
    everything = ENGINES["reference"](TableSession(3, seed), index, Search(beams=beams, max_new_tokens=6))
    search = Search(beams=beams, max_new_tokens=6, wanted=wanted)
    found = ENGINES[engine](TableSession(3, seed), index, search)
    for query in range(3):
        all_of_them = sequences(everything.candidates, index, query, only_complete=True)
        kept = sequences(found.candidates, index, query, only_complete=True)
        assert sorted(kept.values())[-wanted:] == pytest.approx(sorted(all_of_them.values())[-wanted:], abs=1e-4)
        assert set(kept) <= set(all_of_them)
    passes = found.rows.shape[1]
    assert (found.rows <= everything.rows[:, :passes]).all()


@settings(max_examples=60, deadline=None)
@given(rows_strategy, st.integers(1, 6), st.integers(0, 99), st.floats(-12, 0), st.sampled_from(list(ENGINES)))
def test_a_floor_keeps_what_is_above_it(rows, beams, seed, floor, engine) -> None:
    index = build_index(Ragged.of(rows), VOCABULARY, "suffixes")
    everything = ENGINES["reference"](TableSession(2, seed), index, Search(beams=beams, max_new_tokens=5))
    found = ENGINES[engine](TableSession(2, seed), index, Search(beams=beams, max_new_tokens=5, floor=floor))
    for query in range(2):
        above = {path: s for path, s in sequences(everything.candidates, index, query).items() if s > floor}
        kept = sequences(found.candidates, index, query)
        assert {path: s for path, s in kept.items() if s > floor} == pytest.approx(above, abs=1e-4)


@settings(max_examples=40, deadline=None)
@given(rows_strategy, st.integers(0, 99))
def test_wide_beams_find_every_identifier(rows, seed) -> None:
    index = build_index(Ragged.of(rows), VOCABULARY, "rows")
    found = beam_search(TableSession(1, seed), index, Search(beams=100, max_new_tokens=6)).candidates
    leaves = {tuple(r) for r in rows if r if not any(o[: len(r)] == r and len(o) > len(r) for o in rows)}
    expected = {
        leaf: sum(float(path_log_probs((0, *leaf[:depth]), seed)[token]) for depth, token in enumerate(leaf))
        for leaf in leaves
    }
    assert sequences(found, index, 0, only_complete=True) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_batched_equals_one_by_one(family: str) -> None:
    model = build(ModelSettings(family=family, size={"t5": "7k", "llama": "6k"}[family]), VOCABULARY, 0, 1).eval()
    rows = np.random.default_rng(0).integers(2, VOCABULARY, size=(40, 6)).tolist()
    index = build_index(Ragged.of(rows), VOCABULARY, "suffixes")

    def search(batch: list[int]) -> Candidates:
        session = open_session(model, QUERIES, np.array(batch), np.ones(len(batch)), 64)
        return beam_search(session, index, Search(beams=5, max_new_tokens=4)).candidates

    together = search([0, 1, 2])
    for query in range(3):
        alone = sequences(search([query]), index, 0)
        assert sequences(together, index, query) == pytest.approx(alone, abs=1e-4)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), max_size=30), st.integers(1, 5))
def test_best_per_query_equals_sorting(entries, most) -> None:
    entries.sort(key=lambda entry: entry[0])
    query = np.array([entry[0] for entry in entries], dtype=np.int64)
    score = np.array([float(entry[1]) for entry in entries])
    picked, place = best_per_query(query, score, 4, most)
    expected = []
    for each in range(4):
        mine = sorted((i for i in range(len(entries)) if query[i] == each), key=lambda i: (-score[i], i))[:most]
        expected.extend(zip(mine, range(len(mine)), strict=True))
    assert list(zip(picked.tolist(), place.tolist(), strict=True)) == expected


def test_rows_are_counted_for_flops() -> None:
    index = build_index(Ragged.of([[1, 2, 3], [1, 3, 2]]), VOCABULARY, "rows")
    for engine in ENGINES.values():
        result = engine(TableSession(2, 0), index, Search(beams=4, max_new_tokens=3))
        assert result.rows.tolist() == [[1, 1, 2], [1, 1, 2]]
