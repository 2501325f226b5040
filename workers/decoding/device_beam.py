"""The search of `beam.py` with everything on the model's device: one transfer at the end, none in a step.

Every query has `beams` slots, and an empty slot goes through the model with the others, so shapes do not depend on
what is found. Where a query was not certified, all are searched again with more tokens looked up in each step.
"""

import numpy as np
import torch

from workers.decoding.beam import Candidates, Search, SearchResult, concatenate
from workers.decoding.torch_step import Continuations, DeviceIndex, State, continue_beams, whole
from workers.errors import Diverged
from workers.models.sessions import Session

LOOKED_UP = 4
"""Tokens looked up at first in each beam, as a multiple of the beams."""


def beam_search_on_device(session: Session, index: DeviceIndex, search: Search) -> SearchResult:
    """As `beam.beam_search`: the same candidates, and the same rows through the model, without the empty slots.

    Rows of a search that had to be done again are counted as well.
    """
    looked_up = max(LOOKED_UP * search.beams, 64)
    steps, rows, certified, numbers = _search(session, index, search, looked_up)
    used = rows
    while looked_up < session.first.shape[1] and not bool(certified.all()):
        looked_up *= 8
        session.restart()
        steps, rows, certified, numbers = _search(session, index, search, looked_up)
        used = used + rows * (torch.arange(rows.shape[1], device=rows.device) > 0)  # not encoded again
    if not bool(numbers):
        raise Diverged("the model gives tokens no finite likelihood")
    candidates = concatenate([_to_host(step, depth + 1, search.beams) for depth, step in enumerate(steps)])
    spent = used.numpy(force=True)
    passes = int(np.flatnonzero(spent.any(axis=0))[-1]) + 1
    return SearchResult(candidates=candidates, rows=spent[:, :passes])


def _search(
    session: Session, index: DeviceIndex, search: Search, looked_up: int
) -> tuple[list[Continuations], torch.Tensor, torch.Tensor, torch.Tensor]:
    """The steps, the rows of each pass, int64 (queries, passes), which queries are certified, and whether all
    log-probabilities were numbers."""
    queries, vocabulary = session.first.shape
    device = session.first.device
    state, log_probs = whole(index, queries), session.first.view(queries, 1, vocabulary)
    certified = torch.ones(queries, dtype=torch.bool, device=device)
    numbers = torch.ones((), dtype=torch.bool, device=device)
    floor = torch.full((queries,), search.floor, dtype=torch.float64, device=device)
    finished = None if search.wanted is None else floor.new_full((queries, search.wanted), -torch.inf)
    steps: list[Continuations] = []
    rows = [torch.ones(queries, dtype=torch.int64, device=device)]
    for depth in range(search.max_new_tokens):
        numbers &= (~log_probs[..., 0].isnan() | ~state.alive).all()
        found = continue_beams(index, state, log_probs, depth, 2 * search.beams, looked_up)
        steps.append(found)
        certified &= found.certified
        if finished is not None:
            ended = torch.where(_complete(found, search.beams), found.score, -torch.inf)
            finished = torch.cat([finished, ended], dim=1).topk(finished.shape[1]).values
            floor = torch.maximum(floor, finished[:, -1])
        if depth + 1 == search.max_new_tokens:
            break
        slots = state.lo.shape[1]
        state, parent, token = _next(found, floor, search.beams)
        rows.append(state.alive.sum(1))
        offset = torch.arange(queries, device=device)[:, None] * slots
        scores = session.advance((parent + offset).flatten(), token.flatten(), each=search.beams)
        log_probs = scores.view(queries, search.beams, vocabulary)
    return steps, torch.stack(rows, dim=1), certified, numbers


def _complete(found: Continuations, beams: int) -> torch.Tensor:
    """bool (queries, most): nothing but a boundary follows, among the best `beams`."""
    place = torch.arange(found.valid.shape[1], device=found.valid.device)
    return found.valid & ~found.grows & (place < beams)


def _next(found: Continuations, floor: torch.Tensor, beams: int) -> tuple[State, torch.Tensor, torch.Tensor]:
    """The live continuations in slots, with the slot that each comes from and its token (0 in an empty slot)."""
    goes_on = found.grows & (found.grows.cumsum(1) <= beams) & (found.score >= floor[:, None])
    slot = torch.where(goes_on, goes_on.cumsum(1) - 1, beams)  # the last, `beams`, is thrown away

    def placed(values: torch.Tensor, empty: float) -> torch.Tensor:
        shape = (len(slot), beams + 1, *values.shape[2:])
        where = slot if values.dim() == 2 else slot[..., None].expand(values.shape)
        return values.new_full(shape, empty).scatter_(1, where, values)[:, :beams]

    state = State(lo=placed(found.lo, 0), hi=placed(found.hi, 0), score=placed(found.score, -torch.inf))
    return state, placed(found.slot, 0), placed(found.token, 0)


def _to_host(found: Continuations, length: int, beams: int) -> Candidates:
    query, place = np.nonzero(found.valid.numpy(force=True))
    names = ("lo", "hi", "score", "grows")
    kept = {name: getattr(found, name).numpy(force=True)[query, place] for name in names}
    return Candidates(query=query, length=np.full(len(query), length), in_beam=place < beams, **kept)
