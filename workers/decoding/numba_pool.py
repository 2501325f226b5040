"""The best continuations of one query, for the compiled step.

The pool takes in more than are wanted; when it is full, a partition leaves the wanted ones, and the worst of them is
the floor that others must pass.
"""

from typing import NamedTuple

import numba
import numpy as np

import workers.decoding.numba_cache  # noqa: F401 - what follows is compiled into numba_step.py

SPARE = 64
"""Places beyond twice what is wanted, so that where few are wanted not every one leads to a partition."""


class Pool(NamedTuple):
    """The best continuations of one query, and others that may be among them. `slot` is a permutation of the places
    of the other arrays, of which the first `size` are taken; `size` and the floor have one entry.

    A continuation's key is its beam x the boundary + its token, so that of equal scores the smaller key wins.
    """

    slot: np.ndarray
    size: np.ndarray
    floor_total: np.ndarray
    floor_key: np.ndarray
    total: np.ndarray
    key: np.ndarray
    shard: np.ndarray
    at: np.ndarray
    end: np.ndarray
    """The first shard that has it, and the entries [at, end) of the beam's window there."""


@numba.njit(cache=True, nogil=True)
def empty_pool(most):  # type: ignore[no-untyped-def]
    room = 2 * most + SPARE
    return Pool(
        np.arange(room),
        np.zeros(1, np.int64),
        np.empty(1, np.float64),
        np.empty(1, np.int64),
        np.empty(room, np.float64),
        np.empty(room, np.int64),
        np.empty(room, np.int64),
        np.empty(room, np.int64),
        np.empty(room, np.int64),
    )


@numba.njit(cache=True, nogil=True)
def clear(pool):  # type: ignore[no-untyped-def]
    """For the next query."""
    pool.size[0], pool.floor_total[0], pool.floor_key[0] = 0, -np.inf, np.iinfo(np.int64).max


@numba.njit(cache=True, nogil=True)
def passes(pool, total, key):  # type: ignore[no-untyped-def]
    floor = pool.floor_total[0]
    return total > floor or (total == floor and key < pool.floor_key[0])


@numba.njit(cache=True, nogil=True)
def take(pool, total, key, shard, at, end):  # type: ignore[no-untyped-def]
    """Take in a continuation that `passes`. There must be room."""
    slot = pool.slot[pool.size[0]]
    pool.size[0] += 1
    pool.total[slot], pool.key[slot], pool.shard[slot], pool.at[slot], pool.end[slot] = total, key, shard, at, end


@numba.njit(cache=True, nogil=True)
def keep_best(pool, most):  # type: ignore[no-untyped-def]
    """Leave the `most` best, in no order, and raise the floor to the worst of them."""
    if pool.size[0] < most:
        return
    worst = _partition(pool.slot[: pool.size[0]], pool.total, pool.key, most)
    pool.size[0] = most
    pool.floor_total[0], pool.floor_key[0] = pool.total[worst], pool.key[worst]


@numba.njit(cache=True, nogil=True)
def _before(total, key, one, other):  # type: ignore[no-untyped-def]
    """Whether a slot's continuation is better than another's."""
    return total[one] > total[other] or (total[one] == total[other] and key[one] < key[other])


@numba.njit(cache=True, nogil=True)
def _partition(slot, total, key, most):  # type: ignore[no-untyped-def]
    """Bring the `most` best to the front, by quickselect; returns the worst of them."""
    first, last = 0, len(slot) - 1
    while first < last:
        pivot = slot[(first + last) // 2]
        left, right = first, last
        while left <= right:
            while _before(total, key, slot[left], pivot):
                left += 1
            while _before(total, key, pivot, slot[right]):
                right -= 1
            if left <= right:
                slot[left], slot[right] = slot[right], slot[left]
                left += 1
                right -= 1
        if most - 1 <= right:
            last = right
        elif most - 1 >= left:
            first = left
        else:
            break
    return slot[most - 1]


@numba.njit(cache=True, nogil=True)
def sort_slots(slot, total, key, merged):  # type: ignore[no-untyped-def]
    """Sort slots, best first, by merging; `merged` is scratch, as long."""
    width = 1
    while width < len(slot):
        for begin in range(0, len(slot), 2 * width):
            one, other = begin, min(begin + width, len(slot))
            middle, end = other, min(begin + 2 * width, len(slot))
            for at in range(begin, end):
                if other == end or (one < middle and _before(total, key, slot[one], slot[other])):
                    merged[at] = slot[one]
                    one += 1
                else:
                    merged[at] = slot[other]
                    other += 1
        slot[:] = merged[: len(slot)]
        width *= 2
