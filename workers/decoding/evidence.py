"""From the n-grams that a search looked at to a ranking of documents (SEAL, Bevilacqua et al. 2022; MINDER, 2023).

An n-gram that the model finds more likely than the corpus does is evidence for every document that contains it:

    w(n) = max(0, log [ P(n|q) (1 - P(n)) / (P(n) (1 - P(n|q))) ]) ^ 2,    P(n) = (count + 5) / (tokens + 5)

count and tokens are those of the view that the n-gram was written in. Documents are found by the rare n-grams, then
the best of them are scored in full by all n-grams. Both take n-grams by falling weight (equal ones by view, then by
their tokens); an occurrence that overlaps with one taken before does not count, an n-gram counts once a document, and
one whose tokens the document has shown already counts less. Where an n-gram occurs several times in a document, the
first stage takes occurrences in the index's order and the second from left to right.

The loops are in `numba_evidence.py`. What is held is one query's occurrences and the text of the documents that it
finds, so neither stage depends on the size of the corpus.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workers.decoding import numba_evidence as loops
from workers.decoding.beam import Candidates
from workers.decoding.index import Index
from workers.decoding.numba_evidence import Ngrams
from workers.decoding.view import View
from workers.ragged import Ragged, concatenated_ranges

SMOOTHING = 5.0
RARE = 1500
"""N-grams that occur more often find no documents."""
FULLY_SCORED = 1500
"""Documents that are scored by all n-grams."""
SHORTEST = 2
"""Single tokens are no evidence: with them, wide beams do worse than narrow ones."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One query's n-grams that have a weight, and where they are."""

    ngrams: Ngrams
    view: np.ndarray
    """int64 (n-grams,)."""
    lo: np.ndarray
    hi: np.ndarray
    """int64 (n-grams, most shards of a view): the interval in each shard, empty in a shard that its view lacks."""


@dataclass(frozen=True, kw_only=True)
class Spans:
    """One identifier a document."""

    view: np.ndarray
    """int64 (documents,)."""
    tokens: Ragged


class EvidenceScorer:
    """Scores documents by n-grams of all views. Keeps four bytes a document as scratch, so make one a worker."""

    def __init__(self, views: Sequence[View], documents: int) -> None:
        self.views = tuple(views)
        self.token_counts = np.array([view.index.token_count for view in self.views], dtype=np.int64)
        self.rows_of = [RowsOfDocuments(view.documents) for view in self.views]
        self.vocabulary = max(view.index.boundary for view in self.views)
        # Pages of a table of zeros take no memory until they are written.
        self.place = np.zeros(documents, dtype=np.int32)

    def rank(
        self, candidates: Sequence[Candidates | None], query: int, depth: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """(documents int64, scores float64) of the best `depth`, best first; ties are broken at random by `rng`.

        `candidates`: one a view, None where a view was not searched. `query`: row of the batch.
        """
        evidence = self.weigh(candidates, query)
        documents, scores = self._find(evidence)
        best = np.argsort(-scores, kind="stable")[:FULLY_SCORED]
        documents = np.sort(documents[best])
        scores = self._score_in_full(evidence, documents)
        ranked = np.lexsort((rng.random(len(scores)), -scores))[:depth]
        return documents[ranked], scores[ranked]

    def spans(self, candidates: Sequence[Candidates | None], query: int, documents: np.ndarray) -> Spans:
        """Each document's weightiest n-gram with what follows it, up to an identifier's length or the row's end.

        `documents` must hold evidence of the query, as ranked ones do.
        """
        evidence = self.weigh(candidates, query)
        texts, view_of_row, rows_end = self._texts(documents)
        longest = np.array([view.max_length for view in self.views], dtype=np.int64)
        row, start = loops.weightiest_match(
            evidence.ngrams, evidence.view, texts.values, texts.offsets, view_of_row, rows_end
        )
        length = np.minimum(longest[view_of_row[row]], texts.offsets[row + 1] - start)
        positions, _ = concatenated_ranges(start, length)
        offsets = np.concatenate([[0], np.cumsum(length)])
        return Spans(view=view_of_row[row], tokens=Ragged(values=texts.values[positions], offsets=offsets))

    def weigh(self, candidates: Sequence[Candidates | None], query: int) -> Evidence:
        """One query's evidence. Single tokens are left out unless it wrote nothing longer."""
        view, length, score, lo, hi = self._written(candidates, query)
        weight = weights(score, (hi - lo).sum(axis=1), self.token_counts[view])
        kept = np.flatnonzero((length >= min(SHORTEST, length.max(initial=0))) & (weight > 0))
        tokens = np.full((len(kept), length[kept].max(initial=0)), -1, dtype=np.int32)
        for number in np.unique(view[kept]):
            mine = view[kept] == number
            rows = kept[mine]
            tokens[mine] = _prefixes(self.views[number].index, lo[rows], hi[rows], length[rows], tokens.shape[1])
        alphabetical = _alphabetical(view[kept], tokens)
        kept = kept[alphabetical]
        return Evidence(
            ngrams=_ngrams(tokens[alphabetical], length[kept], weight[kept]), view=view[kept], lo=lo[kept], hi=hi[kept]
        )

    def _written(self, candidates: Sequence[Candidates | None], query: int) -> tuple[np.ndarray, ...]:
        """view, length, score, lo, hi of everything that one query looked at."""
        shards = max(len(view.index.shards) for view in self.views)
        none = np.empty((0, shards), dtype=np.int64)
        parts: list[tuple[np.ndarray, ...]] = [(none[:, 0], none[:, 0], np.empty(0), none, none)]
        for number, found in enumerate(candidates):
            if found is not None:
                rows = np.flatnonzero(found.query == query)
                lo, hi = (_wider(each[rows], shards) for each in (found.lo, found.hi))
                parts.append((np.full(len(rows), number), found.length[rows], found.score[rows], lo, hi))
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))

    def _find(self, evidence: Evidence) -> tuple[np.ndarray, np.ndarray]:
        """(documents, scores) by rare n-grams, in the order in which documents are found."""
        count = (evidence.hi - evidence.lo).sum(axis=1)
        by_weight = evidence.ngrams.by_weight
        rare = by_weight[count[by_weight] <= RARE]
        document, start = self._locate(evidence, rare)
        documents, group_ends, hits = loops.group_by_document(document, self.place)
        ngram, start = np.repeat(rare, count[rare])[hits], start[hits]
        scores = loops.score_found(evidence.ngrams, group_ends, ngram, start, self._unseen())
        return documents, scores

    def _locate(self, evidence: Evidence, ngrams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Document and first position of every occurrence: n-gram after n-gram, shard after shard, in index order.

        Positions count on from shard to shard and from view to view, so none occurs twice.
        """
        lo, hi = evidence.lo[ngrams], evidence.hi[ngrams]
        ends = np.cumsum(hi - lo).reshape(lo.shape)
        begins = ends - (hi - lo)
        document = np.empty(ends[-1, -1] if ends.size else 0, dtype=np.int32)
        start = np.empty(len(document), dtype=np.int64)
        before = 0
        for number, view in enumerate(self.views):
            mine = evidence.view[ngrams] == number
            for place, (shard, first_row) in enumerate(zip(view.index.shards, view.index.first_rows, strict=False)):
                within = tuple(each[mine, place] for each in (lo, hi, begins))
                loops.locate(within, shard.order, shard.row_starts, view.documents[first_row:], before, document, start)
                before += len(shard.tokens)
        return document, start

    def _score_in_full(self, evidence: Evidence, documents: np.ndarray) -> np.ndarray:
        """Score of each document by all n-grams: float64 (documents,)."""
        texts, view_of_row, rows_end = self._texts(documents)
        view, tokens = evidence.view, evidence.ngrams.tokens
        begins, ends = loops.by_first_token(view, tokens, len(self.views), self.vocabulary)
        likely = loops.beginnings(view, tokens, len(self.views))
        return loops.score_texts(
            evidence.ngrams, texts.values, texts.offsets, view_of_row, rows_end, begins, ends, likely, self._unseen()
        )

    def _unseen(self) -> np.ndarray:
        return np.zeros(self.vocabulary, dtype=np.int32)

    def _texts(self, documents: np.ndarray) -> tuple[Ragged, np.ndarray, np.ndarray]:
        """Rows of the given documents, by document, view and row; each row's view; where each document's rows end."""
        found = [rows_of(documents) for rows_of in self.rows_of]
        view = np.repeat(np.arange(len(found)), [len(rows) for rows, _ in found])
        row, owner = (np.concatenate(column) for column in zip(*found, strict=True))
        by_document = np.argsort(owner, kind="stable")
        view, row, owner = view[by_document], row[by_document], owner[by_document]
        texts = gather_rows([each.index for each in self.views], view, row)
        return texts, view, np.searchsorted(owner, np.arange(len(documents)), side="right")


class RowsOfDocuments:
    """Which rows of a view belong to a document. Where rows are in the order of documents, this holds nothing."""

    def __init__(self, documents: np.ndarray) -> None:
        self.documents = documents
        self.rows: np.ndarray | None = None
        if not loops.ascends(documents):
            self.rows = np.argsort(documents, kind="stable").astype(np.int32)
            self.documents = documents[self.rows]

    def __call__(self, documents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the given documents, ascending for each, and which of the given documents each belongs to."""
        wanted = documents.astype(self.documents.dtype)
        begins = np.searchsorted(self.documents, wanted)
        rows, owner = concatenated_ranges(begins, np.searchsorted(self.documents, wanted, side="right") - begins)
        return rows if self.rows is None else self.rows[rows].astype(np.int64), owner


def weights(log_prob: np.ndarray, count: np.ndarray, token_count: int | np.ndarray) -> np.ndarray:
    """w(n) of the formula above, from log P(n|q)."""
    log_prob = np.minimum(log_prob, -1e-10)
    log_prior = np.log((count + SMOOTHING) / (token_count + SMOOTHING))
    log_prior = np.minimum(log_prior, -1e-10)
    odds = log_prob + np.log(-np.expm1(log_prior)) - log_prior - np.log(-np.expm1(log_prob))
    return np.maximum(odds, 0.0) ** 2


def least_evidence(token_count: int) -> float:
    """The log-probability that an n-gram must exceed to weigh anything, even one that occurs once."""
    return float(np.log((1 + SMOOTHING) / (token_count + SMOOTHING)))


def _ngrams(tokens: np.ndarray, length: np.ndarray, weight: np.ndarray) -> Ngrams:
    types, type_count = loops.token_types(tokens)
    by_weight = np.argsort(-weight, kind="stable")
    place = np.empty_like(by_weight)
    place[by_weight] = np.arange(len(by_weight))
    return Ngrams(
        tokens=tokens,
        length=length,
        types=types,
        type_count=type_count,
        weight=weight,
        by_weight=by_weight,
        place=place,
    )


def _wider(columns: np.ndarray, width: int) -> np.ndarray:
    return np.pad(columns, ((0, 0), (0, width - columns.shape[1])))


def _prefixes(index: Index, lo: np.ndarray, hi: np.ndarray, length: np.ndarray, width: int) -> np.ndarray:
    """The tokens that each state stands for, int32 (states, width), -1 behind their end."""
    out = np.full((len(lo), width), -1, dtype=np.int32)
    shard_of = np.argmax(hi > lo, axis=1)
    inside = np.arange(width) < length[:, None]
    for number, shard in enumerate(index.shards):
        mine = np.flatnonzero(shard_of == number)
        state, at = np.nonzero(inside[mine])
        out[mine[state], at] = shard.tokens[shard.order[lo[mine, number]].astype(np.int64)[state] + at]
    return out


def _alphabetical(view: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """A permutation that sorts by view, then by tokens, a prefix before what continues it."""
    if not len(view):
        return np.empty(0, dtype=np.int64)
    # Big-endian bytes compare as the numbers do. A string's trailing zeros do not count, and nothing here is 0.
    key = np.column_stack([view + 1, tokens + 1]).astype(">u4")
    return np.argsort(key.view(f"S{key.shape[1] * 4}")[:, 0], kind="stable")


def gather_rows(indexes: Sequence[Index], view: np.ndarray, row: np.ndarray) -> Ragged:
    """The given rows, one after the other: row `row[i]` of index `view[i]`."""
    shard_of, start, length = (np.zeros(len(row), dtype=np.int64) for _ in range(3))
    for number, index in enumerate(indexes):
        mine = np.flatnonzero(view == number)
        shard_of[mine] = np.searchsorted(index.first_rows, row[mine], side="right") - 1
        for place, shard in enumerate(index.shards):
            here = mine[shard_of[mine] == place]
            local = row[here] - index.first_rows[place]
            if shard.by_columns:
                start[here], length[here] = local, (shard.row_tokens(local) != index.boundary).sum(axis=1)
            else:
                start[here] = shard.row_starts[local]
                length[here] = shard.row_starts[local + 1].astype(np.int64) - start[here] - 1
    offsets = np.concatenate([[0], np.cumsum(length)])
    values = np.empty(offsets[-1], dtype=np.int32)
    for number, index in enumerate(indexes):
        for place, shard in enumerate(index.shards):
            here = np.flatnonzero((view == number) & (shard_of == place))
            if shard.by_columns:
                tokens = shard.row_tokens(start[here])
                values[concatenated_ranges(offsets[here], length[here])[0]] = tokens[tokens != index.boundary]
            else:
                loops.copy_rows(shard.tokens, start[here], length[here], offsets[here], values)
    return Ragged(values=values, offsets=offsets)
