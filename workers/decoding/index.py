"""The index behind every constraint: a token array and one sorted order of positions in it.

A row is a document (n-grams) or an identifier (codes); rows lie one after the other, each followed by
a boundary, which is larger than any token. `order` sorts either all positions (a suffix array) or the
starts of rows. Everything that begins with a given prefix is then one interval `[lo, hi)` of `order`:
that interval is a beam's whole state, and `hi - lo` is how often the prefix occurs. Two shallow tables
make the first two steps, where intervals are widest, independent of their width.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np
from pydivsufsort import divsufsort

from workers.ragged import Ragged


@dataclass(frozen=True, kw_only=True)
class Index:
    """Arrays of one index. All of them can be memory-mapped."""

    tokens: np.ndarray
    """Rows with a boundary behind each: int32 (n,)."""
    order: np.ndarray
    """Sorted positions: int64 (m,). Positions of boundaries are left out."""
    row_starts: np.ndarray
    """int64 (rows + 1,): where each row starts in `tokens`; the last entry is n."""
    first_token: np.ndarray
    """Tokens that a row or suffix starts with, ascending: (k,)."""
    first_lo: np.ndarray
    """int64 (k + 1,): their intervals of `order`."""
    second_token: np.ndarray
    """Second tokens, grouped by the first one, ascending in a group."""
    second_lo: np.ndarray
    second_hi: np.ndarray
    """Their intervals of `order`."""
    second_offsets: np.ndarray
    """int64 (k + 1,): the group of each first token."""
    boundary: np.ndarray
    """int (): the boundary's value."""

    def save(self, folder: Path) -> None:
        """One .npy a field."""
        folder.mkdir(parents=True, exist_ok=True)
        for field in fields(self):
            np.save(folder / f"{field.name}.npy", getattr(self, field.name))

    @classmethod
    def load(cls, folder: Path) -> "Index":
        """Memory-mapped, so that the workers of a node share one copy."""
        return cls(**{field.name: np.load(folder / f"{field.name}.npy", mmap_mode="r") for field in fields(cls)})

    def row_of(self, positions: np.ndarray) -> np.ndarray:
        """The row that each position of `tokens` lies in."""
        return np.searchsorted(self.row_starts, positions, side="right") - 1


def build_index(rows: Ragged, vocabulary: int, sort: Literal["suffixes", "rows"]) -> Index:
    """Index of the rows. Token ids must be below `vocabulary`. Empty rows are kept and never matched."""
    tokens, row_starts = _with_boundaries(rows, vocabulary)
    if sort == "suffixes":
        order = suffix_array(tokens)
        order = order[: len(order) - len(rows)]  # boundaries are the largest suffixes
    else:
        order = _sorted_rows(rows, vocabulary, row_starts)
    first = tokens[order]
    first_token, first_lo = np.unique(first, return_index=True)
    second = tokens[order + 1] if len(order) else first
    changes = np.flatnonzero((np.diff(first) != 0) | (np.diff(second) != 0)) + 1
    lo = np.concatenate([[0], changes]) if len(order) else np.empty(0, dtype=np.int64)
    hi = np.append(lo[1:], len(order)) if len(order) else lo
    inside = second[lo] != vocabulary
    lo, hi = lo[inside], hi[inside]
    return Index(
        tokens=tokens,
        order=order,
        row_starts=row_starts,
        first_token=first_token,
        first_lo=np.append(first_lo, len(order)),
        second_token=second[lo],
        second_lo=lo,
        second_hi=hi,
        second_offsets=np.searchsorted(first[lo], np.append(first_token, vocabulary)),
        boundary=np.array(vocabulary),
    )


def suffix_array(tokens: np.ndarray) -> np.ndarray:
    """Positions of all suffixes in ascending order, int64 (n,); by divsufsort over big-endian bytes.

    Comparing big-endian bytes compares tokens, so the byte positions that start a token are in token order.
    """
    if len(tokens) == 0:
        return np.empty(0, dtype=np.int64)
    width = 2 if int(tokens.max()) < 2**16 else 4
    text = tokens.astype(f">u{width}").view(np.uint8)
    positions = divsufsort(text)
    return (positions[positions % width == 0] // width).astype(np.int64)


def _with_boundaries(rows: Ragged, boundary: int) -> tuple[np.ndarray, np.ndarray]:
    row_starts = rows.offsets + np.arange(len(rows.offsets))
    tokens = np.full(row_starts[-1], boundary, dtype=np.int32)
    inside = np.ones(len(tokens), dtype=bool)
    inside[row_starts[1:] - 1] = False
    tokens[inside] = rows.values
    return tokens, row_starts


def _sorted_rows(rows: Ragged, boundary: int, row_starts: np.ndarray) -> np.ndarray:
    longest = int(rows.lengths.max(initial=0))
    columns = rows.padded(np.arange(len(rows)), fill=boundary)
    ranked = np.lexsort([columns[:, column] for column in reversed(range(longest))]) if longest else np.arange(0)
    return row_starts[:-1][ranked[rows.lengths[ranked] > 0]]
