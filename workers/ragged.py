"""Rows of different lengths as two flat arrays: what documents, queries, identifiers and pairs are stored as."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Ragged:
    """`row(i) = values[offsets[i]:offsets[i + 1]]`; `offsets` has one entry more than there are rows."""

    values: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """int64 (rows,)."""
        return np.diff(self.offsets)

    def take(self, rows: np.ndarray) -> "Ragged":
        """The given rows in the given order; a row may be taken more than once."""
        rows = np.asarray(rows, dtype=np.int64)
        lengths = self.lengths[rows]
        positions, _ = concatenated_ranges(self.offsets[rows], lengths)
        return Ragged(values=np.asarray(self.values)[positions], offsets=np.concatenate([[0], np.cumsum(lengths)]))

    def padded(self, rows: np.ndarray, fill: int, left: bool = False) -> np.ndarray:
        """int64 (len(rows), width) with `fill` behind (or before, if `left`) each row."""
        rows = np.asarray(rows, dtype=np.int64)
        lengths = self.offsets[rows + 1] - self.offsets[rows]
        width = int(lengths.max(initial=0))
        begins = np.arange(len(rows)) * width + ((width - lengths) if left else 0)
        out = np.full((len(rows), width), fill, dtype=np.int64)
        out.reshape(-1)[concatenated_ranges(begins, lengths)[0]] = self.values[
            concatenated_ranges(self.offsets[rows], lengths)[0]
        ]
        return out

    def save(self, folder: Path, name: str) -> None:
        """As `<name>_tokens.npy` and `<name>_offsets.npy`."""
        np.save(folder / f"{name}_tokens.npy", self.values)
        np.save(folder / f"{name}_offsets.npy", self.offsets)

    @classmethod
    def load(cls, folder: Path, name: str) -> "Ragged":
        """Memory-mapped, read-only."""
        return cls(
            values=np.load(folder / f"{name}_tokens.npy", mmap_mode="r"),
            offsets=np.load(folder / f"{name}_offsets.npy"),
        )

    @classmethod
    def of(cls, rows: Iterable[Sequence[int] | np.ndarray]) -> "Ragged":
        """From a sequence of sequences, as int32."""
        arrays = [np.asarray(row, dtype=np.int32) for row in rows]
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in arrays], dtype=np.int64)]).astype(np.int64)
        values = np.concatenate(arrays) if arrays else np.empty(0, dtype=np.int32)
        return cls(values=values, offsets=offsets)

    @classmethod
    def joined(cls, parts: Sequence["Ragged"]) -> "Ragged":
        """The rows of all parts, one part after the other."""
        lengths = np.concatenate([part.lengths for part in parts])
        values = np.concatenate([part.values[part.offsets[0] : part.offsets[-1]] for part in parts])
        return cls(values=values, offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def concatenated_ranges(starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All of `range(starts[i], starts[i] + lengths[i])`, one after the other, and the i that each belongs to."""
    lengths = np.asarray(lengths, dtype=np.int64)
    before = np.cumsum(lengths) - lengths
    owner = np.repeat(np.arange(len(lengths)), lengths)
    return np.arange(len(owner)) + (np.asarray(starts, dtype=np.int64) - before)[owner], owner
