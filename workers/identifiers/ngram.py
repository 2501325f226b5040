"""N-gram identifiers: spans of the document that overlap with the query (SEAL, Bevilacqua et al. 2022; MINDER, 2023).

Any span of a document may be written; what is written is evidence for every document that contains it.
"""

from typing import Any

import numba
import numpy as np

from workers.corpus.documents import Corpus
from workers.decoding.index import PlannedIndex
from workers.decoding.view import View
from workers.identifiers.sets import IdentifierSet, Pairs, query_documents, seeded_order
from workers.identifiers.texts import Encode
from workers.ragged import Ragged
from workers.settings import NgramIdentifiers, NgramSettings
from workers.tokenized import TokenizedCorpus


def capacity(settings: NgramIdentifiers, summary: dict[str, Any]) -> int:
    """Spans of every training query; a document with too few of them repeats some, so the count is exact."""
    return summary["train_pairs"] * settings.per_query


def build(
    settings: NgramIdentifiers, corpus: Corpus, tokenized: TokenizedCorpus, seed: int, encode: Encode
) -> IdentifierSet:
    """Suffix-array index over the whole corpus and `per_query` spans a (query, relevant document)."""
    idf = inverse_document_frequency(tokenized.documents, tokenized.vocabulary)
    rng = np.random.default_rng([seed, 1])
    train = span_pairs(settings, corpus, tokenized, idf, rng, held_out=False)
    return IdentifierSet(
        kind=settings.kind,
        views=(body_view(settings, tokenized, tokenized.vocabulary, marker=None),),
        train=train.take(seeded_order(len(train), seed)),
        held_out=span_pairs(settings, corpus, tokenized, idf, rng, held_out=True),
        vocabulary=tokenized.vocabulary,
        ranks_by="evidence",
        mean_nll=True,
        token_vectors=None,
    )


def body_view(settings: NgramSettings, tokenized: TokenizedCorpus, vocabulary: int, marker: int | None) -> View:
    """Every span of every document. `vocabulary`: with the tokens that the kind adds to the tokenizer's."""
    return View(
        name="body",
        index=PlannedIndex(tokenized.documents, vocabulary, "suffixes"),
        documents=np.arange(len(tokenized.documents), dtype=np.int32),
        marker=marker,
        max_length=settings.length,
    )


def inverse_document_frequency(documents: Ragged, vocabulary: int) -> np.ndarray:
    """log(documents / documents with the token), float64 (vocabulary,); 0 for tokens that never occur."""
    frequency = _document_frequency(np.asarray(documents.values), np.asarray(documents.offsets), vocabulary)
    return np.log(max(len(documents), 1) / np.maximum(frequency, 1)) * (frequency > 0)


@numba.njit(cache=True)
def _document_frequency(values: np.ndarray, offsets: np.ndarray, vocabulary: int) -> np.ndarray:
    """int64 (vocabulary,): documents with each token. In one pass, since tables of (document, token) outgrow memory."""
    frequency = np.zeros(vocabulary, dtype=np.int64)
    last_seen = np.full(vocabulary, -1, dtype=np.int64)
    for document in range(len(offsets) - 1):
        for place in range(offsets[document], offsets[document + 1]):
            token = values[place]
            if last_seen[token] != document:
                last_seen[token] = document
                frequency[token] += 1
    return frequency


def pick_spans(
    document: np.ndarray,
    word_starts: np.ndarray,
    query: np.ndarray,
    idf: np.ndarray,
    settings: NgramSettings,
    rng: np.random.Generator,
) -> tuple[np.ndarray, int]:
    """Starts of `per_query` spans and their length, by Gumbel top-k of the IDF of the tokens shared with the query.

    Spans start at a word, or anywhere where fewer than two words are known (a script without spaces, say). A
    document shorter than a span is one span; too few spans are repeated in turn.
    """
    length = min(settings.length, len(document))
    starts = np.flatnonzero(word_starts[: len(document) - length + 1])
    if len(starts) < 2:
        starts = np.arange(len(document) - length + 1)
    shared = np.where(np.isin(document, query), idf[document], 0.0)
    before = np.concatenate([[0.0], np.cumsum(shared)])
    overlap = before[starts + length] - before[starts]
    noisy = overlap / settings.temperature + rng.gumbel(size=len(starts))
    return np.resize(starts[np.argsort(-noisy)[: settings.per_query]], settings.per_query), length


def span_pairs(
    settings: NgramSettings,
    corpus: Corpus,
    tokenized: TokenizedCorpus,
    idf: np.ndarray,
    rng: np.random.Generator,
    held_out: bool,
) -> Pairs:
    """`per_query` spans of every document that is relevant to a training (or held-out) query, as of view 0."""
    queries, documents = query_documents(corpus, held_out)
    usable = tokenized.documents.lengths[documents] > 0
    queries, documents = queries[usable], documents[usable]
    targets: list[np.ndarray] = []
    for query, document in zip(queries, documents, strict=True):
        tokens = tokenized.documents[document]
        begin = tokenized.documents.offsets[document]
        words = tokenized.word_starts[begin : begin + len(tokens)]
        starts, length = pick_spans(tokens, words, tokenized.queries[query], idf, settings, rng)
        targets.extend(tokens[start : start + length] for start in starts)
    return Pairs(
        sources=tokenized.queries,
        source=np.repeat(queries, settings.per_query),
        document=np.repeat(documents, settings.per_query),
        target=Ragged.of(targets),
        view=np.zeros(len(targets), dtype=np.int8),
    )
