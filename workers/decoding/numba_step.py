"""The step of `step.py` for the CPU, compiled: the same results without enumerating what cannot be among the best.

A query's beams share one pool of the best continuations found so far. It takes in more than are wanted; when it is
full, a partition leaves the wanted ones, and the worst of them is the floor that others must pass. Narrow beams are
enumerated first. A wide one is then asked the other way round: only tokens whose log-probability would pass the floor
are looked up in it, by binary search. What is not looked up cannot beat the worst of as many as are wanted, which is
the certificate that nothing is missed; where the model likes too many tokens that the index does not have, the beam
is enumerated. Tokens are found by blocks of the vocabulary, of which only those are read whose largest
log-probability suffices.
"""

from typing import NamedTuple

import numba
import numpy as np

from workers.decoding.index import Index
from workers.decoding.numba_pool import clear, empty_pool, keep_best, passes, sort_slots, take
from workers.decoding.step import Beams, Chosen

BLOCK = 64
"""Tokens of the vocabulary whose largest log-probability is kept."""
SCANNED = 32
"""A beam is wide where reading the vocabulary is cheaper than reading its interval: one random access costs as much
as reading about so many log-probabilities in a row."""
SCANNED_TABLE = 8
"""The same for the entries of a shallow table, which lie side by side."""
NARROW = 512
"""So many entries are never wide: to read them takes as long as to prepare a search by token."""


class Arrays(NamedTuple):
    """The fields of an index that a step reads, one array a shard."""

    tokens: tuple[np.ndarray, ...]
    order: tuple[np.ndarray, ...]
    base: tuple[np.ndarray, ...]
    end: tuple[np.ndarray, ...]
    first_token: tuple[np.ndarray, ...]
    first_lo: tuple[np.ndarray, ...]
    second_token: tuple[np.ndarray, ...]
    second_lo: tuple[np.ndarray, ...]
    second_offsets: tuple[np.ndarray, ...]


class Keys(NamedTuple):
    """Where the next tokens of a window's entries stand: at `offset` behind the entry's own number, or behind its
    position where there is an order. They count from `base`, and `end` stands for the boundary."""

    tokens: np.ndarray
    order: np.ndarray
    offset: int
    base: int
    end: int
    boundary: int


def best_continuations(
    index: Index, beams: Beams, log_probs: np.ndarray, depth: int, queries: int, most: int
) -> Chosen:
    """As `step.best_continuations`, entry for entry."""
    arrays = Arrays(*(tuple(getattr(shard, name) for shard in index.shards) for name in Arrays._fields))
    begins = np.searchsorted(beams.query, np.arange(queries + 1))
    found = _best(arrays, index.boundary, begins, beams.lo, beams.hi, beams.score, log_probs, depth, most)
    return Chosen(**dict(zip(("beam", "token", "lo", "hi", "score", "place", "grows"), found, strict=True)))


@numba.njit(cache=True, nogil=True)
def _best(arrays, boundary, begins, lo, hi, score, log_probs, depth, most):  # type: ignore[no-untyped-def]
    """All queries of a batch; returns the fields of `Chosen`."""
    room, shards = (len(begins) - 1) * most, lo.shape[1]
    beam, token, place = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int64)
    new_lo, new_hi = np.zeros((room, shards), np.int64), np.zeros((room, shards), np.int64)
    total = np.empty(room, np.float64)
    low, high = _windows(arrays, boundary, lo, hi, depth)
    pool = empty_pool(most)
    merged = np.empty(most, np.int64)
    out = 0
    for query in range(len(begins) - 1):
        clear(pool)
        beams = np.arange(begins[query], begins[query + 1])
        _fill(pool, most, arrays, boundary, beams, low, high, score, log_probs, depth)
        keep_best(pool, most)
        slots = pool.slot[: pool.size[0]]
        sort_slots(slots, pool.total, pool.key, merged)
        for at, slot in enumerate(slots):
            beam[out], token[out] = pool.key[slot] // boundary, pool.key[slot] % boundary
            total[out], place[out], shard = pool.total[slot], at, pool.shard[slot]
            new_lo[out, shard], new_hi[out, shard] = pool.at[slot], pool.end[slot]
            out += 1
    beam, token, new_lo, new_hi = beam[:out], token[:out], new_lo[:out], new_hi[:out]
    _find_elsewhere(arrays, depth, low, high, beam, token, new_lo, new_hi)
    _to_intervals(arrays, depth, new_lo, new_hi)
    return beam, token, new_lo, new_hi, total[:out], place[:out], _grows(arrays, boundary, new_lo, new_hi, depth + 1)


@numba.njit(cache=True, nogil=True)
def _fill(pool, most, arrays, boundary, beams, low, high, score, log_probs, depth):  # type: ignore[no-untyped-def]
    """One query: narrow beams first, so that wide ones meet a high floor."""
    narrow = max(log_probs.shape[1] // (SCANNED_TABLE if depth < 2 else SCANNED), NARROW)
    wide = np.empty(len(beams), np.bool_)
    for each, beam in enumerate(beams):
        wide[each] = np.sum(high[beam] - low[beam]) > narrow
    window = low, high
    _enumerate(pool, most, arrays, boundary, beams[~wide], window, score, log_probs, depth, np.inf)
    maxima = np.empty((boundary + BLOCK - 1) // BLOCK, np.float32)
    for each in np.flatnonzero(wide):
        if score[beams[each]] >= pool.floor_total[0]:
            one = beams[each : each + 1]
            _look_up(pool, most, arrays, boundary, one, window, score, log_probs, depth, maxima)


# ---------------------------------------------------------------- where continuations stand
#
# A beam's window in a shard is where its continuations stand: entries of the first table (depth 0), of the second
# (depth 1), of the sorted rows or suffixes themselves (deeper).


@numba.njit(cache=True, nogil=True)
def _windows(arrays, boundary, lo, hi, depth):  # type: ignore[no-untyped-def]
    """(low, high) of each beam in each shard. Boundaries come last in a window and are cut off, except below the
    tables where rows are not stored by columns."""
    low, high = lo.copy(), hi.copy()
    for shard in range(lo.shape[1]):
        base, first_lo, offsets = arrays.base[shard], arrays.first_lo[shard], arrays.second_offsets[shard]
        if len(base) and depth >= len(base) - 1:
            high[:, shard] = low[:, shard]
        for beam in range(len(lo) if depth < 2 else 0):
            if low[beam, shard] == high[beam, shard]:
                continue
            if depth == 0:
                low[beam, shard], high[beam, shard] = 0, len(first_lo) - 1
                continue
            group = np.searchsorted(first_lo, np.uint32(lo[beam, shard]), side="right") - 1
            end = np.int64(offsets[group + 1])
            bounded = _token_at(_keys(arrays, shard, 1), end - 1) == boundary
            low[beam, shard], high[beam, shard] = offsets[group], end - bounded
    return low, high


@numba.njit(cache=True, nogil=True)
def _to_intervals(arrays, depth, lo, hi):  # type: ignore[no-untyped-def]
    """Replace entries of a shallow table by the intervals that they stand for."""
    for shard in range(lo.shape[1] if depth < 2 else 0):
        los = arrays.first_lo[shard] if depth == 0 else arrays.second_lo[shard]
        for each in range(len(lo)):
            if hi[each, shard] > lo[each, shard]:
                lo[each, shard], hi[each, shard] = los[lo[each, shard]], los[hi[each, shard]]


@numba.njit(cache=True, nogil=True)
def _keys(arrays, shard, depth):  # type: ignore[no-untyped-def]
    order, bases = arrays.order[shard], arrays.base[shard]
    base, end, boundary, offset = 0, -1, 0, depth  # boundaries are stored as they are
    if len(bases):
        base, end, boundary = (
            bases[min(depth, len(bases) - 1)],
            arrays.end[shard][min(depth, len(bases) - 1)],
            bases[-1],
        )
        offset = (depth - 2) * np.int64(arrays.first_lo[shard][-1])
    if depth == 0:
        return Keys(arrays.first_token[shard], order[:0], 0, base, end, boundary)
    if depth == 1:
        return Keys(arrays.second_token[shard], order[:0], 0, base, end, boundary)
    return Keys(arrays.tokens[shard], order, offset, base, end, boundary)


@numba.njit(cache=True, nogil=True)
def _token_at(keys, at):  # type: ignore[no-untyped-def]
    stored = np.int64(keys.tokens[(np.int64(keys.order[at]) if len(keys.order) else at) + keys.offset])
    return keys.boundary if stored == keys.end else stored + keys.base


@numba.njit(cache=True, nogil=True)
def _first_not_below(keys, low, high, token):  # type: ignore[no-untyped-def]
    """The first entry of a window whose token is `token` or larger; `high` where there is none."""
    while low < high:
        middle = (low + high) // 2
        if _token_at(keys, middle) < token:
            low = middle + 1
        else:
            high = middle
    return low


@numba.njit(cache=True, nogil=True)
def _run_end(keys, at, high, token):  # type: ignore[no-untyped-def]
    """Where the run of `token` that begins at `at` ends: strides that double, then a binary search."""
    step, before = 1, at
    while before + step < high and _token_at(keys, before + step) == token:
        before += step
        step *= 2
    return _first_not_below(keys, before + 1, min(before + step, high), token + 1)


@numba.njit(cache=True, nogil=True)
def _run(keys, low, high, token):  # type: ignore[no-untyped-def]
    """The entries [at, end) of a window that have `token`; at == end where none has."""
    at = _first_not_below(keys, low, high, token)
    if at == high or _token_at(keys, at) != token:
        return at, at
    return at, _run_end(keys, at, high, token)


@numba.njit(cache=True, nogil=True)
def _earlier_has(arrays, shard, depth, window, beam, token):  # type: ignore[no-untyped-def]
    for earlier in range(shard):
        at, end = _run(_keys(arrays, earlier, depth), window[0][beam, earlier], window[1][beam, earlier], token)
        if at < end:
            return True
    return False


@numba.njit(cache=True, nogil=True)
def _find_elsewhere(arrays, depth, low, high, beam, token, lo, hi):  # type: ignore[no-untyped-def]
    """Write where shards other than the one that a continuation was found in have it."""
    for shard in range(1, lo.shape[1]):  # nothing that the first has was found in another
        keys = _keys(arrays, shard, depth)
        for each in range(len(lo)):
            if lo[each, shard] == hi[each, shard]:
                lo[each, shard], hi[each, shard] = _run(
                    keys, low[beam[each], shard], high[beam[each], shard], token[each]
                )


@numba.njit(cache=True, nogil=True)
def _grows(arrays, boundary, lo, hi, depth):  # type: ignore[no-untyped-def]
    """Boundaries sort last, so the first entry of an interval tells whether a token follows. bool (continuations,)."""
    grows = np.zeros(len(lo), np.bool_)
    for shard in range(lo.shape[1]):
        length = len(arrays.base[shard]) - 1
        if 0 <= length <= depth:
            continue
        keys, second_lo = _keys(arrays, shard, depth), arrays.second_lo[shard]
        for each in range(len(lo)):
            if hi[each, shard] > lo[each, shard]:
                at = lo[each, shard]
                if depth == 1:  # the table's entry
                    at = np.searchsorted(second_lo, np.uint32(at), side="right") - 1
                grows[each] |= _token_at(keys, at) != boundary
    return grows


# ---------------------------------------------------------------- taking them in


@numba.njit(cache=True, nogil=True)
def _enumerate(pool, most, arrays, boundary, beams, window, score, log_probs, depth, below):  # type: ignore[no-untyped-def]
    """Take in every continuation with a log-probability under `below`."""
    found = np.empty((len(pool.slot), 3), np.int64)
    for shard in range(window[0].shape[1]):
        keys = _keys(arrays, shard, depth)
        for beam in beams:
            if score[beam] < pool.floor_total[0]:  # a log-probability is never above 0
                continue
            at, high, first_key, values = (
                window[0][beam, shard],
                window[1][beam, shard],
                beam * boundary,
                log_probs[beam],
            )
            while at < high:
                at, count = _read(pool, keys, depth, boundary, at, high, first_key, score[beam], values, below, found)
                for token, begin, end in found[:count]:
                    if shard == 0 or not _earlier_has(arrays, shard, depth, window, beam, token):
                        take(pool, score[beam] + values[token], first_key + token, shard, begin, end)
                if pool.size[0] == len(pool.slot):
                    keep_best(pool, most)


@numba.njit(cache=True, nogil=True)
def _read(pool, keys, depth, boundary, at, high, first_key, score, values, below, found):  # type: ignore[no-untyped-def]
    """Write (token, entry, end of its run) of those continuations in [at, high) that pass the floor, at most as many
    as the pool has room for; returns the entry that comes next and how many were found.

    The innermost loop: on plain arrays and numbers, since those of a tuple are counted references each time.
    """
    tokens, order, offset, base, boundary_at, _ = keys
    floor, floor_key, room = pool.floor_total[0], pool.floor_key[0], len(pool.slot) - pool.size[0]
    ordered, count = len(order) > 0, 0
    while at < high and count < room:
        stored, end = tokens[(np.int64(order[at]) if ordered else at) + offset], at + 1
        token = np.int64(stored) + base
        if token == boundary or np.int64(stored) == boundary_at:
            return high, count
        if depth > 1 and end < high and tokens[(np.int64(order[end]) if ordered else end) + offset] == stored:
            end = _run_end(keys, at, high, token)
        value = values[token]
        total = score + value
        if (total > floor or (total == floor and first_key + token < floor_key)) and value < below:
            found[count, 0], found[count, 1], found[count, 2] = token, at, end
            count += 1
        at = end
    return at, count


@numba.njit(cache=True, nogil=True)
def _look_up(pool, most, arrays, boundary, one, window, score, log_probs, depth, maxima):  # type: ignore[no-untyped-def]
    """Take in those continuations of one beam that may be among the best, found by token."""
    beam, values = one[0], log_probs[one[0], :boundary]  # a model may have room for more tokens than there are
    keep_best(pool, most)
    _block_maxima(values, maxima)
    below = np.float32(np.inf)
    if pool.size[0] < most:
        likely = _likely(maxima, most)
        _look_up_between(pool, most, arrays, boundary, beam, window, score[beam], values, depth, maxima, likely, below)
        keep_best(pool, most)
        below = likely
    if pool.size[0] < most:
        _enumerate(pool, most, arrays, boundary, one, window, score, log_probs, depth, below)
        return
    needed = _needed(pool.floor_total[0] - score[beam])
    if needed >= below:
        return
    size = np.sum(window[1][beam] - window[0][beam])
    wanted = _count_between(values, maxima, needed, below)
    if wanted * np.log2(size) > min(size, len(values)) / 2:
        _enumerate(pool, most, arrays, boundary, one, window, score, log_probs, depth, below)
    else:
        _look_up_between(pool, most, arrays, boundary, beam, window, score[beam], values, depth, maxima, needed, below)


@numba.njit(cache=True, nogil=True)
def _needed(difference):  # type: ignore[no-untyped-def]
    """A float32 that is surely not above the log-probability that makes up a difference in score."""
    return np.float32(difference - 1e-6 * (1.0 + abs(difference)))


@numba.njit(cache=True, nogil=True)
def _look_up_between(pool, most, arrays, boundary, beam, window, score, values, depth, maxima, floor, below):  # type: ignore[no-untyped-def]
    for shard in range(window[0].shape[1]):
        keys, low, high = _keys(arrays, shard, depth), window[0][beam, shard], window[1][beam, shard]
        for block in range(len(maxima)):
            if maxima[block] < floor:
                continue
            for token in range(block * BLOCK, min((block + 1) * BLOCK, len(values))):
                value, key = values[token], beam * boundary + token
                if value < floor or value >= below or not passes(pool, score + value, key):
                    continue
                at, end = _run(keys, low, high, token)
                if at < end and (shard == 0 or not _earlier_has(arrays, shard, depth, window, beam, token)):
                    take(pool, score + value, key, shard, at, end)
                    if pool.size[0] == len(pool.slot):
                        keep_best(pool, most)


# ---------------------------------------------------------------- log-probabilities by blocks


@numba.njit(cache=True, nogil=True, fastmath={"nnan", "nsz", "reassoc"})
def _block_maxima(values, maxima):  # type: ignore[no-untyped-def]
    for block in range(len(values) // BLOCK):
        best = values[block * BLOCK]
        for at in range(block * BLOCK, (block + 1) * BLOCK):
            best = max(best, values[at])
        maxima[block] = best
    if len(values) % BLOCK:
        maxima[-1] = values[len(values) // BLOCK * BLOCK :].max()


@numba.njit(cache=True, nogil=True)
def _likely(maxima, wanted):  # type: ignore[no-untyped-def]
    """A log-probability that at least `wanted` tokens reach, where there are as many blocks."""
    return np.sort(maxima)[max(len(maxima) - wanted, 0)]


@numba.njit(cache=True, nogil=True)
def _count_between(values, maxima, floor, below):  # type: ignore[no-untyped-def]
    count = 0
    for block in range(len(maxima)):
        if maxima[block] >= floor:
            for token in range(block * BLOCK, min((block + 1) * BLOCK, len(values))):
                count += floor <= values[token] < below
    return count
