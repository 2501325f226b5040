"""Codebook identifiers: residual quantisation of document embeddings, one new token a level (RIPOR, Zeng et al. 2024).

Documents that share all codes get one more code that tells them apart, so an identifier names one document
and no identifier is the beginning of another.
"""

from typing import Any

import numpy as np

from workers.corpus.documents import Corpus
from workers.decoding.index import build_index
from workers.decoding.view import View
from workers.errors import BadInput
from workers.identifiers.sets import IdentifierSet, Pairs, query_documents, seeded_order
from workers.ragged import Ragged
from workers.settings import CodebookIdentifiers
from workers.tokenized import TokenizedCorpus

ITERATIONS = 25


def capacity(settings: CodebookIdentifiers, summary: dict[str, Any]) -> int:
    """Training queries and random spans of every document."""
    return summary["train_pairs"] + summary["documents"] * settings.spans_per_document


def build(settings: CodebookIdentifiers, corpus: Corpus, tokenized: TokenizedCorpus, seed: int) -> IdentifierSet:
    """Codes of every document, a sorted index over them, and (query or span, codes) pairs."""
    if len(corpus.documents) < settings.codes:
        raise BadInput(
            f"identifiers.codes: {settings.codes} codes a level cannot be learnt from {len(corpus.documents)} documents"
        )
    from workers.identifiers.document_vectors import encode, lsa  # scikit-learn: not for the driver's `capacity`

    if settings.embedding == "lsa":
        vectors = lsa(tokenized.documents, tokenized.vocabulary, settings.dimensions)
    else:
        vectors = encode(corpus.indexed_texts(), settings.embedding)
    codes, centroids = quantise(vectors, settings.levels, settings.codes, seed)
    identifiers, extra = tell_apart(codes, settings.codes)
    identifiers = Ragged(values=identifiers.values + tokenized.vocabulary, offsets=identifiers.offsets)
    vocabulary = tokenized.vocabulary + settings.levels * settings.codes + extra
    token_vectors = np.concatenate([centroids.reshape(-1, vectors.shape[1]), np.zeros((extra, vectors.shape[1]))])
    train = _train_pairs(settings, corpus, tokenized, identifiers, seed)
    queries, documents = query_documents(corpus, held_out=True)
    view = View(
        name="codes",
        index=build_index(identifiers, vocabulary, "rows"),
        documents=np.arange(len(identifiers), dtype=np.int32),
        marker=None,
        max_length=int(identifiers.lengths.max()),
    )
    return IdentifierSet(
        kind=settings.kind,
        views=(view,),
        train=train.take(seeded_order(len(train), seed)),
        held_out=Pairs(
            sources=tokenized.queries,
            source=queries,
            document=documents,
            target=identifiers.take(documents),
            view=np.zeros(len(documents), dtype=np.int8),
        ),
        vocabulary=vocabulary,
        ranks_by="identifier",
        mean_nll=False,
        token_vectors=token_vectors.astype(np.float32),
    )


def quantise(vectors: np.ndarray, levels: int, codes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """k-means of what the levels before left over, with faiss.

    Returns codes int64 (documents, levels) and centroids float32 (levels, codes, dimensions).
    """
    import faiss  # not for the driver's `capacity`

    faiss.omp_set_num_threads(1)  # sums in one order, so that the same seed gives the same codes
    residual = np.ascontiguousarray(vectors, dtype=np.float32)
    chosen: list[np.ndarray] = []
    centroids: list[np.ndarray] = []
    for level in range(levels):
        kmeans = faiss.Kmeans(
            residual.shape[1], codes, niter=ITERATIONS, seed=seed + level + 1, min_points_per_centroid=1
        )
        kmeans.train(residual)
        code = kmeans.index.search(residual, 1)[1].ravel()
        chosen.append(code)
        centroids.append(np.array(kmeans.centroids, dtype=np.float32))
        residual = residual - centroids[-1][code]
    return np.stack(chosen, axis=1).astype(np.int64), np.stack(centroids)


def tell_apart(codes: np.ndarray, per_level: int) -> tuple[Ragged, int]:
    """Rows of token numbers (level x per_level + code), one longer for documents that share all codes.

    Returns the rows and how many extra tokens tell documents apart.
    """
    levels = codes.shape[1]
    rows = codes + np.arange(levels) * per_level
    _, group, sizes = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    group = group.ravel()
    by_group = np.argsort(group, kind="stable")
    place = np.empty(len(codes), dtype=np.int64)
    place[by_group] = np.arange(len(codes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    shared = sizes[group] > 1
    extra = int(sizes.max()) if shared.any() else 0
    lengths = levels + shared
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    values = np.empty(offsets[-1], dtype=np.int32)
    values[(offsets[:-1, None] + np.arange(levels)).ravel()] = rows.ravel()
    values[offsets[1:][shared] - 1] = levels * per_level + place[shared]
    return Ragged(values=values, offsets=offsets), extra


def _train_pairs(
    settings: CodebookIdentifiers, corpus: Corpus, tokenized: TokenizedCorpus, identifiers: Ragged, seed: int
) -> Pairs:
    queries, query_docs = query_documents(corpus, held_out=False)
    spans, span_docs = random_spans(settings, tokenized, np.random.default_rng([seed, 2]))
    queries_of_pairs = tokenized.queries.take(queries)
    sources = Ragged(
        values=np.concatenate([queries_of_pairs.values, spans.values]),
        offsets=np.concatenate([queries_of_pairs.offsets, spans.offsets[1:] + queries_of_pairs.offsets[-1]]),
    )
    documents = np.concatenate([query_docs, span_docs])
    return Pairs(
        sources=sources,
        source=np.arange(len(documents)),
        document=documents,
        target=identifiers.take(documents),
        view=np.zeros(len(documents), dtype=np.int8),
    )


def random_spans(
    settings: CodebookIdentifiers, tokenized: TokenizedCorpus, rng: np.random.Generator
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
