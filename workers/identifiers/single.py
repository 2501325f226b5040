"""What kinds with one identifier a document share: its queries and random spans of its text are trained to write it.

Spans stand in for the queries that most documents lack: a document that is never trained on is never found.
"""

import numpy as np

from workers.corpus.documents import Corpus
from workers.identifiers.sets import IdentifierSet, Pairs, naming_view, query_documents, seeded_order
from workers.ragged import Ragged
from workers.settings import SpanIdentifiers
from workers.tokenized import TokenizedCorpus


def capacity(settings: SpanIdentifiers, train_pairs: int, documents: int) -> int:
    """Training pairs of query and document, and random spans, of so many documents that have an identifier."""
    return train_pairs + documents * settings.spans_per_document


def identifier_set(
    settings: SpanIdentifiers,
    corpus: Corpus,
    tokenized: TokenizedCorpus,
    seed: int,
    identifiers: Ragged,
    *,
    view: str,
    vocabulary: int,
    mean_nll: bool,
    token_vectors: np.ndarray | None = None,
) -> IdentifierSet:
    """The set in which row i of `identifiers` names document i; documents with an empty row are in no pair.

    `view`: its name. `vocabulary`: with the tokens that the kind adds to the tokenizer's.
    """
    train = _train_pairs(settings, corpus, tokenized, identifiers, seed)
    queries, documents = query_documents(corpus, held_out=True)
    usable = identifiers.lengths[documents] > 0
    return IdentifierSet(
        kind=settings.kind,
        views=(naming_view(view, identifiers, vocabulary),),
        train=train.take(seeded_order(len(train), seed)),
        held_out=_pairs(tokenized.queries, queries[usable], documents[usable], identifiers),
        vocabulary=vocabulary,
        ranks_by="identifier",
        mean_nll=mean_nll,
        token_vectors=token_vectors,
    )


def _train_pairs(
    settings: SpanIdentifiers, corpus: Corpus, tokenized: TokenizedCorpus, identifiers: Ragged, seed: int
) -> Pairs:
    queries, query_docs = query_documents(corpus, held_out=False)
    spans, span_docs = random_spans(settings, tokenized, np.random.default_rng([seed, 2]))
    sources = Ragged.joined([tokenized.queries.take(queries), spans])
    documents = np.concatenate([query_docs, span_docs])
    usable = np.flatnonzero(identifiers.lengths[documents] > 0)
    return _pairs(sources, usable, documents[usable], identifiers)


def _pairs(sources: Ragged, source: np.ndarray, document: np.ndarray, identifiers: Ragged) -> Pairs:
    return Pairs(
        sources=sources,
        source=source,
        document=document,
        target=identifiers.take(document),
        view=np.zeros(len(document), dtype=np.int8),
    )


def random_spans(
    settings: SpanIdentifiers, tokenized: TokenizedCorpus, rng: np.random.Generator
) -> tuple[Ragged, np.ndarray]:
    """`spans_per_document` random runs of `span_length` words of each document, and the document of each."""
    spans: list[np.ndarray] = []
    for document in range(len(tokenized.documents)):
        begin, end = tokenized.documents.offsets[document : document + 2]
        words = np.append(np.flatnonzero(tokenized.word_starts[begin:end]), end - begin)
        tokens = tokenized.documents[document]
        last = max(len(words) - 1 - settings.span_length, 0)
        for start in rng.integers(0, last + 1, size=settings.spans_per_document):
            spans.append(tokens[words[start] : words[min(start + settings.span_length, len(words) - 1)]])
    return Ragged.of(spans), np.repeat(np.arange(len(tokenized.documents)), settings.spans_per_document)
