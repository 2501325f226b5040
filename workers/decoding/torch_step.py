"""The step of `step.py` in tensors of fixed shapes, on any device, with nothing that waits for the host.

Of every beam the model's `looked_up` likeliest tokens are searched for in its interval, all at once, and so are the
first `looked_up` entries of the interval itself: a narrow beam is thereby enumerated. A query is certified where no
token of a wide beam that was not looked up could have come among its best; the caller asks for more where it is not.
With the whole vocabulary looked up every query is certified.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch

from workers.decoding.index import Index, Shard
from workers.decoding.step import Beams, Chosen

_LOWEST = -1e300
"""Stands for the score of a continuation that the model rules out, which must still beat one that does not exist."""

TOGETHER = 1 << 24
"""Tokens that are looked up at once; each takes about 100 bytes while it is."""


@dataclass(frozen=True, kw_only=True)
class DeviceShard:
    """A shard's arrays as int32 tensors, and the most halvings that a search in each kind of window takes."""

    tokens: torch.Tensor
    order: torch.Tensor
    first_token: torch.Tensor
    first_lo: torch.Tensor
    second_token: torch.Tensor
    second_lo: torch.Tensor
    second_offsets: torch.Tensor
    base: tuple[int, ...]
    end: tuple[int, ...]
    """As in `Shard`, both."""
    firsts: int
    seconds: int
    entries: int
    """Of the two tables and of the sorted order; the tensors have one more, which means nothing."""
    halvings: tuple[int, int, int]
    """At depth 0, at depth 1, and deeper."""


@dataclass(frozen=True, kw_only=True)
class DeviceIndex:
    """An index on a device. Shards must hold less than 2^31 tokens."""

    shards: tuple[DeviceShard, ...]
    boundary: int

    @classmethod
    def of(cls, index: Index, device: torch.device) -> "DeviceIndex":
        """Copies the arrays that a step reads: 8 bytes a token and 8 an entry of the tables."""
        return cls(shards=tuple(_to_device(shard, device) for shard in index.shards), boundary=index.boundary)


@dataclass(frozen=True, kw_only=True)
class State:
    """Slots for beams, the best of each query first; in an empty one every hi equals its lo."""

    lo: torch.Tensor
    hi: torch.Tensor
    """int64 (queries, slots, shards)."""
    score: torch.Tensor
    """float64 (queries, slots)."""

    def part(self, some: slice) -> "State":
        """Some of the queries."""
        return State(lo=self.lo[some], hi=self.hi[some], score=self.score[some])

    @property
    def alive(self) -> torch.Tensor:
        """bool (queries, slots)."""
        return (self.hi > self.lo).any(-1)


@dataclass(frozen=True, kw_only=True)
class Continuations:
    """The best continuations of each query, best first; what is not `valid` is empty."""

    slot: torch.Tensor
    """int64 (queries, most): the slot that each continues."""
    token: torch.Tensor
    lo: torch.Tensor
    hi: torch.Tensor
    """int64 (queries, most, shards)."""
    score: torch.Tensor
    valid: torch.Tensor
    grows: torch.Tensor
    certified: torch.Tensor
    """bool (queries,)."""


def whole(index: DeviceIndex, queries: int) -> State:
    """One slot a query, with the empty prefix."""
    device = index.shards[0].order.device
    hi = torch.tensor([shard.entries for shard in index.shards], device=device).expand(queries, 1, -1)
    score = torch.zeros(queries, 1, dtype=torch.float64, device=device)
    return State(lo=torch.zeros_like(hi), hi=hi, score=score)


def continue_beams(
    index: DeviceIndex, state: State, log_probs: torch.Tensor, depth: int, most: int, looked_up: int
) -> Continuations:
    """`log_probs`: float32 (queries, slots, vocabulary) of the next token. Queries go one after the other where the
    tokens of all would be more than `TOGETHER`."""
    queries, slots, vocabulary = log_probs.shape
    looked_up = vocabulary if depth == 0 else min(looked_up, vocabulary)
    together = max(1, TOGETHER // (slots * looked_up * (1 + len(index.shards))))
    parts = []
    for begin in range(0, queries, together):
        some = slice(begin, begin + together)
        parts.append(_continue(index, state.part(some), log_probs[some], depth, most, looked_up))
    if len(parts) == 1:
        return parts[0]
    names = [field.name for field in fields(Continuations)]
    return Continuations(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def _continue(
    index: DeviceIndex, state: State, log_probs: torch.Tensor, depth: int, most: int, looked_up: int
) -> Continuations:
    queries, _, vocabulary = log_probs.shape
    values, tokens = torch.topk(log_probs, looked_up)
    tail, everything = values[..., -1].double(), looked_up == vocabulary
    covered = torch.ones_like(state.alive)
    if not everything:
        listed, covered = _listed(index, state, depth, looked_up)
        tokens = torch.cat([tokens, listed], dim=-1)
    tokens = tokens.sort(-1).values  # equal scores then keep the order of tokens
    values = log_probs.gather(-1, tokens.clamp(max=vocabulary - 1))
    lo, hi = _look_up(index, state, tokens, depth)
    there = (hi > lo).any(-1)
    there[..., 1:] &= tokens[..., 1:] != tokens[..., :-1]
    total = torch.where(there, (state.score[..., None] + values).clamp(min=_LOWEST), -torch.inf)
    total, picked = (each[:, :most] for each in total.flatten(1).sort(dim=1, descending=True, stable=True))
    valid = total > -torch.inf
    enough = total[:, -1] if total.shape[1] == most else total.new_full((queries,), -torch.inf)
    certified = (covered | (state.score + tail < enough[:, None]) | ~state.alive).all(1)
    lo, hi = (each.flatten(1, 2).gather(1, picked[..., None].expand(-1, -1, lo.shape[-1])) for each in (lo, hi))
    return Continuations(
        slot=picked // tokens.shape[-1],
        token=tokens.flatten(1).gather(1, picked),
        lo=lo,
        hi=torch.where(valid[..., None], hi, lo),
        score=torch.where(total > _LOWEST, total, -torch.inf),
        valid=valid,
        grows=_grows(index, lo, hi, depth + 1) & valid,
        certified=certified,
    )


def _listed(index: DeviceIndex, state: State, depth: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens of the first `count` entries of every beam's window in each shard, int64 (queries, slots, count x
    shards), the boundary where there are fewer; and whether these are all, bool (queries, slots)."""
    tokens, covered = [], torch.ones_like(state.alive)
    for number, shard in enumerate(index.shards):
        lo, hi = state.lo[..., number], state.hi[..., number]
        low, high = _table_window(shard, lo, depth) if depth < 2 else (lo, hi)
        high = torch.where(hi > lo, high, low)
        at = low[..., None] + torch.arange(count, device=lo.device)
        if shard.base and depth >= len(shard.base) - 1:
            tokens.append(torch.full_like(at, index.boundary))
            continue
        tokens.append(torch.where(at < high[..., None], _token_at(shard, depth, at).long(), index.boundary))
        covered &= high - low <= count
    return torch.cat(tokens, dim=-1), covered


def _look_up(index: DeviceIndex, state: State, tokens: torch.Tensor, depth: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The interval of every (query, slot, token), int64 (queries, slots, tokens, shards); empty where it is not."""
    found = [
        _in_shard(shard, index.boundary, state.lo[..., number], state.hi[..., number], tokens, depth)
        for number, shard in enumerate(index.shards)
    ]
    return torch.stack([lo for lo, _ in found], -1), torch.stack([hi for _, hi in found], -1)


def _in_shard(
    shard: DeviceShard, boundary: int, lo: torch.Tensor, hi: torch.Tensor, tokens: torch.Tensor, depth: int
) -> tuple[torch.Tensor, torch.Tensor]:
    alive, empty = hi > lo, torch.zeros_like(tokens)
    if shard.base and depth >= len(shard.base) - 1:
        return empty, empty  # nothing is longer
    if depth > 1:
        low, high = (each[..., None].expand(tokens.shape) for each in (lo, hi))
        begin = _first_not_below(shard, depth, low, high, tokens)
        end = _first_not_below(shard, depth, begin, high, tokens + 1)
        inside = alive[..., None] & (tokens < boundary)
        return torch.where(inside, begin, empty), torch.where(inside, end, empty)
    keys, los = (shard.first_token, shard.first_lo) if depth == 0 else (shard.second_token, shard.second_lo)
    low, high = (each[..., None].expand(tokens.shape) for each in _table_window(shard, lo, depth))
    entry = _first_not_below(shard, depth, low, high, tokens).clamp(max=len(keys) - 1)
    inside = alive[..., None] & (entry < high) & (tokens < boundary) & (_token_at(shard, depth, entry) == tokens)
    following = (entry + 1).clamp(max=len(los) - 1)
    return torch.where(inside, los[entry].long(), empty), torch.where(inside, los[following].long(), empty)


def _table_window(shard: DeviceShard, lo: torch.Tensor, depth: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The entries of a shallow table that each beam's continuations stand in."""
    if depth == 0:
        return torch.zeros_like(lo), torch.full_like(lo, shard.firsts)
    starts = shard.first_lo[: shard.firsts]
    group = (torch.searchsorted(starts, lo.int().contiguous(), right=True) - 1).clamp(min=0)
    return shard.second_offsets[group].long(), shard.second_offsets[group + 1].long()


def _first_not_below(
    shard: DeviceShard, depth: int, low: torch.Tensor, high: torch.Tensor, tokens: torch.Tensor
) -> torch.Tensor:
    """The first entry of each window whose token is the wanted one or larger; as many halvings for all."""
    for _ in range(shard.halvings[min(depth, 2)]):
        middle = (low + high) // 2
        below = (_token_at(shard, depth, middle) < tokens) & (low < high)
        low, high = torch.where(below, middle + 1, low), torch.where(below, high, middle)
    return low


def _token_at(shard: DeviceShard, depth: int, at: torch.Tensor) -> torch.Tensor:
    """The token of entries of a window; any token for one past the end."""
    if depth < 2:
        keys = shard.first_token if depth == 0 else shard.second_token
        return _read(shard, keys[at.clamp(max=len(keys) - 1)], depth)
    return _token_behind(shard, depth, at)


def _token_behind(shard: DeviceShard, depth: int, at: torch.Tensor) -> torch.Tensor:
    """What stands `depth` tokens behind the beginning of entries of the sorted order; by columns, from depth 1 on."""
    if shard.base and depth == 1:
        entry = torch.searchsorted(shard.second_lo[: shard.seconds], at.int().contiguous(), right=True) - 1
        return _token_at(shard, 1, entry.clamp(min=0))
    if shard.base:
        column = (depth - 2) * shard.entries
        return _read(shard, shard.tokens[(at + column).clamp(max=len(shard.tokens) - 1)], depth)
    position = shard.order[at.clamp(max=len(shard.order) - 1)].long() + depth
    return shard.tokens[position.clamp(max=len(shard.tokens) - 1)]


def _read(shard: DeviceShard, stored: torch.Tensor, depth: int) -> torch.Tensor:
    """As `Shard.read`."""
    if not shard.base:
        return stored
    return torch.where(stored == shard.end[depth], shard.base[-1], stored + shard.base[depth])


def _grows(index: DeviceIndex, lo: torch.Tensor, hi: torch.Tensor, depth: int) -> torch.Tensor:
    """Boundaries sort last, so the first entry of an interval tells whether a token follows."""
    grows = torch.zeros(lo.shape[:-1], dtype=torch.bool, device=lo.device)
    for number, shard in enumerate(index.shards):
        there = (hi > lo)[..., number]
        if not shard.base or depth < len(shard.base) - 1:
            grows |= there & (_token_behind(shard, depth, lo[..., number]) != index.boundary)
    return grows


def _to_device(shard: Shard, device: torch.device) -> DeviceShard:
    widest = (
        len(shard.first_token),
        int(np.diff(shard.second_offsets.astype(np.int64)).max(initial=0)),
        int(np.diff(shard.second_lo.astype(np.int64)).max(initial=0)),
    )
    names = ("tokens", "order", "first_token", "first_lo", "second_token", "second_lo", "second_offsets")
    # One entry more, so that a shard of empty rows has entries that may be read where nothing is meant.
    arrays = {name: np.append(getattr(shard, name).astype(np.int32), np.int32(0)) for name in names}
    tensors = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
    first, second, deeper = (width.bit_length() for width in widest)
    return DeviceShard(
        **tensors,
        base=tuple(shard.base.tolist()),
        end=tuple(shard.end.tolist()),
        firsts=len(shard.first_token),
        seconds=len(shard.second_token),
        entries=shard.entries,
        halvings=(first, second, deeper),
    )


# ---------------------------------------------------------------- the same call as the other backends'


def best_continuations(
    index: Index, beams: Beams, log_probs: np.ndarray, depth: int, queries: int, most: int, looked_up: int = 64
) -> Chosen:
    """As `step.best_continuations`, entry for entry; looks up more tokens until every query is certified."""
    device_index = DeviceIndex.of(index, torch.device("cpu"))
    state, scores, first = _padded(beams, log_probs, queries)
    found = continue_beams(device_index, state, scores, depth, most, looked_up)
    while not bool(found.certified.all()):
        looked_up *= 8
        found = continue_beams(device_index, state, scores, depth, most, looked_up)
    query, place = (each.numpy() for each in found.valid.nonzero(as_tuple=True))
    kept = {
        name: getattr(found, name).numpy()[query, place] for name in ("slot", "token", "lo", "hi", "score", "grows")
    }
    return Chosen(beam=first[query] + kept.pop("slot"), place=place, **kept)


def _padded(beams: Beams, log_probs: np.ndarray, queries: int) -> tuple[State, torch.Tensor, np.ndarray]:
    """Beams in slots, their log-probabilities likewise, and the first beam of each query."""
    first = np.searchsorted(beams.query, np.arange(queries + 1))
    slot = np.arange(len(beams.query)) - first[beams.query]
    slots, shards = int(np.diff(first).max(initial=1)), beams.lo.shape[1]
    lo, hi = np.zeros((queries, slots, shards), np.int64), np.zeros((queries, slots, shards), np.int64)
    score = np.full((queries, slots), -np.inf)
    scores = np.zeros((queries, slots, log_probs.shape[1]), np.float32)
    for padded, flat in ((lo, beams.lo), (hi, beams.hi), (score, beams.score), (scores, log_probs)):
        padded[beams.query, slot] = flat
    state = State(lo=torch.from_numpy(lo), hi=torch.from_numpy(hi), score=torch.from_numpy(score))
    return state, torch.from_numpy(scores), first
