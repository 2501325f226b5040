"""The best documents of a search, ranked again by how likely the model finds their identifiers in full."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workers.decoding.beam import Candidates
from workers.decoding.evidence import EvidenceScorer, RowsOfDocuments, gather_rows
from workers.decoding.view import View
from workers.identifiers.sets import IdentifierSet
from workers.models.likelihood import identifier_log_probs
from workers.models.sessions import ScoringSession
from workers.ragged import Ragged

Ranking = tuple[np.ndarray, np.ndarray]
"""(documents, scores), best first."""


@dataclass(frozen=True, kw_only=True)
class Identifiers:
    """Whole identifiers of documents that are ranked again; flat, one entry each."""

    query: np.ndarray
    """Row of the batch."""
    document: np.ndarray
    view: np.ndarray
    tokens: Ragged


def rerank(
    ids: IdentifierSet, identifiers: Identifiers, sessions: Sequence[ScoringSession | None], rankings: Sequence[Ranking]
) -> tuple[list[Ranking], list[np.ndarray | None]]:
    """The rankings with the documents that have an identifier in `identifiers` first, by its likelihood.

    A document's likelihood is the log of its identifiers' summed probabilities, or the best mean log-probability a
    token where identifiers are compared by their mean. The others follow in their order, with scores that go on
    falling. Also returns the rows of each view's passes, see `Likelihoods.rows`; None for a view that was not asked.
    """
    log_probs = np.full(len(identifiers.query), -np.inf)
    passes: list[np.ndarray | None] = []
    for number, session in enumerate(sessions):
        mine = np.flatnonzero(identifiers.view == number)
        if session is None or not len(mine):
            passes.append(None)
            continue
        session.restart()
        likelihoods = identifier_log_probs(session, identifiers.query[mine], identifiers.tokens.take(mine))
        log_probs[mine] = likelihoods.log_probs
        passes.append(likelihoods.rows)
    if ids.mean_nll:
        log_probs /= np.maximum(identifiers.tokens.lengths, 1)
    ranked = []
    for query, (documents, scores) in enumerate(rankings):
        mine = np.flatnonzero(identifiers.query == query)
        likelihood = _by_document(documents, identifiers.document[mine], log_probs[mine], ids.mean_nll)
        ranked.append(_again(documents, scores, likelihood))
    return ranked, passes


def _by_document(documents: np.ndarray, named: np.ndarray, log_probs: np.ndarray, by_mean: bool) -> np.ndarray:
    """float64 (documents,): -inf for one without an identifier."""
    order = np.argsort(documents)
    place = order[np.searchsorted(documents[order], named)] if len(named) else named
    likelihood = np.full(len(documents), -np.inf)
    (np.maximum if by_mean else np.logaddexp).at(likelihood, place, log_probs)
    return likelihood


def _again(documents: np.ndarray, scores: np.ndarray, likelihood: np.ndarray) -> Ranking:
    known = np.isfinite(likelihood)
    best = np.flatnonzero(known)[np.argsort(-likelihood[known], kind="stable")]
    rest = np.flatnonzero(~known)
    if not len(best):
        return documents, scores
    falling = likelihood[best[-1]] - 1 - (scores[rest].max(initial=-np.inf) - scores[rest])
    return documents[np.append(best, rest)], np.append(likelihood[best], falling)


# ---------------------------------------------------------------- which identifiers


def whole_identifiers(
    views: Sequence[View], rows_of: Sequence[RowsOfDocuments | None], rankings: Sequence[Ranking], most: int
) -> Identifiers:
    """All identifiers, in the views that have an entry in `rows_of`, of the best `most` documents of each query."""
    query, document, view, row = ([np.empty(0, dtype=np.int64)] for _ in range(4))
    for place, (documents, _) in enumerate(rankings):
        for number, rows_of_view in enumerate(rows_of):
            if rows_of_view is not None:
                rows, owner = rows_of_view(documents[:most])
                row.append(rows)
                document.append(documents[:most][owner])
                view.append(np.full(len(rows), number))
                query.append(np.full(len(rows), place))
    found = np.concatenate(view)
    tokens = gather_rows([each.index for each in views], found, np.concatenate(row))
    named = np.flatnonzero(tokens.lengths > 0)  # an empty row is no identifier, and would be certain
    return Identifiers(
        query=np.concatenate(query)[named],
        document=np.concatenate(document)[named],
        view=found[named],
        tokens=tokens.take(named),
    )


def evident_spans(
    scorer: EvidenceScorer, candidates: Sequence[Candidates | None], rankings: Sequence[Ranking], most: int
) -> Identifiers:
    """For each of the best `most` documents of a query the identifier that its weightiest n-gram begins."""
    query, document, view = ([np.empty(0, dtype=np.int64)] for _ in range(3))
    tokens: list[np.ndarray] = []
    for place, (documents, _) in enumerate(rankings):
        spans = scorer.spans(candidates, place, documents[:most])
        query.append(np.full(len(spans.tokens), place))
        document.append(documents[:most])
        view.append(spans.view)
        tokens.extend(spans.tokens[row] for row in range(len(spans.tokens)))
    return Identifiers(
        query=np.concatenate(query),
        document=np.concatenate(document),
        view=np.concatenate(view),
        tokens=Ragged.of(tokens),
    )
