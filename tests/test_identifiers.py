"""Identifiers, tokenizer and embeddings: what a later step relies on."""

import numpy as np
import pytest
from conftest import Steps
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from workers.corpus.documents import load, summary
from workers.decoding.evidence import gather_rows
from workers.embeddings import cooccurrences, ppmi_svd
from workers.errors import BadInput
from workers.identifiers import capacity, codebook
from workers.identifiers.ngram import inverse_document_frequency, pick_spans
from workers.identifiers.sets import IdentifierSet, naming_view
from workers.ragged import Ragged
from workers.settings import CodebookIdentifiers, NgramIdentifiers
from workers.tokenized import TokenizedCorpus
from workers.tokenizer import word_starts

SETTINGS = {
    "ngram": NgramIdentifiers(kind="ngram", length=5, per_query=4),
    "codebook": CodebookIdentifiers(kind="codebook", levels=2, codes=4, spans_per_document=6),
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_capacity_is_exact(finished_steps: Steps, kind: str) -> None:
    ids = IdentifierSet.load(getattr(finished_steps, kind))
    assert len(ids.train) == capacity(SETTINGS[kind], summary(load(finished_steps.corpus)))
    assert len(ids.train.target) == len(ids.train)


@pytest.mark.parametrize("kind", SETTINGS)
def test_every_target_names_its_document(finished_steps: Steps, kind: str) -> None:
    """A target's tokens are found in the index, and in the row of its document."""
    ids = IdentifierSet.load(getattr(finished_steps, kind))
    row_of = np.argsort(ids.views[0].documents)
    rows = gather_rows([ids.views[0].index], np.zeros_like(row_of), row_of)
    assert ids.views[0].index.shards[0].by_columns == (kind == "codebook")
    for pairs in (ids.train, ids.held_out):
        for pair in range(len(pairs)):
            row = rows[pairs.document[pair]].tolist()
            target = pairs.target[pair].tolist()
            assert target
            assert any(row[at : at + len(target)] == target for at in range(len(row)))
            if kind == "codebook":
                assert row == target


def test_held_out_pairs_are_the_held_out_queries(finished_steps: Steps) -> None:
    corpus = load(finished_steps.corpus)
    held_out = {row for row, query in enumerate(corpus.queries) if query.split != "train"}
    for kind in SETTINGS:
        ids = IdentifierSet.load(getattr(finished_steps, kind))
        assert set(ids.held_out.source.tolist()) == held_out
        if kind == "ngram":
            assert not set(ids.train.source.tolist()) & held_out


def test_spans_start_at_words_and_prefer_the_query() -> None:
    document = np.arange(100, 140)
    words = np.arange(40) % 2 == 0
    idf = np.ones(200)
    settings = NgramIdentifiers(kind="ngram", length=4, per_query=200, temperature=0.3)
    rng = np.random.default_rng(0)
    starts, length = pick_spans(document, words, np.array([120, 121]), idf, settings, rng)
    assert length == 4
    assert (starts % 2 == 0).all()
    assert starts.max() <= 36
    assert sorted(set(starts.tolist())) == list(range(0, 38, 2)), "without replacement until all are used"
    best = [pick_spans(document, words, np.array([120, 121]), idf, settings, rng)[0][0] for _ in range(200)]
    assert np.isin(best, [18, 20]).mean() > 0.9


def test_short_documents_repeat_their_spans() -> None:
    settings = NgramIdentifiers(kind="ngram", length=8, per_query=5)
    starts, length = pick_spans(
        np.array([3]), np.array([True]), np.array([7]), np.ones(9), settings, np.random.default_rng(0)
    )
    assert starts.tolist() == [0] * 5
    assert length == 1


def test_idf_counts_documents() -> None:
    idf = inverse_document_frequency(Ragged.of([[1, 1, 2], [1], []]), 4)
    np.testing.assert_allclose(idf, [0, np.log(3 / 2), np.log(3), 0])
    assert inverse_document_frequency(Ragged.of([]), 2).tolist() == [0, 0]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), max_size=12), max_size=8))
def test_idf_is_that_of_the_set_of_pairs(rows) -> None:
    pairs = {(row, token) for row, tokens in enumerate(rows) for token in tokens}
    frequency = np.array([sum(token == each for _, token in pairs) for each in range(10)])
    expected = np.log(max(len(rows), 1) / np.maximum(frequency, 1)) * (frequency > 0)
    assert inverse_document_frequency(Ragged.of(rows), 10).tolist() == expected.tolist()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=12))
def test_colliding_codes_are_told_apart(codes) -> None:
    rows, extra = codebook.tell_apart(np.array(codes), 3)
    texts = [tuple(rows[i].tolist()) for i in range(len(rows))]
    assert len(set(texts)) == len(texts), "every document has its own identifier"
    assert not any(a != b and b[: len(a)] == a for a in texts for b in texts), "none begins another"
    assert max(t for row in texts for t in row) < 2 * 3 + extra
    for text, code in zip(texts, codes, strict=True):
        assert (text[0], text[1] - 3) == code
        assert len(text) == 2 + (codes.count(code) > 1)


def test_quantisation_reduces_the_residual_and_repeats() -> None:
    vectors = np.random.default_rng(0).standard_normal((200, 8)).astype(np.float32)
    codes, centroids = codebook.quantise(vectors, 3, 8, seed=0)
    again, _ = codebook.quantise(vectors, 3, 8, seed=0)
    assert (codes == again).all()
    errors = [np.square(vectors - sum(centroids[i][codes[:, i]] for i in range(level))).sum() for level in range(4)]
    assert errors == sorted(errors, reverse=True)
    assert errors[3] < 0.5 * errors[0]


def test_too_few_documents_for_the_codes(finished_steps: Steps) -> None:
    settings = CodebookIdentifiers(kind="codebook", levels=2, codes=1000)
    with pytest.raises(BadInput, match=r"identifiers\.codes"):
        codebook.build(
            settings, load(finished_steps.corpus), TokenizedCorpus.load(finished_steps.tokenizer), 0, Ragged.of
        )


def test_any_script_round_trips(finished_steps: Steps) -> None:
    tokenizer = AutoTokenizer.from_pretrained(finished_steps.tokenizer / "tokenizer")
    tokenized = TokenizedCorpus.load(finished_steps.tokenizer)
    documents = load(finished_steps.corpus).documents
    for row, document in enumerate(documents):
        decoded = tokenizer.decode(tokenized.documents[row]).strip()
        assert decoded == f"{document.title} {document.text}".lower()
    special = {tokenized.pad, tokenized.end, tokenized.mark}
    assert not special & set(tokenized.documents.values.tolist()), "a special token's name in a text is plain text"


def test_word_starts(finished_steps: Steps) -> None:
    tokenized = TokenizedCorpus.load(finished_steps.tokenizer)
    assert len(tokenized.word_starts) == len(tokenized.documents.values)
    nonempty = tokenized.documents.lengths > 0
    assert tokenized.word_starts[tokenized.documents.offsets[:-1][nonempty]].all()


def test_words_begin_where_the_text_says() -> None:
    """From the characters, whatever the tokenizer takes for a word: LLaMA-2's takes a whole text for one."""
    text = "the river's foo(bar) 冰川 é2"
    characters = word_starts(text, np.array([(at, at + 1) for at in range(len(text))]))
    assert "".join(np.array(list(text))[characters]) == "trsfb冰川é"
    with_space = word_starts(text, np.array([(0, 3), (3, 6), (6, 9), (9, 10), (11, 15), (15, 16), (16, 20)]))
    assert with_space.tolist() == [True, True, False, False, True, False, True]
    bytes_of_one = word_starts("é a", np.array([(0, 1), (0, 1), (1, 3)]))
    assert bytes_of_one.tolist() == [True, False, True]
    assert word_starts("", np.empty((0, 2), dtype=np.int64)).tolist() == []
    assert word_starts(" ", np.array([(0, 1)])).tolist() == [False]


def test_a_script_of_one_word_has_spans_everywhere() -> None:
    settings = NgramIdentifiers(kind="ngram", length=3, per_query=50)
    one_word = np.arange(12) == 0
    starts, _ = pick_spans(np.arange(12), one_word, np.array([1]), np.ones(12), settings, np.random.default_rng(0))
    assert set(starts.tolist()) == set(range(10))


def test_cooccurrences_stay_in_a_document() -> None:
    counts = cooccurrences(Ragged.of([[0, 1, 2], [3, 0]]), 4, window=1).toarray()
    expected = np.zeros((4, 4))
    for a, b in ((0, 1), (1, 2), (3, 0)):
        expected[a, b] += 1
        expected[b, a] += 1
    np.testing.assert_array_equal(counts, expected)


def test_embeddings_bring_related_tokens_together() -> None:
    rng = np.random.default_rng(0)
    documents = Ragged.of([rng.integers(0, 10, 30) + 10 * (i % 2) for i in range(200)])
    table = ppmi_svd(documents, 25, rank=4, window=5)
    assert table.shape == (25, 4)
    assert (table[20:] == 0).all(), "tokens that never occur"
    cosine = table[:20] @ table[:20].T / 4
    assert cosine[:10, :10].mean() > cosine[:10, 10:].mean() + 0.5
    assert ppmi_svd(documents, 25, rank=40, window=5).shape == (25, 40)


def test_no_documents_are_named_by_an_empty_view() -> None:
    view = naming_view("codes", Ragged.of([]), 9)
    lo, hi = view.index.whole()
    assert not len(view.documents)
    assert lo.tolist() == hi.tolist() == [0]
