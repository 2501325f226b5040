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
import torch
from scipy.special import logsumexp
from transformers import PreTrainedModel

from workers.errors import BadInput, Diverged
from workers.identifiers.sets import IdentifierSet, Pairs
from workers.models.sessions import open_session

ROWS = 1024
"""Candidates that go through the model together; what bounds memory to ROWS x length x vocabulary scores."""


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
    model: PreTrainedModel, ids: IdentifierSet, contests: list[Contest], end: int, longest: int
) -> Losses:
    """Score every contest. `end` and `longest` are how a query is ended and cut.

    Raises Diverged where the model gives no finite likelihood.
    """
    lengths = ids.held_out.target.lengths
    parts = [
        _losses(contest_nll(model, ids.held_out, contest, end, longest), lengths, contest, ids.mean_nll)
        for contest in contests
    ]
    if not all(np.isfinite(value) for part in parts for value in part.values()):
        raise Diverged("the model gives identifiers no finite likelihood")
    return Losses(**{name: np.array([part[name] for part in parts]) for name in Losses.__annotations__})


def contest_nll(model: PreTrainedModel, held_out: Pairs, contest: Contest, end: int, longest: int) -> dict[int, float]:
    """Summed NLL of each distinct identifier row of a contest."""
    rows = np.unique(np.concatenate([contest.right, contest.negatives]))
    sums = []
    for start in range(0, len(rows), ROWS):
        chunk = rows[start : start + ROWS]
        session = open_session(model, held_out.sources, np.array([contest.query]), end, longest)
        targets = torch.from_numpy(held_out.target.padded(chunk, fill=0)).to(model.device)
        log_probs = session.score(torch.zeros(len(chunk), dtype=torch.long, device=model.device), targets)
        inside = np.arange(targets.shape[1]) < held_out.target.lengths[chunk][:, None]
        sums.append(-(log_probs.double().cpu().numpy() * inside).sum(axis=1))
    return dict(zip(rows.tolist(), np.concatenate(sums).tolist(), strict=True))


def _losses(nll: dict[int, float], lengths: np.ndarray, contest: Contest, by_mean: bool) -> dict[str, float]:
    def of(rows: np.ndarray, mean: bool) -> np.ndarray:
        sums = np.array([nll[int(row)] for row in rows])
        return sums / lengths[rows] if mean else sums

    right, negatives = of(contest.right[:1], by_mean), of(contest.negatives, by_mean)
    positive, negative = float(of(contest.right, True).min()), float(of(contest.negatives, True).sum())
    return {
        "cgl": float(logsumexp(-np.concatenate([right, negatives])) + right[0]),
        "published": float(np.log1p(positive / negative)),
        "published_positive": positive,
        "published_negative": negative,
        "nll": float(of(contest.right[:1], True)[0]),
    }
