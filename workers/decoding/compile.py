"""Compile what searches run, once, so that the first search of a new checkout does not wait for it.

Compiled code is kept on disk (numba's cache); `make env` runs this module after installing.
"""

import numpy as np

from workers.decoding import numba_step
from workers.decoding.beam import Candidates
from workers.decoding.evidence import EvidenceScorer
from workers.decoding.index import build_index
from workers.decoding.step import Beams
from workers.decoding.view import View
from workers.ragged import Ragged


def compile_all() -> None:
    """One step under each layout of an index, and one ranking by evidence."""
    rows = Ragged.of([[1, 2, 3], [1, 3, 4]])
    indexes = [build_index(rows, 100, sort) for sort in ("columns", "rows", "suffixes")]
    for index in indexes:
        lo, hi = (each[None] for each in index.whole())
        beams = Beams(query=np.zeros(1, dtype=np.int64), lo=lo, hi=hi, score=np.zeros(1))
        found = numba_step.best_continuations(index, beams, np.full((1, 100), -5.0, dtype=np.float32), 0, 1, 4)
    candidates = Candidates(
        query=np.zeros(len(found.beam), dtype=np.int64),
        lo=found.lo,
        hi=found.hi,
        length=np.ones(len(found.beam), dtype=np.int64),
        score=found.score,
        grows=found.grows,
        in_beam=found.grows,
    )
    documents = np.arange(2, dtype=np.int32)
    documents.setflags(write=False)
    view = View(name="body", index=indexes[-1], documents=documents, marker=None, max_length=3)
    EvidenceScorer((view,), 2).rank([candidates], 0, 10, np.random.default_rng(0))


if __name__ == "__main__":
    compile_all()
