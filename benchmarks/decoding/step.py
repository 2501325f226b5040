"""One constrained beam step: microseconds a beam, 100 beams of one query.

Timed: from the beams' states and the next tokens' log-probabilities to the 200 best continuations with their states.
Not timed: the model, the log-softmax, the search that leads to the beams' depth, building the index. `depth` is how
many tokens the beams have written. The full mask (`full_mask.py`) runs in turn with Gridlaw's step.

SEAL does not run here. Its figures are the constants below, recorded elsewhere for its FM-index (C++) over 10 M Zipf
tokens on two CPU cores. The design's goal of 20x is against them, so baseline, ratio and goal of such a row compare
Gridlaw on this machine with SEAL on that one; its name and unit say so.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from benchmarks.decoding import full_mask
from benchmarks.decoding.data import RECORDED, SEED, corpora, random_log_probs
from benchmarks.decoding.equal import assert_equal
from benchmarks.rows import Options, Row, Skipped, cost, cost_against_recorded, medians
from workers.decoding import numba_step
from workers.decoding.beam import Step
from workers.decoding.index import Index
from workers.decoding.step import Beams, Chosen

BEAMS = 100
SEAL = {1: 2232.0, 2: 541.0, 3: 136.0, 5: 107.0, 19: 167.0}
"""Microseconds a beam at each depth, over 10 M tokens: recorded, not measured here."""
GOAL = 20.0


def measure(options: Options) -> Iterator[Row | Skipped]:
    """Rows for each text and depth; against SEAL where the text is the size that its figures are for."""
    for corpus in corpora(options):
        if isinstance(corpus, Skipped):
            yield Skipped(name=f"beam steps over {corpus.name}", why=corpus.why)
        else:
            yield from over(*corpus, 3 if options.quick else 15)


def over(name: str, index: Index, repeats: int, best: Step = numba_step.best_continuations) -> Iterator[Row | Skipped]:
    """One text, with any backend."""
    rng = np.random.default_rng(SEED)
    lo, hi = index.whole()
    live = Beams(query=np.zeros(1, dtype=np.int64), lo=lo[None], hi=hi[None], score=np.zeros(1))
    for depth in range(max(SEAL) + 1):
        log_probs = random_log_probs(len(live.query), index.boundary, rng)
        step = partial(best, index, live, log_probs, depth, 1, 2 * BEAMS)
        if depth in SEAL:
            yield from _at(f"beam step, {name}, depth {depth}", step, index, live, log_probs, depth, repeats)
        chosen = step()
        grown = np.flatnonzero(chosen.grows)[:BEAMS]
        if not len(grown):
            yield Skipped(name=f"beam steps, {name}, from depth {depth + 1} on", why="no document is as long")
            return
        live = Beams(
            query=np.zeros(len(grown), dtype=np.int64),
            lo=chosen.lo[grown],
            hi=chosen.hi[grown],
            score=chosen.score[grown],
        )


def _at(
    name: str, step: Callable[[], Chosen], index: Index, live: Beams, log_probs: np.ndarray, depth: int, repeats: int
) -> Iterator[Row]:
    masked = partial(full_mask.best_continuations, index, live, log_probs, depth, 1, 2 * BEAMS)
    assert_equal(step(), masked())
    seconds = medians({"ours": step, "masked": masked}, repeats)
    beams = len(live.query)
    ours, mask = (1e6 * seconds[each] / beams for each in ("ours", "masked"))
    if name.startswith("beam step, Zipf 10 M"):
        yield cost_against_recorded(name, ours, "us a beam", "SEAL", RECORDED, SEAL[depth], GOAL)
    yield cost(f"{name}, against a full mask", ours, "us a beam", mask)
