"""The step that constrained decoding is usually written as: a dense mask over the vocabulary, then a top-k of it.

It has the same index, whose tables spare it the wide intervals of the first two steps, and vectorised code; what it
does that Gridlaw's step does not is to enumerate every continuation of every beam and to rank the whole vocabulary.
"""

import numpy as np
import torch

from workers.decoding.constraint import can_grow, children
from workers.decoding.index import Index
from workers.decoding.step import Beams, Chosen

SPARE = 64
"""More than is asked for is taken by float32 scores and then ranked by exact ones, so that near ties come out right."""


def best_continuations(
    index: Index, beams: Beams, log_probs: np.ndarray, depth: int, queries: int, most: int
) -> Chosen:
    """As `step.best_continuations`, for one query."""
    if queries != 1:
        raise ValueError("the full mask is measured one query at a time")
    allowed = children(index, beams.lo, beams.hi, depth)
    vocabulary = log_probs.shape[1]
    mask = torch.full(log_probs.shape, -torch.inf)
    mask[torch.from_numpy(allowed.beam), torch.from_numpy(allowed.token)] = 0
    before = torch.from_numpy(beams.score.astype(np.float32))
    scores = mask.add_(torch.from_numpy(log_probs)).add_(before[:, None])
    picked = torch.topk(scores.view(-1), min(most + SPARE, len(allowed.token))).indices.numpy()
    beam, token = np.divmod(np.sort(picked), vocabulary)
    exact = beams.score[beam] + log_probs[beam, token]
    best = np.argsort(-exact, kind="stable")[:most]
    beam, token, exact = beam[best], token[best], exact[best]
    entry = np.searchsorted(allowed.beam * vocabulary + allowed.token, beam * vocabulary + token)
    lo, hi = allowed.lo[entry], allowed.hi[entry]
    return Chosen(
        beam=beam,
        token=token,
        lo=lo,
        hi=hi,
        score=exact,
        place=np.arange(len(beam)),
        grows=can_grow(index, lo, hi, depth + 1),
    )
