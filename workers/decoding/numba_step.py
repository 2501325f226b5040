"""The step of `step.py` for the CPU, compiled: the same results without enumerating what cannot be among the best.

A query's beams share one heap of the best continuations found so far. Narrow beams are enumerated first. A wide one
is then asked the other way round: only tokens whose log-probability would enter the heap are looked up in it, by
binary search. What is not looked up cannot beat the worst entry of a full heap, which is the certificate that
nothing is missed; where the model likes too many tokens that the index does not have, the beam is enumerated.
Tokens are found by blocks of the vocabulary, of which only those are read whose largest log-probability suffices.
"""

from typing import NamedTuple

import numba
import numpy as np

from workers.decoding.index import Index
from workers.decoding.step import Beams, Chosen

BLOCK = 64
"""Tokens of the vocabulary whose largest log-probability is kept."""
SCANNED = 32
"""A beam is wide where reading the vocabulary is cheaper than reading its interval: one random access costs as much
as reading about so many log-probabilities in a row."""
SCANNED_TABLE = 8
"""The same for the entries of a shallow table, which lie side by side."""


class Arrays(NamedTuple):
    """The fields of an index that a step reads, one array a shard."""

    tokens: tuple[np.ndarray, ...]
    order: tuple[np.ndarray, ...]
    first_token: tuple[np.ndarray, ...]
    first_lo: tuple[np.ndarray, ...]
    second_token: tuple[np.ndarray, ...]
    second_lo: tuple[np.ndarray, ...]
    second_offsets: tuple[np.ndarray, ...]


class Heap(NamedTuple):
    """The best continuations of one query, the worst at the root. `size` has one entry, `slot` is the heap itself."""

    size: np.ndarray
    slot: np.ndarray
    total: np.ndarray
    beam: np.ndarray
    token: np.ndarray
    lo: np.ndarray
    hi: np.ndarray


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
    queries, shards = len(begins) - 1, lo.shape[1]
    room = queries * most
    beam, token, place = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int64)
    new_lo, new_hi = np.empty((room, shards), np.int64), np.empty((room, shards), np.int64)
    total, grows = np.empty(room, np.float64), np.empty(room, np.bool_)
    heap = Heap(
        np.zeros(1, np.int64),
        np.empty(most, np.int64),
        np.empty(most, np.float64),
        np.empty(most, np.int64),
        np.empty(most, np.int64),
        np.empty((most, shards), np.int64),
        np.empty((most, shards), np.int64),
    )
    maxima = np.empty((log_probs.shape[1] + BLOCK - 1) // BLOCK, np.float32)
    written = 0
    for query in range(queries):
        heap.size[0] = 0
        _fill(heap, arrays, boundary, begins[query], begins[query + 1], lo, hi, score, log_probs, depth, maxima)
        count = heap.size[0]
        for at in range(count - 1, -1, -1):
            slot = _pop(heap)
            out = written + at
            beam[out], token[out], total[out], place[out] = heap.beam[slot], heap.token[slot], heap.total[slot], at
            new_lo[out], new_hi[out] = heap.lo[slot], heap.hi[slot]
            grows[out] = _grows(arrays, boundary, heap.lo[slot], heap.hi[slot], depth + 1)
        written += count
    return (
        beam[:written],
        token[:written],
        new_lo[:written],
        new_hi[:written],
        total[:written],
        place[:written],
        grows[:written],
    )


@numba.njit(cache=True, nogil=True)
def _fill(heap, arrays, boundary, begin, end, lo, hi, score, log_probs, depth, maxima):  # type: ignore[no-untyped-def]
    """One query: narrow beams first, so that wide ones meet a full heap."""
    scanned = max(log_probs.shape[1] // (SCANNED_TABLE if depth < 2 else SCANNED), 32)
    lows, highs = np.empty((end - begin, lo.shape[1]), np.int64), np.empty((end - begin, lo.shape[1]), np.int64)
    for beam in range(begin, end):
        _windows(arrays, boundary, lo[beam], hi[beam], depth, lows[beam - begin], highs[beam - begin])
    for wide in (False, True):
        for beam in range(begin, end):
            window = lows[beam - begin], highs[beam - begin]
            if (np.sum(window[1] - window[0]) > scanned) != wide:
                continue
            if _full(heap) and score[beam] < heap.total[heap.slot[0]]:
                continue  # a log-probability is never above 0
            if wide:
                _look_up(heap, arrays, boundary, beam, window, score[beam], log_probs[beam], depth, maxima)
            else:
                _enumerate(heap, arrays, boundary, beam, window, score[beam], log_probs[beam], depth, np.inf)


# ---------------------------------------------------------------- one beam's continuations
#
# A beam's window in a shard is where its continuations stand: entries of the first table (depth 0), of the second
# (depth 1), of `order` itself (deeper).


@numba.njit(cache=True, nogil=True)
def _windows(arrays, boundary, lo, hi, depth, low, high):  # type: ignore[no-untyped-def]
    """Write a beam's windows, one a shard, into `low` and `high`. Boundaries come last in a window and are cut off,
    except below the tables."""
    for shard in range(len(lo)):
        low[shard], high[shard] = lo[shard], hi[shard]
        if hi[shard] > lo[shard] and depth == 0:
            low[shard], high[shard] = 0, len(arrays.first_token[shard])
        elif hi[shard] > lo[shard] and depth == 1:
            group = np.searchsorted(arrays.first_lo[shard], np.uint32(lo[shard]), side="right") - 1
            low[shard] = arrays.second_offsets[shard][group]
            high[shard] = arrays.second_offsets[shard][group + 1]
            high[shard] -= arrays.second_token[shard][high[shard] - 1] == boundary


@numba.njit(cache=True, nogil=True, inline="always")
def _token_at(arrays, shard, depth, at):  # type: ignore[no-untyped-def]
    if depth == 0:
        return np.int64(arrays.first_token[shard][at])
    if depth == 1:
        return np.int64(arrays.second_token[shard][at])
    return np.int64(arrays.tokens[shard][np.int64(arrays.order[shard][at]) + depth])


@numba.njit(cache=True, nogil=True)
def _first_not_below(arrays, shard, depth, low, high, token):  # type: ignore[no-untyped-def]
    """The first entry of a window whose token is `token` or larger; `high` where there is none."""
    while low < high:
        middle = (low + high) // 2
        if _token_at(arrays, shard, depth, middle) < token:
            low = middle + 1
        else:
            high = middle
    return low


@numba.njit(cache=True, nogil=True)
def _run_end(arrays, shard, depth, at, high, token):  # type: ignore[no-untyped-def]
    """Where the run of `token` that begins at `at` ends: strides that double, then a binary search."""
    if depth < 2:
        return at + 1
    step, before = 1, at
    while before + step < high and _token_at(arrays, shard, depth, before + step) == token:
        before += step
        step *= 2
    return _first_not_below(arrays, shard, depth, before + 1, min(before + step, high), token + 1)


@numba.njit(cache=True, nogil=True)
def _interval(arrays, shard, depth, at, end):  # type: ignore[no-untyped-def]
    """The interval of `order` that the entries [at, end) of a window stand for: one of a table, a run below them."""
    if depth == 0:
        return np.int64(arrays.first_lo[shard][at]), np.int64(arrays.first_lo[shard][at + 1])
    if depth == 1:
        return np.int64(arrays.second_lo[shard][at]), np.int64(arrays.second_lo[shard][at + 1])
    return at, end


@numba.njit(cache=True, nogil=True)
def _enumerate(heap, arrays, boundary, beam, window, score, log_probs, depth, below):  # type: ignore[no-untyped-def]
    """Offer every continuation with a log-probability under `below`."""
    low, high = window
    for shard in range(len(low)):
        at = low[shard]
        while at < high[shard]:
            token = _token_at(arrays, shard, depth, at)
            if token == boundary:
                break
            end = _run_end(arrays, shard, depth, at, high[shard], token)
            if log_probs[token] < below and _enters(heap, score + log_probs[token], beam, token):
                _offer(heap, arrays, beam, token, score + log_probs[token], depth, window, shard, at, end)
            at = end


@numba.njit(cache=True, nogil=True)
def _look_up(heap, arrays, boundary, beam, window, score, log_probs, depth, maxima):  # type: ignore[no-untyped-def]
    """Offer those continuations that may enter the heap, found by token."""
    _block_maxima(log_probs, maxima)
    size = np.sum(window[1] - window[0])
    below = np.float32(np.inf)
    if not _full(heap):
        likely = _likely(maxima, len(heap.slot))
        _look_up_between(heap, arrays, beam, window, score, log_probs, depth, maxima, likely, below)
        below = likely
    if not _full(heap):
        _enumerate(heap, arrays, boundary, beam, window, score, log_probs, depth, below)
        return
    needed = _needed(heap.total[heap.slot[0]] - score)
    if needed >= below:
        return
    wanted = _count_between(log_probs, maxima, needed, below)
    if wanted * np.log2(size) > min(size, len(log_probs)) / 2:
        _enumerate(heap, arrays, boundary, beam, window, score, log_probs, depth, below)
    else:
        _look_up_between(heap, arrays, beam, window, score, log_probs, depth, maxima, needed, below)


@numba.njit(cache=True, nogil=True)
def _needed(difference):  # type: ignore[no-untyped-def]
    """A float32 that is surely not above the log-probability that makes up a difference in score."""
    return np.float32(difference - 1e-6 * (1.0 + abs(difference)))


@numba.njit(cache=True, nogil=True)
def _look_up_between(heap, arrays, beam, window, score, log_probs, depth, maxima, floor, below):  # type: ignore[no-untyped-def]
    for block in range(len(maxima)):
        if maxima[block] < floor:
            continue
        for token in range(block * BLOCK, min((block + 1) * BLOCK, len(log_probs))):
            value = log_probs[token]
            if value < floor or value >= below or not _enters(heap, score + value, beam, token):
                continue
            for shard in range(len(window[0])):
                low, high = window[0][shard], window[1][shard]
                at = _first_not_below(arrays, shard, depth, low, high, token)
                if at < high and _token_at(arrays, shard, depth, at) == token:
                    end = _run_end(arrays, shard, depth, at, high, token)
                    _offer(heap, arrays, beam, token, score + value, depth, window, shard, at, end)
                    break


@numba.njit(cache=True, nogil=True)
def _offer(heap, arrays, beam, token, total, depth, window, shard, at, end):  # type: ignore[no-untyped-def]
    """Put a continuation into the heap, unless an earlier shard has it, which has offered it already."""
    low, high = window
    for earlier in range(shard):
        there = _first_not_below(arrays, earlier, depth, low[earlier], high[earlier], token)
        if there < high[earlier] and _token_at(arrays, earlier, depth, there) == token:
            return
    slot = _push(heap, total, beam, token)
    for each in range(len(low)):
        heap.lo[slot, each] = heap.hi[slot, each] = 0
    heap.lo[slot, shard], heap.hi[slot, shard] = _interval(arrays, shard, depth, at, end)
    for later in range(shard + 1, len(low)):
        there = _first_not_below(arrays, later, depth, low[later], high[later], token)
        if there < high[later] and _token_at(arrays, later, depth, there) == token:
            stop = _run_end(arrays, later, depth, there, high[later], token)
            heap.lo[slot, later], heap.hi[slot, later] = _interval(arrays, later, depth, there, stop)


@numba.njit(cache=True, nogil=True)
def _grows(arrays, boundary, lo, hi, depth):  # type: ignore[no-untyped-def]
    """Boundaries sort last, so the first entry of an interval tells whether a token follows."""
    for shard in range(len(lo)):
        if hi[shard] > lo[shard]:
            at = np.int64(arrays.order[shard][lo[shard]]) + depth
            if np.int64(arrays.tokens[shard][at]) != boundary:
                return True
    return False


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


# ---------------------------------------------------------------- the heap


@numba.njit(cache=True, nogil=True, inline="always")
def _worse(total, beam, token, other_total, other_beam, other_token):  # type: ignore[no-untyped-def]
    """Whether a continuation comes after another one: by score, then beam, then token."""
    if total != other_total:
        return total < other_total
    if beam != other_beam:
        return beam > other_beam
    return token > other_token


@numba.njit(cache=True, nogil=True, inline="always")
def _slot_worse(heap, one, other):  # type: ignore[no-untyped-def]
    return _worse(
        heap.total[one], heap.beam[one], heap.token[one], heap.total[other], heap.beam[other], heap.token[other]
    )


@numba.njit(cache=True, nogil=True, inline="always")
def _full(heap):  # type: ignore[no-untyped-def]
    return heap.size[0] == len(heap.slot)


@numba.njit(cache=True, nogil=True, inline="always")
def _enters(heap, total, beam, token):  # type: ignore[no-untyped-def]
    if not _full(heap):
        return True
    root = heap.slot[0]
    return _worse(heap.total[root], heap.beam[root], heap.token[root], total, beam, token)


@numba.njit(cache=True, nogil=True)
def _push(heap, total, beam, token):  # type: ignore[no-untyped-def]
    """Add an entry that `_enters`, in the worst one's place where the heap is full; returns its slot."""
    if _full(heap):
        slot = heap.slot[0]
        heap.total[slot], heap.beam[slot], heap.token[slot] = total, beam, token
        _sink(heap, 0)
        return slot
    at = slot = heap.size[0]
    heap.size[0] += 1
    heap.total[slot], heap.beam[slot], heap.token[slot] = total, beam, token
    heap.slot[at] = slot
    while at > 0 and _slot_worse(heap, slot, heap.slot[(at - 1) // 2]):
        heap.slot[at] = heap.slot[(at - 1) // 2]
        at = (at - 1) // 2
        heap.slot[at] = slot
    return slot


@numba.njit(cache=True, nogil=True)
def _pop(heap):  # type: ignore[no-untyped-def]
    """Take the worst entry out; returns its slot."""
    slot = heap.slot[0]
    heap.size[0] -= 1
    heap.slot[0] = heap.slot[heap.size[0]]
    _sink(heap, 0)
    return slot


@numba.njit(cache=True, nogil=True)
def _sink(heap, at):  # type: ignore[no-untyped-def]
    size, slot = heap.size[0], heap.slot[at]
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and _slot_worse(heap, heap.slot[child + 1], heap.slot[child]):
            child += 1
        if not _slot_worse(heap, heap.slot[child], slot):
            break
        heap.slot[at] = heap.slot[child]
        at = child
    if size:
        heap.slot[at] = slot
