"""Contrastive generation loss: how much likelier the right identifier is than those of other documents.

Sound form: -log( e^-l+ / (e^-l+ + sum e^-l-) ). One of the right identifiers, and `negatives` identifiers of other
held-out documents, all drawn alike, so that a model that ignores the query is expected at the chance line
ln(1 + negatives) or above it. The same seeded draws for every model.

Published form (Cai et al., SIGIR 2025): l+ the smallest mean NLL of a relevant identifier, S- the sum of the
negatives' mean NLLs, -ln( S- / (S- + l+) ). It compares NLLs and not probabilities. Its chance line,
ln(1 + 1 / negatives), holds for one relevant identifier: with several (n-grams), the smallest of them lies below it
even for a model that ignores the query, so a value below that line is no sign of learning.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp
from transformers import PreTrainedModel

from workers.errors import BadInput, Diverged
from workers.identifiers.sets import IdentifierSet, Pairs
from workers.memory import search_limit
from workers.models.build import shape_of
from workers.models.likelihood import first_alike, identifier_log_probs
from workers.models.sessions import open_session
from workers.ragged import Ragged
from workers.search_memory import SearchMemory
from workers.stopping import stop_here


@dataclass(frozen=True, kw_only=True)
class Contest:
    """One query's right identifiers and its negatives, as rows of the held-out pairs."""

    query: int
    right: np.ndarray
    """All relevant ones in a seeded random order; the sound form takes the first."""
    negatives: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Losses:
    """One value a query, float64."""

    cgl: np.ndarray
    published: np.ndarray
    published_positive: np.ndarray
    published_negative: np.ndarray
    nll: np.ndarray
    """Mean NLL a token of the right identifier."""


def draw_contests(held_out: Pairs, queries: np.ndarray, negatives: int, seed: int) -> list[Contest]:
    """The contests of the given queries. Depends on the identifiers and the seed alone, never on a model.

    Negatives are drawn with replacement from the identifiers of held-out documents that are not relevant.
    Raises BadInput where every held-out document is relevant to a query.
    """
    by_query = np.argsort(held_out.source, kind="stable")
    ordered = held_out.source[by_query]
    contests = []
    for query in queries:
        right = by_query[np.searchsorted(ordered, query) : np.searchsorted(ordered, query, side="right")]
        others = np.flatnonzero(~np.isin(held_out.document, held_out.document[right]))
        if not len(right):
            continue  # the relevant document has no text that could be written
        if not len(others):
            raise BadInput("corpus: CGL needs held-out queries of at least two documents")
        rng = np.random.default_rng([seed, int(query)])
        drawn = rng.choice(others, size=negatives)
        contests.append(Contest(query=int(query), right=rng.permutation(right), negatives=drawn))
    return contests


def contest_losses(
    model: PreTrainedModel,
    ids: IdentifierSet,
    contests: list[Contest],
    end: int,
    longest: int,
    memory_mb: int | None = None,
) -> Losses:
    """Score every contest. `end` and `longest` are how a query is ended and cut, `memory_mb` what a batch may take.

    Raises Diverged where the model gives no finite likelihood, and Interrupted between two batches when asked to stop.
    """
    target = ids.held_out.target
    alike = _first_alike(ids.held_out)
    candidates = [np.unique(alike[np.concatenate([contest.right, contest.negatives])]) for contest in contests]
    queries = np.array([contest.query for contest in contests], dtype=np.int64)
    ends = ids.ends(ids.held_out.view, end)
    sums = candidate_log_probs(model, ids.held_out, queries, candidates, ends, longest, memory_mb)
    parts = []
    for contest, rows, log_probs in zip(contests, candidates, sums, strict=True):
        right, negatives = (np.searchsorted(rows, alike[each]) for each in (contest.right, contest.negatives))
        nll, lengths = -log_probs, target.lengths[rows]
        parts.append(_losses(nll, nll / lengths, right, negatives, ids.mean_nll))
    if not all(np.isfinite(value) for part in parts for value in part.values()):
        raise Diverged("the model gives identifiers no finite likelihood")
    return Losses(**{name: np.array([part[name] for part in parts]) for name in Losses.__annotations__})


def _first_alike(pairs: Pairs) -> np.ndarray:
    """int64 (pairs,): for each pair the first one with the same identifier in the same view."""
    views = int(pairs.view.max(initial=0)) + 1
    key = first_alike(pairs.target) * views + pairs.view
    _, first, group = np.unique(key, return_index=True, return_inverse=True)
    return first[group]


@dataclass(frozen=True, kw_only=True)
class _Pack:
    """Candidates that share a prompt: those of one query in one view, or as many of them as memory holds."""

    query: int
    """Place among the queries."""
    end: int
    places: np.ndarray
    """Of the candidates among the query's."""


def candidate_log_probs(
    model: PreTrainedModel,
    held_out: Pairs,
    queries: np.ndarray,
    candidates: list[np.ndarray],
    ends: np.ndarray,
    longest: int,
    memory_mb: int | None = None,
) -> list[np.ndarray]:
    """For each of `queries` the log-probability of each of its candidates, which are rows of the held-out pairs.

    `ends`: what ends the prompt of each held-out pair. Queries of like length go together, as many as memory holds;
    one with more candidates than that is cut, between identifiers that begin alike only where it must be.
    """
    prompt = np.minimum(held_out.sources.lengths[queries], longest) + 1
    longest_target = int(held_out.target.lengths[np.concatenate(candidates)].max(initial=1)) if len(queries) else 1
    memory = SearchMemory(
        shape=shape_of(model),
        prompt=int(prompt.max(initial=1)),
        new_tokens=longest_target,
        value_bytes=model.dtype.itemsize,
        device=model.device.type,
        kept_values=0,
    )
    limit = search_limit(memory_mb)
    packs = [
        pack
        for query in np.argsort(prompt, kind="stable")
        for pack in _packs(int(query), ends[candidates[query]], held_out.target, candidates[query], memory.rows(limit))
    ]
    together = memory.queries(max((len(pack.places) for pack in packs), default=1), limit)
    found = [np.zeros(len(rows)) for rows in candidates]
    for start in range(0, len(packs), together):
        stop_here(f"scoring, {start} of {len(packs)} groups of identifiers done")
        batch = packs[start : start + together]
        asked = queries[[pack.query for pack in batch]]
        session = open_session(model, held_out.sources, asked, np.array([pack.end for pack in batch]), longest)
        owner = np.repeat(np.arange(len(batch)), [len(pack.places) for pack in batch])
        targets = held_out.target.take(np.concatenate([candidates[pack.query][pack.places] for pack in batch]))
        log_probs = identifier_log_probs(session, owner, targets).log_probs
        for number, pack in enumerate(batch):
            found[pack.query][pack.places] = log_probs[owner == number]
    return found


def _packs(query: int, ends: np.ndarray, target: Ragged, rows: np.ndarray, most: int) -> list[_Pack]:
    """`rows` of `target` are the query's candidates, and `ends` what ends the prompt of each."""
    packs = []
    for end in np.unique(ends):
        places = np.flatnonzero(ends == end)
        if len(places) > most:  # by their tokens, so that few prefixes are in two packs
            places = places[np.lexsort(target.padded(rows[places], fill=-1).T[::-1])]
        packs += [
            _Pack(query=query, end=int(end), places=places[begin : begin + most])
            for begin in range(0, len(places), most)
        ]
    return packs


def _losses(
    nll: np.ndarray, mean_nll: np.ndarray, right: np.ndarray, negatives: np.ndarray, by_mean: bool
) -> dict[str, float]:
    """`right` and `negatives` are places in `nll` (summed) and `mean_nll` (a token), one value a candidate."""
    compared = mean_nll if by_mean else nll
    positive, negative = float(mean_nll[right].min()), float(mean_nll[negatives].sum())
    first = compared[right[0]]
    return {
        "cgl": float(logsumexp(-np.append(compared[negatives], first)) + first),
        "published": float(np.log1p(positive / negative)),
        "published_positive": positive,
        "published_negative": negative,
        "nll": float(mean_nll[right[0]]),
    }
