"""One step of the constraint: which tokens may follow each beam, and the state that each leads to.

This is the readable reference, which enumerates everything; `numba_step.py` and `torch_step.py` find the best
continuations without it, with the same results. States are `lo` and `hi`, int64 (beams, shards).
"""

from dataclasses import dataclass

import numpy as np

from workers.decoding.index import Index, Shard
from workers.ragged import concatenated_ranges


@dataclass(frozen=True, kw_only=True)
class Children:
    """One entry a (beam, token); grouped by beam, tokens ascending in a group."""

    beam: np.ndarray
    token: np.ndarray
    """int64 (entries,) both."""
    lo: np.ndarray
    hi: np.ndarray
    """int64 (entries, shards)."""


def children(index: Index, lo: np.ndarray, hi: np.ndarray, depth: int) -> Children:
    """All continuations of beams that matched `depth` tokens. A match never runs over a boundary."""
    found = [
        _of_shard(shard, index.boundary, lo[:, number], hi[:, number], depth)
        for number, shard in enumerate(index.shards)
    ]
    beam, token = (np.concatenate([part[place] for part in found]) for place in (0, 1))
    key = beam * (index.boundary + 1) + token
    distinct, entry = np.unique(key, return_inverse=True)
    new_lo, new_hi = (np.zeros((len(distinct), len(index.shards)), dtype=np.int64) for _ in range(2))
    shard_of = np.repeat(np.arange(len(found)), [len(part[0]) for part in found])
    new_lo[entry, shard_of] = np.concatenate([part[2] for part in found])
    new_hi[entry, shard_of] = np.concatenate([part[3] for part in found])
    beam, token = np.divmod(distinct, index.boundary + 1)
    return Children(beam=beam, token=token, lo=new_lo, hi=new_hi)


def can_grow(index: Index, lo: np.ndarray, hi: np.ndarray, depth: int) -> np.ndarray:
    """Whether a token follows the `depth` tokens of each state. Boundaries sort last, so the first entry tells."""
    grows = np.zeros(len(lo), dtype=bool)
    for number, shard in enumerate(index.shards):
        there = np.flatnonzero(hi[:, number] > lo[:, number])
        grows[there] |= shard.tokens_behind(lo[there, number], depth) != index.boundary
    return grows


Part = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""beam, token, lo, hi of one shard's continuations."""


def _of_shard(shard: Shard, boundary: int, lo: np.ndarray, hi: np.ndarray, depth: int) -> Part:
    if shard.by_columns and depth >= len(shard.base) - 1:
        lo = hi  # nothing is longer
    if depth == 0:
        beam, at = _all_pairs(np.flatnonzero(hi > lo), len(shard.first_token))
        token = shard.read(shard.first_token[at], 0)
        return beam, token, _wide(shard.first_lo[at]), _wide(shard.first_lo[at + 1])
    if depth == 1:
        return _second(shard, boundary, lo, hi)
    return _deeper(shard, boundary, lo, hi, depth)


def _all_pairs(beams: np.ndarray, entries: int) -> tuple[np.ndarray, np.ndarray]:
    return np.repeat(beams, entries), np.tile(np.arange(entries), len(beams))


def _wide(positions: np.ndarray) -> np.ndarray:
    return positions.astype(np.int64)


def _second(shard: Shard, boundary: int, lo: np.ndarray, hi: np.ndarray) -> Part:
    beams = np.flatnonzero(hi > lo)
    group = np.searchsorted(shard.first_lo, lo[beams], side="right") - 1
    starts = _wide(shard.second_offsets[group])
    at, owner = concatenated_ranges(starts, _wide(shard.second_offsets[group + 1]) - starts)
    token = shard.read(shard.second_token[at], 1)
    inside = token != boundary
    at, owner, token = at[inside], owner[inside], token[inside]
    return beams[owner], token, _wide(shard.second_lo[at]), _wide(shard.second_lo[at + 1])


def _deeper(shard: Shard, boundary: int, lo: np.ndarray, hi: np.ndarray, depth: int) -> Part:
    at, beam = concatenated_ranges(lo, hi - lo)
    token = shard.tokens_behind(at, depth)
    starts = np.flatnonzero(np.diff(beam, prepend=-1) | np.diff(token, prepend=-1))
    ends = np.append(starts[1:], len(at))
    inside = token[starts] != boundary
    starts, ends = starts[inside], ends[inside]
    return beam[starts], token[starts], at[starts], at[ends - 1] + 1
