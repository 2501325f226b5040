"""The index behind every constraint: token arrays and one sorted order of positions in them.

A row is a document (n-grams), a field of one (titles, pseudo-queries) or an identifier (codes). Rows lie one after
the other, each followed by a boundary, which is larger than any token. `order` sorts either all positions (a suffix
array) or the starts of rows. Everything that begins with a given prefix is then one interval `[lo, hi)` of `order`:
that interval is a beam's whole state, and `hi - lo` is how often the prefix occurs. Two shallow tables make the
first two steps, where intervals are widest, independent of their width.

Rows that come sorted, such as codes, can be stored by columns instead: entry r of the order is row r, so there is no
order to store, and a column's tokens count from its smallest, mostly in one byte each.

One suffix array holds up to `SHARD_TOKENS`; a larger corpus is cut into shards, and a state is an interval a shard.
Shards are built one by one, and what is written to a folder need not be held: `write_index` and `PlannedIndex`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numba
import numpy as np
from pydivsufsort import divsufsort

from results.files import read_json, write_json
from workers.ragged import Ragged

Sort = Literal["suffixes", "rows", "columns"]
"""What an order sorts; "columns" are rows that come sorted, one that continues another before it, and none empty."""

SHARD_TOKENS = 1 << 28
"""Sorting takes about 14 bytes a token for as long as it lasts: 3.8 GB for a whole shard of a 16-bit vocabulary."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Arrays of a run of whole rows. All of them can be memory-mapped.

    A group of the second table is the continuations of one first token; ends of rows are among them, as the boundary,
    which is last in its group. So the groups, and the entries within them, tile `order` without a gap.
    """

    tokens: np.ndarray
    """Rows with a boundary behind each: uint16 or uint32 (n,). By columns, the tokens of all rows at depth 2, then
    those at depth 3 and so on, less each depth's base; the shallow tables have the depths before."""
    order: np.ndarray
    """Sorted positions: uint32 (m,). Positions of boundaries are left out. None by columns."""
    row_starts: np.ndarray
    """uint32 (rows + 1,): where each row starts in `tokens`; the last entry is n. None by columns."""
    base: np.ndarray
    """int64 (longest row + 1,): by columns, what the tokens at each depth count from, in the tables too; the last is
    the boundary. None otherwise."""
    end: np.ndarray
    """int64 (longest row + 1,): by columns, what stands for the boundary at each depth: one more than any token there,
    or -1 where no row ends before. None otherwise."""
    first_token: np.ndarray
    """Tokens that a row or suffix starts with, ascending: (k,)."""
    first_lo: np.ndarray
    """uint32 (k + 1,): where the interval of each begins; it ends where the next one begins."""
    second_token: np.ndarray
    """What follows them, by first token, ascending in a group: (c,)."""
    second_lo: np.ndarray
    """uint32 (c + 1,): where the interval of each begins."""
    second_offsets: np.ndarray
    """uint32 (k + 1,): the group of each first token."""

    @property
    def by_columns(self) -> bool:
        """Whether entries are rows and `tokens` their columns."""
        return len(self.base) > 0

    @property
    def entries(self) -> int:
        """Length of the sorted order."""
        return int(self.first_lo[-1])

    @property
    def token_count(self) -> int:
        """Tokens of all rows, without boundaries."""
        if self.by_columns:
            every, boundary = np.arange(self.entries), self.base[-1]
            return sum(int((self.tokens_behind(every, d) != boundary).sum()) for d in range(len(self.base) - 1))
        return len(self.tokens) - len(self.row_starts) + 1

    def tokens_behind(self, entries: np.ndarray, depth: int) -> np.ndarray:
        """What stands `depth` tokens behind the beginning of entries of the order: int64."""
        if not self.by_columns:
            return self.tokens[self.order[entries].astype(np.int64) + depth].astype(np.int64)
        if not len(entries):  # of any depth, that no row may have
            return np.empty(0, dtype=np.int64)
        if depth == len(self.base) - 1:
            stored = np.zeros(len(entries), dtype=np.int64)
        elif depth < 2:
            token, lo = (self.first_token, self.first_lo) if depth == 0 else (self.second_token, self.second_lo)
            stored = token[np.searchsorted(lo, entries.astype(np.uint32), side="right") - 1]
        else:
            stored = self.tokens[entries + (depth - 2) * self.entries]
        return self.read(stored, depth)

    def read(self, stored: np.ndarray, depth: int) -> np.ndarray:
        """Tokens, as they are stored at a depth in `tokens` or in a shallow table, as what they are: int64."""
        if not self.by_columns:
            return stored.astype(np.int64)
        return np.where(stored == self.end[depth], self.base[-1], stored + self.base[depth])

    def row_tokens(self, rows: np.ndarray) -> np.ndarray:
        """By columns: rows, counted from this shard's first, int64 (rows, longest), boundaries behind their ends."""
        return np.stack([self.tokens_behind(rows, depth) for depth in range(len(self.base) - 1)], axis=1)

    def rows_at(self, entries: np.ndarray) -> np.ndarray:
        """The row, counted from this shard's first, that each entry of the order is or lies in: int64."""
        return entries.astype(np.int64) if self.by_columns else self.row_of(self.order[entries])

    def row_of(self, positions: np.ndarray) -> np.ndarray:
        """The row, counted from this shard's first, that each position of `tokens` lies in: int64."""
        return np.searchsorted(self.row_starts, positions.astype(np.uint32), side="right") - 1


@dataclass(frozen=True, kw_only=True)
class Index:
    """Shards in the order of their rows."""

    shards: tuple[Shard, ...]
    first_rows: np.ndarray
    """int64 (shards + 1,): the number of each shard's first row, and that of all rows."""
    boundary: int

    @property
    def token_count(self) -> int:
        """Tokens of all rows, without boundaries."""
        return sum(shard.token_count for shard in self.shards)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(getattr(shard, field.name).nbytes for shard in self.shards for field in fields(Shard))

    def whole(self) -> tuple[np.ndarray, np.ndarray]:
        """lo and hi of the empty prefix, int64 (shards,) each."""
        hi = np.array([shard.entries for shard in self.shards], dtype=np.int64)
        return np.zeros_like(hi), hi

    def some_rows(self, lo: np.ndarray, hi: np.ndarray, entries: np.ndarray) -> np.ndarray:
        """Rows of the given entries of one state, (shards,) each; entries count on from shard to shard. int64."""
        ends = np.cumsum(hi - lo)
        rows = np.empty(len(entries), dtype=np.int64)
        for number, shard in enumerate(self.shards):
            mine = np.flatnonzero(np.searchsorted(ends, entries, side="right") == number)
            ranks = entries[mine] - (ends[number] - hi[number])
            rows[mine] = shard.rows_at(ranks) + self.first_rows[number]
        return rows

    def prefix(self, lo: np.ndarray, hi: np.ndarray, length: int) -> np.ndarray:
        """The tokens that one state, (shards,) each, stands for."""
        shard = int(np.argmax(hi > lo))
        tokens = [self.shards[shard].tokens_behind(lo[shard : shard + 1], depth) for depth in range(length)]
        return np.concatenate([np.empty(0, dtype=np.int64), *tokens])

    def save(self, folder: Path) -> None:
        """A folder a shard with one .npy a field, and `index.json`."""
        for number, shard in enumerate(self.shards):
            _save_shard(shard, folder / str(number))
        _save_head(folder, self.boundary, self.first_rows.tolist())

    @classmethod
    def load(cls, folder: Path) -> "Index":
        """Memory-mapped, so that the workers of a node share one copy."""
        known = read_json(folder / "index.json")
        shards = tuple(_load_shard(folder / str(number)) for number in range(len(known["first_rows"]) - 1))
        first_rows = np.array(known["first_rows"], dtype=np.int64)
        return cls(shards=shards, first_rows=first_rows, boundary=known["boundary"])


class PlannedIndex(Index):
    """An index that is built when it is needed: by `save`, a shard at a time, so that all are never in memory; or
    all of it, once, as soon as it is searched. Rows may lie on disk and must stay as they are until then."""

    _plan: tuple[Ragged, int, Sort, int]

    def __init__(self, rows: Ragged, vocabulary: int, sort: Sort, shard_tokens: int = SHARD_TOKENS) -> None:
        first_rows = np.array(_cut(rows, shard_tokens), dtype=np.int64)
        plan = (rows, vocabulary, sort, shard_tokens)
        for name, value in (("first_rows", first_rows), ("boundary", vocabulary), ("_plan", plan)):
            object.__setattr__(self, name, value)  # as a frozen dataclass does

    @cached_property
    def shards(self) -> tuple[Shard, ...]:
        """All of them, in memory."""
        return build_index(*self._plan).shards

    def save(self, folder: Path) -> None:
        """As `Index.save`."""
        write_index(folder, *self._plan)


def _save_shard(shard: Shard, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for field in fields(Shard):
        np.save(folder / f"{field.name}.npy", getattr(shard, field.name))


def _save_head(folder: Path, boundary: int, first_rows: list[int]) -> None:
    write_json(folder / "index.json", {"boundary": boundary, "first_rows": first_rows})


def _load_shard(folder: Path) -> Shard:
    # As plain arrays over the mapped memory: numpy.memmap's own indexing is many times slower.
    return Shard(
        **{field.name: np.load(folder / f"{field.name}.npy", mmap_mode="r").view(np.ndarray) for field in fields(Shard)}
    )


def build_index(rows: Ragged, vocabulary: int, sort: Sort, shard_tokens: int = SHARD_TOKENS) -> Index:
    """Index of the rows, in memory. Token ids must be below `vocabulary`. Empty rows are kept and never matched.

    A row is never cut: one that is longer than `shard_tokens` is a shard of its own.
    """
    cuts = _cut(rows, shard_tokens)
    shards = tuple(_shards(rows, cuts, vocabulary, sort))
    return Index(shards=shards, first_rows=np.array(cuts, dtype=np.int64), boundary=vocabulary)


def write_index(folder: Path, rows: Ragged, vocabulary: int, sort: Sort, shard_tokens: int = SHARD_TOKENS) -> Index:
    """What `build_index` gives, written to a folder and mapped from there; one shard is in memory at a time."""
    cuts = _cut(rows, shard_tokens)
    shards = _shards(rows, cuts, vocabulary, sort)
    for number in range(len(cuts) - 1):
        _save_shard(next(shards), folder / str(number))  # without a name, so that it is gone when the next is built
    _save_head(folder, vocabulary, cuts)
    return Index.load(folder)


def _shards(rows: Ragged, cuts: list[int], vocabulary: int, sort: Sort) -> Iterator[Shard]:
    """One after the other, none of them held."""
    if sort == "columns":
        stored = _columns_format(rows, vocabulary)
        return (_build_columns(rows, begin, end, vocabulary, stored) for begin, end in pairwise(cuts))
    return (_build_shard(rows, begin, end, vocabulary, sort) for begin, end in pairwise(cuts))


def _cut(rows: Ragged, shard_tokens: int) -> list[int]:
    """The first row of each shard, and the number of rows; there is always one shard."""
    ends = np.asarray(rows.offsets)[1:] + np.arange(1, len(rows) + 1)  # with boundaries
    cuts, before = [0], 0
    while cuts[-1] < len(rows):
        last = int(np.searchsorted(ends, before + shard_tokens, side="right"))
        cuts.append(max(last, cuts[-1] + 1))
        before = int(ends[cuts[-1] - 1])
    return cuts if len(cuts) > 1 else [0, 0]


def _build_shard(rows: Ragged, begin: int, end: int, boundary: int, sort: str) -> Shard:
    tokens, row_starts = _with_boundaries(rows, begin, end, boundary)
    order = suffix_array(tokens)
    order = order[: len(order) - (end - begin)]  # boundaries are the largest suffixes
    if sort == "rows":
        starts = np.zeros(len(tokens), dtype=bool)
        starts[row_starts[:-1]] = True
        order = order[starts[order]]
    return _shard(tokens, order, row_starts, _none(np.int64), _none(np.int64), *_shallow(tokens, order))


def _shard(*arrays: np.ndarray) -> Shard:
    for array in arrays:
        array.setflags(write=False)  # as mapped files are, so that compiled code meets one type of array
    return Shard(**{field.name: array for field, array in zip(fields(Shard), arrays, strict=True)})


def _none(dtype: type) -> np.ndarray:
    return np.empty(0, dtype=dtype)


def _columns_format(rows: Ragged, boundary: int) -> tuple[np.ndarray, np.ndarray, np.dtype]:
    """`Shard.base` and `Shard.end`, and the smallest type for what is stored, the same for all shards."""
    lengths, begins = rows.lengths, np.asarray(rows.offsets)[:-1]
    if lengths.min(initial=1) == 0 or not _ascend(np.asarray(rows.values), np.asarray(rows.offsets)):
        raise ValueError("rows that are stored by columns are sorted, and none is empty")
    base, end, widest = [], [], 0
    for depth in range(lengths.max(initial=0)):
        there = lengths > depth
        tokens = rows.values[begins[there] + depth]
        base.append(int(tokens.min()))
        span = int(tokens.max()) - base[-1]
        end.append(-1 if there.all() else span + 1)
        widest = max(widest, span, end[-1])
    return np.array([*base, boundary]), np.array([*end, 0]), np.min_scalar_type(widest)


@numba.njit(cache=True)
def _ascend(values: np.ndarray, offsets: np.ndarray) -> bool:
    """Whether rows are sorted; one that continues another comes before it, since boundaries are largest."""
    for row in range(1, len(offsets) - 1):
        before, at = offsets[row - 1], offsets[row]
        while before < offsets[row] and at < offsets[row + 1] and values[before] == values[at]:
            before += 1
            at += 1
        if at < offsets[row + 1] and (before == offsets[row] or values[before] > values[at]):
            return False
    return True


def _build_columns(
    rows: Ragged, begin: int, end: int, boundary: int, stored: tuple[np.ndarray, np.ndarray, np.dtype]
) -> Shard:
    tokens, row_starts = _with_boundaries(rows, begin, end, boundary)
    first_token, first_lo, second_token, second_lo, second_offsets = _shallow(tokens, row_starts[:-1])
    base, ends, dtype = stored
    starts, stops = row_starts[:-1].astype(np.int64), row_starts[1:].astype(np.int64) - 1

    def packed(column: np.ndarray, depth: int) -> np.ndarray:
        return np.where(column == boundary, ends[depth], column - base[depth]).astype(dtype)

    columns = [packed(tokens[np.minimum(starts + depth, stops)], depth) for depth in range(2, len(base) - 1)]
    return _shard(
        np.concatenate([np.empty(0, dtype=dtype), *columns]),
        _none(np.uint32),
        _none(np.uint32),
        base,
        ends,
        packed(first_token, 0),
        first_lo,
        packed(second_token, 1),
        second_lo,
        second_offsets,
    )


def _with_boundaries(rows: Ragged, begin: int, end: int, boundary: int) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.asarray(rows.offsets[begin : end + 1]) - rows.offsets[begin]
    row_starts = (offsets + np.arange(len(offsets))).astype(np.uint32)
    tokens = np.full(int(row_starts[-1]), boundary, dtype=np.uint16 if boundary < 2**16 else np.uint32)
    inside = np.ones(len(tokens), dtype=bool)
    inside[row_starts[1:].astype(np.int64) - 1] = False
    tokens[inside] = rows.values[rows.offsets[begin] : rows.offsets[end]]
    return tokens, row_starts


def suffix_array(tokens: np.ndarray) -> np.ndarray:
    """Positions of all suffixes in ascending order, uint32 (n,); by divsufsort over big-endian bytes.

    Comparing big-endian bytes compares tokens, so the byte positions that start a token are in token order.
    """
    if len(tokens) == 0:
        return np.empty(0, dtype=np.uint32)
    width = tokens.dtype.itemsize
    return _token_positions(divsufsort(tokens.astype(tokens.dtype.newbyteorder(">")).view(np.uint8)), width)


@numba.njit(cache=True)
def _token_positions(byte_positions: np.ndarray, width: int) -> np.ndarray:
    out = np.empty(len(byte_positions) // width, dtype=np.uint32)
    found = 0
    for position in byte_positions:
        if position % width == 0:
            out[found] = position // width
            found += 1
    return out


@numba.njit(cache=True)
def _shallow(tokens: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, ...]:
    """The two shallow tables, by one pass that counts and one that writes; in the order of `Shard`'s fields."""
    firsts, seconds = 0, 0
    last_first = last_second = np.int64(-1)
    for position in order:
        first, second = np.int64(tokens[position]), np.int64(tokens[position + 1])
        firsts += first != last_first
        seconds += (first != last_first) or (second != last_second)
        last_first, last_second = first, second
    first_token = np.empty(firsts, dtype=tokens.dtype)
    first_lo = np.empty(firsts + 1, dtype=np.uint32)
    second_token = np.empty(seconds, dtype=tokens.dtype)
    second_lo = np.empty(seconds + 1, dtype=np.uint32)
    second_offsets = np.empty(firsts + 1, dtype=np.uint32)
    f, s = 0, 0
    last_first = last_second = np.int64(-1)
    for rank in range(len(order)):
        first, second = np.int64(tokens[order[rank]]), np.int64(tokens[order[rank] + 1])
        if first != last_first or second != last_second:
            if first != last_first:
                first_token[f], first_lo[f], second_offsets[f] = first, rank, s
                f += 1
            second_token[s], second_lo[s] = second, rank
            s += 1
        last_first, last_second = first, second
    first_lo[f] = second_lo[s] = len(order)
    second_offsets[f] = s
    return first_token, first_lo, second_token, second_lo, second_offsets
