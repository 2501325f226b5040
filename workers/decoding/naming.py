"""From written identifiers to a ranking of the documents that they name."""

from collections.abc import Sequence

import numpy as np

from workers.decoding.beam import Candidates
from workers.decoding.view import View
from workers.ragged import concatenated_ranges


def rank_named(
    views: Sequence[View],
    candidates: Sequence[Candidates | None],
    most_tokens: Sequence[int],
    kept: int | None,
    query: int,
    depth: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """(documents int64, scores float64) of one query, best first, at most `depth`.

    A document's score is the log of the summed probabilities of its identifiers: of the best `kept` of a view (all of
    them where None) that were finished, or were cut off at their view's `most_tokens`. Such a prefix counts in full
    for all documents below it, as an identifier does for all that share it. Ties are broken at random by `rng`.
    `candidates`: one a view, None for one not searched.
    """
    searched = sum(found is not None for found in candidates)
    documents, scores = [np.empty(0, dtype=np.int64)], [np.empty(0)]
    for view, found, most in zip(views, candidates, most_tokens, strict=True):
        if found is not None:
            mine = found.of(query)
            entries = mine.start + np.flatnonzero(found.ended(most, mine))
            entries = entries[np.argsort(-found.score[entries], kind="stable")[:kept]]
            lo, hi = found.lo[entries], found.hi[entries]
            # Documents that one state alone can name are all alike below it, and no more than `depth` can be ranked.
            few = depth if searched == 1 and view.most_rows <= 1 else None
            named, owner = _named(view, lo, hi, few, rng)
            documents.append(named)
            scores.append(found.score[entries][owner])
    distinct, owner = np.unique(np.concatenate(documents), return_inverse=True)
    total = np.full(len(distinct), -np.inf)
    np.logaddexp.at(total, owner, np.concatenate(scores))
    best = np.lexsort((rng.random(len(distinct)), -total))[:depth]
    return distinct[best], total[best]


def _named(
    view: View, lo: np.ndarray, hi: np.ndarray, few: int | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Documents below each state, (states, shards), and which state names each; no document twice by one state.

    Of a state with more than `few` rows so many are drawn.
    """
    documents, owners = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    rows = (hi - lo).sum(axis=1)
    wide = rows > (rows.max(initial=0) if few is None else few)
    narrow = np.flatnonzero(~wide)
    for number, (shard, first_row) in enumerate(zip(view.index.shards, view.index.first_rows, strict=False)):
        ranks, owner = concatenated_ranges(lo[narrow, number], (hi - lo)[narrow, number])
        documents.append(view.documents[shard.rows_at(ranks) + first_row].astype(np.int64))
        owners.append(narrow[owner])
    for state in np.flatnonzero(wide):
        drawn = view.index.some_rows(lo[state], hi[state], rng.choice(rows[state], few, replace=False))
        documents.append(view.documents[drawn].astype(np.int64))
        owners.append(np.full(len(drawn), state))
    span = int(view.documents.max(initial=0)) + 1
    owner, document = np.divmod(np.unique(np.concatenate(owners) * span + np.concatenate(documents)), span)
    return document, owner
