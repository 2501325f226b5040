"""Ranking again by likelihood, against one plain forward pass an identifier."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from test_evidence import Texts, case_strategy, weighed
from test_models import target_log_probs

from workers.decoding.beam import Candidates, Search, beam_search
from workers.decoding.evidence import EvidenceScorer, RowsOfDocuments
from workers.decoding.index import build_index
from workers.decoding.view import View
from workers.identifiers.sets import IdentifierSet, Pairs, row_view
from workers.models.build import build
from workers.models.sessions import Session, open_session
from workers.ragged import Ragged
from workers.reranking import evident_spans, rerank, whole_identifiers
from workers.settings import ModelSettings

VOCABULARY, END, MARKERS = 30, 1, (28, 29)
QUERIES = Ragged.of([[5, 6, 7], [8], [], [9, 10, 11, 12]])
BATCH = np.array([3, 0, 2, 1])
DOCUMENTS = 12
NOTHING = Pairs(
    sources=QUERIES,
    source=np.empty(0, dtype=np.int64),
    document=np.empty(0, dtype=np.int64),
    target=Ragged.of([]),
    view=np.empty(0, dtype=np.int8),
)


def identifier_set(views: tuple[View, ...], ranks_by: str, mean_nll: bool) -> IdentifierSet:
    return IdentifierSet(
        kind="any",
        views=views,
        train=NOTHING,
        held_out=NOTHING,
        vocabulary=VOCABULARY,
        ranks_by=ranks_by,
        mean_nll=mean_nll,
        token_vectors=None,
    )


def random_rows(count: int, longest: int, seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(2, 12, size=rng.integers(2, longest + 1)).tolist() for _ in range(count)]


def body(rows: list[list[int]], marker: int | None, length: int) -> View:
    index = build_index(Ragged.of(rows), VOCABULARY, "suffixes")
    return View(
        name="body", index=index, documents=np.arange(len(rows), dtype=np.int32), marker=marker, max_length=length
    )


def make(family: str):
    return build(ModelSettings(family=family, size={"t5": "7k", "llama": "6k"}[family]), VOCABULARY, 0, 3).eval()


def sessions_of(model, views: tuple[View, ...]) -> list:
    ends = [END if view.marker is None else view.marker for view in views]
    return [open_session(model, QUERIES, BATCH, np.full(len(BATCH), end), 64) for end in ends]


def likelihood(model, place: int, tokens, view: View, by_mean: bool) -> float:
    """The oracle: one forward pass."""
    end = END if view.marker is None else view.marker
    values = target_log_probs(model, QUERIES[BATCH[place]], np.array(tokens), end).astype(np.float64)
    return float(values.mean() if by_mean else values.sum())


def evident(session: Session, view: View) -> Candidates:
    """What a search looks at, by a model that is surer of it than a random one."""
    found = beam_search(session, view.index, Search(beams=5, max_new_tokens=4)).candidates
    return replace(found, score=found.score / 20)


def rankings_of(sizes: tuple[int, ...]) -> list:
    """A first ranking a query, with scores like an evidence ranking's."""
    rng = np.random.default_rng(4)
    return [(rng.permutation(DOCUMENTS)[:n].astype(np.int64), 1e4 - np.arange(n) ** 2 * 7.0) for n in sizes]


def check(found, before, best: list[dict[int, float]]) -> None:
    """`best`: of each query, the likelihood of each document that is ranked again."""
    for (documents, scores), (first, _), expected in zip(found, before, best, strict=True):
        order = sorted(expected, key=lambda document: -expected[document])
        rest = [document for document in first.tolist() if document not in expected]
        assert documents.tolist() == order + rest
        assert scores[: len(order)].tolist() == pytest.approx([expected[each] for each in order], abs=1e-4)
        assert (np.diff(scores) < 0).all(), "scores fall strictly"


@pytest.mark.parametrize("family", ["t5", "llama"])
@pytest.mark.parametrize("most", [1, 4, 100])
@pytest.mark.parametrize("several", [False, True])
def test_equals_the_likelihood_of_all_identifiers(family: str, most: int, several: bool) -> None:
    """Codes, and pseudo-queries with several a document, one of them empty and one shared."""
    rows = random_rows(30 if several else DOCUMENTS, 5, seed=1)
    documents = np.arange(len(rows)) % DOCUMENTS
    if several:
        rows[3], rows[7] = [], rows[8]
    view = row_view("rows", Ragged.of(rows), documents, VOCABULARY)
    ids = identifier_set((view,), "identifier", mean_nll=False)
    model, before = make(family), rankings_of((DOCUMENTS, 0, 1, 7))
    chosen = whole_identifiers(ids.views, [RowsOfDocuments(view.documents)], before, most)
    found, passes = rerank(ids, chosen, sessions_of(model, ids.views), before)
    best: list[dict[int, float]] = []
    for place, (first, _) in enumerate(before):
        best.append({})
        for document in first[:most].tolist():
            mine = [rows[row] for row in np.flatnonzero(documents == document) if rows[row]]
            best[-1][document] = math.log(sum(math.exp(likelihood(model, place, each, view, False)) for each in mine))
    if several:
        assert all(len(np.flatnonzero(documents == document)) > 1 for document in range(DOCUMENTS))
    check(found, before, best)
    assert passes[0] is not None
    assert passes[0].shape[0] == len(BATCH)
    assert passes[0][1, 1:].sum() == 0, "a query without documents costs nothing more"


@pytest.mark.parametrize("family", ["t5", "llama"])
@pytest.mark.parametrize("most", [3, 100])
@pytest.mark.parametrize("views", [1, 2])
def test_spans_are_compared_by_their_mean(family: str, most: int, views: int) -> None:
    """Of one view, and of several with a marker each; the identifier is the weightiest n-gram's beginning."""
    texts = [random_rows(DOCUMENTS, 14, seed=view) for view in range(views)]
    built = tuple(body(rows, None if views == 1 else MARKERS[view], length=6 + view) for view, rows in enumerate(texts))
    ids = identifier_set(built, "evidence", mean_nll=True)
    model, scorer = make(family), EvidenceScorer(built, DOCUMENTS)
    sessions = sessions_of(model, built)
    candidates = [evident(session, view) for session, view in zip(sessions, built, strict=True)]
    before = [scorer.rank(candidates, place, 100, np.random.default_rng(0)) for place in range(len(BATCH))]
    before[1] = tuple(each[:0] for each in before[1])
    assert min(len(before[place][0]) for place in (0, 2, 3)) > 3
    found, _ = rerank(ids, evident_spans(scorer, candidates, before, most), sessions, before)
    best: list[dict[int, float]] = []
    used = set()
    for place, (first, _) in enumerate(before):
        spans = scorer.spans(candidates, place, first[:most])
        best.append({})
        for number, document in enumerate(first[:most].tolist()):
            view = int(spans.view[number])
            used.add(view)
            best[-1][document] = likelihood(model, place, spans.tokens[number], built[view], True)
    assert used == set(range(views))
    for (documents, scores), (first, _), expected in zip(found, before, best, strict=True):
        assert sorted(documents.tolist()) == sorted(first.tolist())
        again = documents[: len(expected)].tolist()
        assert set(again) == set(expected)
        assert scores[: len(again)].tolist() == pytest.approx([expected[each] for each in again], abs=1e-4)
        assert documents[len(again) :].tolist() == [each for each in first.tolist() if each not in expected]
        assert (np.diff(scores) <= 0).all()
        assert not len(again) or len(again) == len(scores) or scores[len(again)] < scores[len(again) - 1]


def test_a_view_that_was_not_searched_is_not_asked() -> None:
    texts = [random_rows(DOCUMENTS, 14, seed=view) for view in range(2)]
    built = tuple(body(rows, MARKERS[view], length=6) for view, rows in enumerate(texts))
    ids, model = identifier_set(built, "evidence", mean_nll=True), make("t5")
    scorer, session = EvidenceScorer(built, DOCUMENTS), sessions_of(model, built)[1]
    candidates = [None, evident(session, built[1])]
    before = [scorer.rank(candidates, place, 100, np.random.default_rng(0)) for place in range(len(BATCH))]
    chosen = evident_spans(scorer, candidates, before, 100)
    assert set(chosen.view.tolist()) == {1}
    found, passes = rerank(ids, chosen, [None, session], before)
    assert passes[0] is None
    assert passes[1] is not None
    for (documents, scores), (first, _) in zip(found, before, strict=True):
        assert sorted(documents.tolist()) == sorted(first.tolist())
        assert (scores < 0).all()


def plain_span(texts: list[Texts], ngrams: list, document: int) -> tuple[int, list[int]]:
    """The first n-gram by the rule's order that the document holds, in its first row, from the left."""
    for _, view, ngram in ngrams:
        text = texts[view]
        for row, owner in enumerate(text.documents):
            tokens = text.rows[row]
            places = [at for at in range(len(tokens)) if tuple(tokens[at : at + len(ngram)]) == ngram]
            if owner == document and places:
                return view, tokens[places[0] : places[0] + text.view.max_length]
    raise AssertionError("a ranked document holds evidence")


@settings(max_examples=200, deadline=None)
@given(case_strategy())
def test_spans_equal_a_plain_scan(case) -> None:
    documents, texts, log_probs = case
    scorer = EvidenceScorer([text.view for text in texts], documents)
    candidates = [text.candidates(each, 3) for text, each in zip(texts, log_probs, strict=True)]
    ranked, _ = scorer.rank(candidates, 3, 100, np.random.default_rng(0))
    spans = scorer.spans(candidates, 3, ranked)
    assert len(spans.view) == len(spans.tokens) == len(ranked)
    ngrams = weighed(texts, log_probs)
    for place, document in enumerate(ranked.tolist()):
        found = int(spans.view[place]), spans.tokens[place].tolist()
        assert found == plain_span(texts, ngrams, document)
