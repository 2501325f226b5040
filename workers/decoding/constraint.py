"""One step of the constraint: which tokens may follow each beam, and the interval that each leads to."""

from dataclasses import dataclass

import numpy as np

from workers.decoding.index import Index
from workers.ragged import concatenated_ranges


@dataclass(frozen=True, kw_only=True)
class Children:
    """Flat arrays, one entry a (beam, token); grouped by beam, tokens ascending in a group."""

    beam: np.ndarray
    token: np.ndarray
    lo: np.ndarray
    hi: np.ndarray


def children(index: Index, lo: np.ndarray, hi: np.ndarray, depth: int) -> Children:
    """All continuations of beams `[lo, hi)` that matched `depth` tokens. A match never runs over a boundary."""
    if depth == 0:
        return _first(index, len(lo))
    if depth == 1:
        return _second(index, lo)
    return _deeper(index, lo, hi, depth)


def can_grow(index: Index, lo: np.ndarray, depth: int) -> np.ndarray:
    """Whether a token follows the `depth` tokens of each interval. Boundaries sort last, so its first entry tells."""
    return index.tokens[index.order[lo] + depth] != index.boundary


def _first(index: Index, beams: int) -> Children:
    kinds = len(index.first_token)
    return Children(
        beam=np.repeat(np.arange(beams), kinds),
        token=np.tile(index.first_token, beams),
        lo=np.tile(index.first_lo[:-1], beams),
        hi=np.tile(index.first_lo[1:], beams),
    )


def _second(index: Index, lo: np.ndarray) -> Children:
    group = np.searchsorted(index.first_lo, lo, side="right") - 1
    starts = index.second_offsets[group]
    at, beam = concatenated_ranges(starts, index.second_offsets[group + 1] - starts)
    return Children(beam=beam, token=index.second_token[at], lo=index.second_lo[at], hi=index.second_hi[at])


def _deeper(index: Index, lo: np.ndarray, hi: np.ndarray, depth: int) -> Children:
    at, beam = concatenated_ranges(lo, hi - lo)
    token = index.tokens[index.order[at] + depth]
    starts = np.flatnonzero(np.diff(beam, prepend=-1) | np.diff(token, prepend=-1))
    ends = np.append(starts[1:], len(at))
    inside = token[starts] != index.boundary
    starts, ends = starts[inside], ends[inside]
    return Children(beam=beam[starts], token=token[starts], lo=at[starts], hi=at[ends - 1] + 1)
