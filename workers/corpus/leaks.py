"""Which of many strings occur verbatim in which of many texts, in one pass over the texts.

Karp and Rabin's search for many patterns at once (IBM J. Res. Dev. 31(2), 1987), vectorised: the hash of
every window of 2w characters comes from those of its two halves, so windows of 1, 2, 4 ... 32 characters
cost six array operations. A pattern is looked up by the longest such window at its start, and every hit
is verified, so the answer is exact. It works on characters and so for any script.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

_WIDTHS = (1, 2, 4, 8, 16, 32)
_FACTORS = np.random.default_rng(0x5EED).integers(1 << 62, 1 << 63, size=len(_WIDTHS), dtype=np.uint64) | np.uint64(1)
_CHUNK = 1 << 21
"""Characters searched together: a few arrays of 16 MB."""
_TABLE_BITS = 20


def _windows(text: str) -> Iterator[tuple[int, np.ndarray]]:
    """(width, hash of the window that starts at each character) for every width that fits into the text."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    hashes = (codes.astype(np.uint64) + np.uint64(1)) * _FACTORS[0]
    yield 1, hashes
    for level, width in enumerate(_WIDTHS[:-1], start=1):
        if len(codes) < 2 * width:
            return
        # The multiplication by an odd constant and the shift keep the order of the halves in the hash.
        hashes = (hashes[:-width] ^ (hashes[:-width] >> np.uint64(29))) * _FACTORS[level] + hashes[width:]
        yield 2 * width, hashes


def _bucket(hashes: np.ndarray) -> np.ndarray:
    mixed = (hashes ^ (hashes >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
    return (mixed >> np.uint64(64 - _TABLE_BITS)).astype(np.int64)


class _Lookup:
    """Patterns by the hash of their leading window of one width."""

    def __init__(self, patterns: np.ndarray, windows: np.ndarray) -> None:
        order = np.argsort(windows, kind="stable")
        self.patterns, self.windows = patterns[order], windows[order]
        self.table = np.zeros(1 << _TABLE_BITS, dtype=bool)
        self.table[_bucket(self.windows)] = True

    def without(self, patterns: set[int]) -> "_Lookup":
        """The same for the other patterns."""
        keep = ~np.isin(self.patterns, list(patterns))
        return self if keep.all() else _Lookup(self.patterns[keep], self.windows[keep])

    def hits(self, hashes: np.ndarray) -> Iterator[tuple[int, int]]:
        """(pattern, position) of every window that may start a pattern."""
        positions = np.flatnonzero(self.table[_bucket(hashes)])
        begin = np.searchsorted(self.windows, hashes[positions], side="left")
        end = np.searchsorted(self.windows, hashes[positions], side="right")
        for row in np.flatnonzero(end > begin).tolist():
            for pattern in self.patterns[begin[row] : end[row]].tolist():
                yield pattern, int(positions[row])


def _lookups(patterns: Sequence[str]) -> dict[int, _Lookup]:
    """A lookup for each width that is the longest to fit into some pattern."""
    lengths = np.array([len(pattern) for pattern in patterns], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths + 1)[:-1]]).astype(np.int64)
    lookups = {}
    for width, hashes in _windows("\n".join(patterns)):
        longer = lengths >= 2 * width if width < _WIDTHS[-1] else np.zeros(len(lengths), dtype=bool)
        members = np.flatnonzero((lengths >= width) & ~longer)
        if len(members):
            lookups[width] = _Lookup(members, hashes[starts[members]])
    return lookups


def _chunks(texts: Iterable[str]) -> Iterator[tuple[list[int], list[int], str]]:
    """(numbers of the texts, where each starts, the texts joined), cut at text borders."""
    numbers: list[int] = []
    starts: list[int] = []
    parts: list[str] = []
    length = 0
    for number, text in enumerate(texts):
        numbers.append(number)
        starts.append(length)
        parts.append(text)
        length += len(text) + 1
        if length >= _CHUNK:
            yield numbers, starts, "\n".join(parts)
            numbers, starts, parts, length = [], [], [], 0
    if parts:
        yield numbers, starts, "\n".join(parts)


def matches(patterns: Sequence[str], texts: Iterable[str], *, first: bool = False) -> Iterator[tuple[int, int]]:
    """(pattern, text) numbers of every pattern that is a substring of a text; a pair may come more than once.

    Neither may hold a line break (see `workers.corpus.documents.normalise`). Where `first` is set a pattern is
    not searched further once the stretch of text that it was found in is done.
    """
    lookups = _lookups(patterns)
    for numbers, starts, joined in _chunks(texts):
        found: set[int] = set()
        for width, hashes in _windows(joined):
            if width not in lookups:
                continue
            for pattern, position in lookups[width].hits(hashes):
                if first and pattern in found:
                    continue
                if joined.startswith(patterns[pattern], position):
                    found.add(pattern)
                    yield pattern, numbers[bisect_right(starts, position) - 1]
        if first and found:
            lookups = {width: lookup.without(found) for width, lookup in lookups.items()}


def contained(patterns: Sequence[str], texts: Iterable[str]) -> set[int]:
    """Numbers of the patterns that occur in any text."""
    return {pattern for pattern, _ in matches(patterns, texts, first=True)}


def contained_in_others(texts: Sequence[str]) -> set[int]:
    """Numbers of those of several distinct texts that occur inside another one."""
    return {pattern for pattern, text in matches(texts, texts) if pattern != text}
