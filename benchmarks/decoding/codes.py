"""Identifiers of codes: a million of 8 codes of 256, 140 beams of one query.

Timed: one step at each depth, from states and log-probabilities to the 140 best continuations with their states. Not
timed: the model, building. The baseline (`static_trie.py`) runs in turn and must find the same scores. Bytes an id are
those of index and trie; which document the i-th identifier in sorted order names is kept beside both, and not counted.
The goals are against the trie as it is publicly laid out, with int32 tokens and stored next states. Much of that size
is a matter of layout, so rows without a goal compare with the same trie in its compact form, which must give the same
steps and differs from depth 2 on.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from benchmarks.decoding.data import SEED, random_log_probs
from benchmarks.decoding.static_trie import DENSE, StaticTrie
from benchmarks.rows import Options, Row, cost, medians
from workers.decoding import numba_step
from workers.decoding.beam import Step
from workers.decoding.index import build_index
from workers.decoding.step import Beams, Chosen
from workers.ragged import Ragged

CODES, LENGTH, BEAMS = 256, 8, 140
BYTES_GOAL = 10.0


def measure(options: Options, best: Step = numba_step.best_continuations) -> Iterator[Row]:
    """A row a depth, and one on size; with any backend."""
    rng = np.random.default_rng(SEED)
    rows = np.unique(rng.integers(0, CODES, size=(10_000 if options.quick else 1_000_000, LENGTH)), axis=0)
    flat = Ragged(values=rows.ravel().astype(np.int32), offsets=np.arange(len(rows) + 1) * LENGTH)
    index, trie = build_index(flat, CODES, "columns"), StaticTrie.build(rows, CODES)
    compact = trie.compact()
    what = f"{len(rows):,} ids of {LENGTH} codes"
    lo, hi = index.whole()
    live = Beams(query=np.zeros(1, dtype=np.int64), lo=lo[None], hi=hi[None], score=np.zeros(1))
    state = torch.zeros(1, dtype=torch.long)
    for depth in range(LENGTH):
        log_probs = random_log_probs(len(live.query), CODES, rng)
        ours = partial(best, index, live, log_probs, depth, 1, BEAMS)
        score = torch.from_numpy(live.score.astype(np.float32))
        static, small = (
            partial(each.step, depth, state, score, torch.from_numpy(log_probs), BEAMS) for each in (trie, compact)
        )
        chosen, reached = ours(), static()
        assert all(map(torch.equal, reached, small())), "the compact trie's step differs"
        state = _states_of(chosen, reached)
        seconds = medians({"ours": ours, "static": static, "small": small}, 5 if options.quick else 50)
        value, public, smaller = (1e6 * seconds[each] for each in ("ours", "static", "small"))
        name = f"{what}, {BEAMS} beams, depth {depth}, against a"
        yield cost(f"{name} CSR trie (int32, stored children)", value, "us a step", public, 1.0)
        if depth >= DENSE:
            yield cost(f"{name} compact CSR trie", value, "us a step", smaller)
        live = Beams(query=np.zeros(len(state), dtype=np.int64), lo=chosen.lo, hi=chosen.hi, score=chosen.score)
    size, public, smallest = (each.nbytes / len(rows) for each in (index, trie, compact))
    yield cost(f"{what}, against a CSR trie (int32, stored children)", size, "bytes an id", public, BYTES_GOAL)
    yield cost(f"{what}, against a compact CSR trie (uint8, implied children)", size, "bytes an id", smallest)


def _states_of(chosen: Chosen, reached: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """The trie's states of Gridlaw's beams, in their order: the trie's float32 scores may order near ties otherwise."""
    beam, token, state, score = (each.numpy() for each in reached)
    ours, its = chosen.beam * CODES + chosen.token, beam * CODES + token
    assert np.array_equal(np.sort(ours), np.sort(its)), "the beams differ"
    assert np.allclose(chosen.score, score, atol=1e-3), "the scores differ"
    by_key = np.argsort(its)
    return torch.from_numpy(state[by_key[np.searchsorted(its, ours, sorter=by_key)]])
