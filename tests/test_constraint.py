"""The constraint against brute force: allowed tokens and counts at every depth, over random small corpora."""

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.decoding import index as index_module
from workers.decoding.constraint import can_grow, children
from workers.decoding.evidence import gather_rows
from workers.decoding.index import Index, PlannedIndex, Shard, build_index, write_index
from workers.ragged import Ragged

documents = st.lists(st.lists(st.integers(0, 5), max_size=9), min_size=1, max_size=6)


def prefixes(rows: list[list[int]], sort: str) -> list[list[int]]:
    if sort != "suffixes":
        return [row for row in rows if row]
    return [row[start:] for row in rows for start in range(len(row))]


def walk(rows: list[list[int]], sort: str, vocabulary: int = 6, shard_tokens: int = 1 << 20) -> None:
    """Compare every reachable state with a scan of all rows or suffixes."""
    index = build_index(Ragged.of(rows), vocabulary, sort, shard_tokens)
    strings = prefixes(rows, sort)
    frontier = [((), *index.whole())]
    for depth in range(10):
        if not frontier:
            break
        lo = np.stack([state[1] for state in frontier])
        hi = np.stack([state[2] for state in frontier])
        step = children(index, lo, hi, depth)
        found = {
            (*frontier[beam][0], int(token)): (low, high)
            for beam, token, low, high in zip(step.beam, step.token, step.lo, step.hi, strict=True)
        }
        expected: dict[tuple[int, ...], int] = {}
        for string in strings:
            if len(string) > depth:
                key = tuple(string[: depth + 1])
                expected[key] = expected.get(key, 0) + 1
        assert {key: int((high - low).sum()) for key, (low, high) in found.items()} == expected
        assert len(step.token) == len(found)
        grows = can_grow(index, step.lo, step.hi, depth + 1)
        for (key, _), grow in zip(found.items(), grows, strict=True):
            assert grow == any(tuple(s[: depth + 1]) == key and len(s) > depth + 1 for s in strings)
        frontier = [(key, low, high) for key, (low, high) in found.items()]


@settings(max_examples=150, deadline=None)
@given(documents, st.sampled_from([1, 5, 12, 1 << 20]))
def test_suffixes_equal_brute_force(rows: list[list[int]], shard_tokens: int) -> None:
    walk(rows, "suffixes", shard_tokens=shard_tokens)


@settings(max_examples=150, deadline=None)
@given(documents, st.sampled_from([1, 5, 12, 1 << 20]))
def test_rows_equal_brute_force(rows: list[list[int]], shard_tokens: int) -> None:
    walk(rows, "rows", shard_tokens=shard_tokens)


def in_order(rows: list[list[int]]) -> list[list[int]]:
    """Sorted as an index does: the end of a row comes after any token."""
    return sorted(rows, key=lambda row: [*row, 99])


not_empty = st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=5), min_size=1, max_size=6).map(in_order)
equally_long = st.integers(1, 4).flatmap(
    lambda length: st.lists(st.lists(st.integers(0, 5), min_size=length, max_size=length), min_size=1, max_size=6)
)
code_rows = not_empty | equally_long.map(in_order)


@settings(max_examples=150, deadline=None)
@given(code_rows, st.sampled_from([1, 12, 1 << 20]))
def test_columns_equal_brute_force(rows: list[list[int]], shard_tokens: int) -> None:
    walk(rows, "columns", shard_tokens=shard_tokens)


@settings(max_examples=100, deadline=None)
@given(code_rows, st.sampled_from([1, 12, 1 << 20]))
def test_columns_give_back_what_rows_do(rows: list[list[int]], shard_tokens: int) -> None:
    """Prefixes, whole rows, and which row an entry is; `some_rows` counts entries through all shards."""
    flat = Ragged.of(rows)
    index = build_index(flat, 6, "columns", shard_tokens)
    assert index.token_count == len(flat.values)
    numbers = np.arange(len(rows))[::-1]
    assert list(map(list, gather_rows([index], np.zeros_like(numbers), numbers))) == rows[::-1]
    assert index.some_rows(*index.whole(), numbers).tolist() == numbers.tolist()
    lo, hi = index.whole()
    for length in range(len(rows[0]) + 1):
        assert index.prefix(lo, hi, length).tolist() == rows[0][:length]


@pytest.mark.parametrize("rows", [[[]], [[1], [1, 2]], [[2, 1], [1, 2]], [[1, 3], [1, 2, 4]]])
def test_columns_need_sorted_rows(rows: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="sorted, and none is empty"):
        build_index(Ragged.of(rows), 6, "columns")


def test_columns_take_a_byte_a_code_and_come_back_from_a_folder(tmp_path) -> None:
    """Codes of 256 a level, in token ids of their own for each level; the first two columns are in the tables."""
    rows = np.unique(np.random.default_rng(0).integers(256, size=(1000, 5)), axis=0) + 4000 + 256 * np.arange(5)
    index = build_index(Ragged.of(rows.tolist()), 4000 + 5 * 256, "columns")
    assert index.shards[0].tokens.nbytes == len(rows) * 3
    index.save(tmp_path)
    again = Index.load(tmp_path)
    assert again.shards[0].row_tokens(np.arange(len(rows))).tolist() == rows.tolist()


def equal_files(one: Path, other: Path) -> bool:
    names = sorted(path.relative_to(one) for path in one.rglob("*.*"))
    assert names == sorted(path.relative_to(other) for path in other.rglob("*.*"))
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


@pytest.mark.parametrize("sort", ["suffixes", "rows", "columns"])
@pytest.mark.parametrize("shard_tokens", [1, 12, 1 << 20])
def test_an_index_is_the_same_written_planned_or_held(tmp_path: Path, sort: str, shard_tokens: int) -> None:
    rows = Ragged.of([[1, 2, 3], [1, 2, 4], [2, 2], [2, 3, 1, 5]])
    held = build_index(rows, 6, sort, shard_tokens)
    held.save(tmp_path / "held")
    written = write_index(tmp_path / "written", rows, 6, sort, shard_tokens)
    planned = PlannedIndex(rows, 6, sort, shard_tokens)
    planned.save(tmp_path / "planned")
    assert "shards" not in vars(planned), "nothing is kept of what was saved"
    assert equal_files(tmp_path / "held", tmp_path / "written")
    assert equal_files(tmp_path / "held", tmp_path / "planned")
    assert len(written.shards) == len(planned.shards) == len(held.shards)
    assert written.token_count == planned.token_count == held.token_count
    assert planned.whole()[1].tolist() == held.whole()[1].tolist()


def test_one_shard_is_held_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the next one is built, the arrays of the one before are gone."""
    alive: list[weakref.ref] = []

    def build(*arguments: Any) -> Shard:
        assert not any(shard() is not None for shard in alive)
        shard = build_shard(*arguments)
        alive.append(weakref.ref(shard.tokens))
        return shard

    build_shard = index_module._build_shard
    monkeypatch.setattr(index_module, "_build_shard", build)
    write_index(tmp_path, Ragged.of([[1, 2], [3], [2, 1]]), 4, "suffixes", shard_tokens=1)
    assert len(alive) == 3


def test_largest_token_ids_sort_right() -> None:
    for vocabulary in (2**16 - 1, 2**16, 2**16 + 1, 130_000):
        top = vocabulary - 1
        walk([[top, 0, top], [255, 256, 257, top], [0]], "suffixes", vocabulary)


def test_row_of_finds_the_document() -> None:
    index = build_index(Ragged.of([[1, 2], [], [3]]), 6, "suffixes")
    shard = index.shards[0]
    assert [int(shard.row_of(np.array([p]))[0]) for p in range(len(shard.tokens))] == [0, 0, 0, 1, 2, 2]
