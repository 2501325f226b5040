"""From the n-grams that a search looked at to a ranking of documents (SEAL, Bevilacqua et al. 2022; MINDER, 2023).

An n-gram that the model finds more likely than the corpus does is evidence for every document that contains it:

    w(n) = max(0, log [ P(n|q) (1 - P(n)) / (P(n) (1 - P(n|q))) ]) ^ 2,    P(n) = (count + 5) / (tokens + 5)

count and tokens are those of the view that the n-gram was written in. Documents are found by the rare n-grams, then
the best of them are scored in full by all n-grams. Both take n-grams by falling weight (equal ones by view, then by
their tokens); an occurrence that overlaps with one taken before does not count, an n-gram counts once a document, and
one whose tokens the document has shown already counts less. Where an n-gram occurs several times in a document, the
first stage takes occurrences in the index's order and the second from left to right.

The loops are in `numba_evidence.py`. Rare n-grams are located once, for both stages; only for the others are texts
scanned, those of the documents that are scored in full. So neither stage depends on the size of the corpus.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from workers.decoding import numba_evidence as loops
from workers.decoding.beam import Candidates
from workers.decoding.index import Index, Shard
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
    """One query's n-grams that have a weight, in the order of the rule, and where they are."""

    ngrams: Ngrams
    view: np.ndarray
    """int64 (n-grams,)."""
    lo: np.ndarray
    hi: np.ndarray
    """int64 (n-grams, most shards of a view): the interval in each shard, empty in a shard that its view lacks."""

    @property
    def count(self) -> np.ndarray:
        """int64 (n-grams,): how often each occurs."""
        return (self.hi - self.lo).sum(axis=1)


@dataclass(frozen=True, kw_only=True)
class Found:
    """The documents that hold rare n-grams, each with a group of hits; groups in the order in which documents occur.

    In a group n-grams are in the order of the rule, and occurrences of one in the order of the index.
    """

    documents: np.ndarray
    """int64 (documents,)."""
    ends: np.ndarray
    """int64 (documents,): where the group of each ends."""
    ngram: np.ndarray
    """int64 (hits,)."""
    start: np.ndarray
    """int64 (hits,): first position; positions count on from shard to shard and from view to view."""
    bound: np.ndarray
    """float64 (documents,): what no score by rare n-grams is above."""


@dataclass(frozen=True, kw_only=True)
class Spans:
    """One identifier a document."""

    view: np.ndarray
    """int64 (documents,)."""
    tokens: Ragged


class EvidenceScorer:
    """Scores documents by n-grams of all views.

    Keeps four bytes a document as scratch and four every 64 tokens, so make one a worker.
    """

    def __init__(self, views: Sequence[View], documents: int) -> None:
        self.views = tuple(views)
        self.token_counts = np.array([view.index.token_count for view in self.views], dtype=np.int64)
        self.rows_of = [RowsOfDocuments(view.documents) for view in self.views]
        self.vocabulary = max(view.index.boundary for view in self.views)
        self.blocks = [[loops.rows_of_blocks(shard.row_starts) for shard in view.index.shards] for view in self.views]
        # Pages of a table of zeros take no memory until they are written.
        self.place = np.zeros(documents, dtype=np.int32)

    def rank(
        self, candidates: Sequence[Candidates | None], query: int, depth: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """(documents int64, scores float64) of the best `depth`, best first; ties are broken at random by `rng`.

        `candidates`: one a view, None where a view was not searched. `query`: row of the batch.
        """
        evidence = self.weigh(candidates, query)
        found = self._find(evidence)
        groups = self._first_stage(evidence, found)
        groups = groups[np.argsort(found.documents[groups])]
        scores = self._second_stage(evidence, found, groups, depth)
        ranked = np.lexsort((rng.random(len(scores)), -scores))[:depth]
        return found.documents[groups[ranked]], scores[ranked]

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
        kept = kept[np.argsort(-weight[kept], kind="stable")]
        view, length, weight, lo, hi = (each[kept] for each in (view, length, weight, lo, hi))
        tokens = np.empty((len(kept), length.max(initial=0)), dtype=np.int32)
        for number, each in enumerate(self.views):
            rows = np.flatnonzero(view == number)
            shard_of = np.argmax(hi[rows] > lo[rows], axis=1)
            for place, shard in enumerate(each.index.shards):
                mine = rows[shard_of == place]
                loops.prefixes(shard.tokens, shard.order, lo[mine, place], length[mine], mine, tokens)
        order = _ties_in_order(weight, view, tokens)
        if order is not None:
            view, length, tokens, lo, hi = (each[order] for each in (view, length, tokens, lo, hi))
        types, type_count = loops.token_types(tokens)
        ngrams = Ngrams(tokens=tokens, length=length, types=types, type_count=type_count, weight=weight)
        return Evidence(ngrams=ngrams, view=view, lo=lo, hi=hi)

    def _written(self, candidates: Sequence[Candidates | None], query: int) -> tuple[np.ndarray, ...]:
        """view, length, score, lo, hi of everything that one query looked at."""
        shards = max(len(view.index.shards) for view in self.views)
        none = np.empty((0, shards), dtype=np.int64)
        parts: list[tuple[np.ndarray, ...]] = [(none[:, 0], none[:, 0], np.empty(0), none, none)]
        for number, found in enumerate(candidates):
            if found is not None:
                rows = found.of(query)
                lo, hi = (_wider(each[rows], shards) for each in (found.lo, found.hi))
                parts.append((np.full(rows.stop - rows.start, number), found.length[rows], found.score[rows], lo, hi))
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))

    def _find(self, evidence: Evidence) -> Found:
        """Documents by rare n-grams."""
        count = evidence.count
        rare = np.flatnonzero(count <= RARE)
        document, start = self._locate(evidence, rare)
        documents, ends, hits = loops.group_by_document(document, self.place)
        ngram = np.repeat(rare, count[rare])[hits]
        bound = loops.most_possible(evidence.ngrams, ends, ngram)
        return Found(documents=documents, ends=ends, ngram=ngram, start=start[hits], bound=bound)

    def _locate(self, evidence: Evidence, ngrams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Document and first position of every occurrence: n-gram after n-gram, shard after shard, in index order."""
        lo, hi = evidence.lo[ngrams], evidence.hi[ngrams]
        ends = np.cumsum(hi - lo).reshape(lo.shape)
        begins = ends - (hi - lo)
        document = np.empty(ends[-1, -1] if ends.size else 0, dtype=np.int32)
        start = np.empty(len(document), dtype=np.int64)
        for number, place, shard, first_row, before in self._shards():
            mine = evidence.view[ngrams] == number
            within = tuple(each[mine, place] for each in (lo, hi, begins))
            documents = self.views[number].documents[first_row:]
            row_of_block = self.blocks[number][place]
            loops.locate(within, shard.order, shard.row_starts, row_of_block, documents, before, document, start)
        return document, start

    def _shards(self) -> Iterator[tuple[int, int, Shard, int, int]]:
        """View, place in it, shard, its first row, and how many positions there are before it, of all shards."""
        before = 0
        for number, view in enumerate(self.views):
            for place, (shard, first_row) in enumerate(zip(view.index.shards, view.index.first_rows, strict=False)):
                yield number, place, shard, int(first_row), before
                before += len(shard.tokens)

    def _first_stage(self, evidence: Evidence, found: Found) -> np.ndarray:
        """Groups of the documents that are scored in full: where there are more, the best by rare n-grams."""
        if len(found.documents) <= FULLY_SCORED:
            return np.arange(len(found.documents))
        nothing, no_ends = np.empty(0, dtype=np.int64), np.zeros(len(found.documents), dtype=np.int64)
        scores = scores_of_best(
            found.bound, FULLY_SCORED, lambda groups: self._score(evidence, found, groups, nothing, no_ends, False)
        )
        least = np.partition(scores[scores > -np.inf], -FULLY_SCORED)[-FULLY_SCORED]
        better = np.flatnonzero(scores > least)
        return np.append(better, np.flatnonzero(scores == least)[: FULLY_SCORED - len(better)])

    def _second_stage(self, evidence: Evidence, found: Found, groups: np.ndarray, depth: int) -> np.ndarray:
        """float64 (groups,): scores by all n-grams, of the documents that can be among the best `depth`."""
        frequent = np.flatnonzero(evidence.count > RARE)
        # Where rounding could matter, the bound is a little too high.
        bound = found.bound[groups] + (1 + 1e-9) * evidence.ngrams.weight[frequent].sum()

        def score(places: np.ndarray) -> np.ndarray:
            further, ends = self._scan(evidence, frequent, found.documents[groups[places]])
            return self._score(evidence, found, groups[places], further, ends, True)

        return scores_of_best(bound * (1 + 1e-9), depth, score)

    def _score(
        self,
        evidence: Evidence,
        found: Found,
        groups: np.ndarray,
        further: np.ndarray,
        further_ends: np.ndarray,
        rearranged: bool,
    ) -> np.ndarray:
        seen = np.zeros(self.vocabulary, dtype=np.int32)
        return loops.score_groups(
            evidence.ngrams, groups, found.ends, found.ngram, found.start, further, further_ends, rearranged, seen
        )

    def _scan(self, evidence: Evidence, frequent: np.ndarray, documents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Matches of n-grams that are not located in the texts of documents, and where those of each document end."""
        owners, matches = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
        for number, _place, shard, first_row, before in self._shards():
            ngrams = frequent[evidence.view[frequent] == number]
            if not len(ngrams):
                continue
            ngrams = ngrams[_by_tokens(evidence.ngrams.tokens[ngrams])]
            tokens = evidence.ngrams.tokens[ngrams]
            tables = (*loops.by_first_token(tokens, self.vocabulary), loops.beginnings(tokens))
            rows, owner = self.rows_of[number](documents)
            here = np.flatnonzero((rows >= first_row) & (rows < first_row + len(shard.row_starts) - 1))
            begin, end = (shard.row_starts[rows[here] - first_row + each].astype(np.int64) for each in (0, 1))
            row, match = loops.scan(evidence.ngrams, ngrams, tables, shard.tokens, begin, end - 1, before)
            owners.append(owner[here[row]])
            matches.append(match)
        owner = np.concatenate(owners)
        by_document = np.argsort(owner, kind="stable")
        ends = np.cumsum(np.bincount(owner, minlength=len(documents)))
        return np.concatenate(matches)[by_document], ends

    def _texts(self, documents: np.ndarray) -> tuple[Ragged, np.ndarray, np.ndarray]:
        """Rows of the given documents, by document, view and row; each row's view; where each document's rows end."""
        found = [rows_of(documents) for rows_of in self.rows_of]
        view = np.repeat(np.arange(len(found)), [len(rows) for rows, _ in found])
        row, owner = (np.concatenate(column) for column in zip(*found, strict=True))
        by_document = np.argsort(owner, kind="stable")
        view, row, owner = view[by_document], row[by_document], owner[by_document]
        texts = gather_rows([each.index for each in self.views], view, row)
        return texts, view, np.searchsorted(owner, np.arange(len(documents)), side="right")


def scores_of_best(bound: np.ndarray, most: int, score: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """float64, as `bound`: scores of all entries that can be among the best `most`, -inf for others.

    `score` is asked for those of some entries; none is above its `bound`.
    """
    scores = np.full(len(bound), -np.inf)
    promising = np.arange(len(bound))
    if len(bound) > 2 * most:
        promising = np.argpartition(bound, -2 * most)[-2 * most :]
    known = scores[promising] = score(promising)
    if len(promising) < len(bound):
        others = bound >= np.partition(known, -most)[-most]
        others[promising] = False
        rest = np.flatnonzero(others)
        scores[rest] = score(rest)
    return scores


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


def _wider(columns: np.ndarray, width: int) -> np.ndarray:
    return columns if columns.shape[1] == width else np.pad(columns, ((0, 0), (0, width - columns.shape[1])))


def _ties_in_order(weight: np.ndarray, view: np.ndarray, tokens: np.ndarray) -> np.ndarray | None:
    """A permutation that sorts n-grams of equal weight by view, then by tokens; None where no weights are equal.

    `weight` falls.
    """
    group = np.cumsum(np.diff(weight, prepend=np.nan) != 0)
    if not len(group) or group[-1] == len(group):
        return None
    return np.lexsort((*tokens.T[::-1], view, group))


def _by_tokens(tokens: np.ndarray) -> np.ndarray:
    """A permutation that sorts n-grams, a prefix before what continues it."""
    return np.lexsort(tokens.T[::-1])


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
