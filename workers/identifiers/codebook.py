"""Codebook identifiers: residual quantisation of document embeddings, one new token a level (RIPOR, Zeng et al. 2024).

Documents that share all codes get one more code that tells them apart, so an identifier names one document
and no identifier is the beginning of another.
"""

from typing import Any

import numpy as np

from workers.corpus.documents import Corpus
from workers.errors import BadInput
from workers.identifiers import single
from workers.identifiers.sets import IdentifierSet
from workers.identifiers.texts import Encode
from workers.ragged import Ragged
from workers.settings import CodebookIdentifiers
from workers.tokenized import TokenizedCorpus

ITERATIONS = 25


def capacity(settings: CodebookIdentifiers, summary: dict[str, Any]) -> int:
    """Training queries and random spans of every document. Raises BadInput where there are more codes."""
    if settings.codes > summary["documents"]:
        raise BadInput(
            f"identifiers.codes: {settings.codes} is more than the corpus's {summary['documents']} documents"
            " can tell apart"
        )
    return single.capacity(settings, summary["train_pairs"], summary["documents"])


def build(
    settings: CodebookIdentifiers, corpus: Corpus, tokenized: TokenizedCorpus, seed: int, encode: Encode
) -> IdentifierSet:
    """Codes of every document, a sorted index over them, and (query or span, codes) pairs."""
    if len(corpus.documents) < settings.codes:
        raise BadInput(
            f"identifiers.codes: {settings.codes} codes a level cannot be learnt from {len(corpus.documents)} documents"
        )
    from workers.identifiers.document_vectors import document_vectors  # not for the driver's `capacity`

    vectors = document_vectors(settings, corpus, tokenized)
    codes, centroids = quantise(vectors, settings.levels, settings.codes, seed)
    identifiers, extra = tell_apart(codes, settings.codes)
    identifiers = Ragged(values=identifiers.values + tokenized.vocabulary, offsets=identifiers.offsets)
    token_vectors = np.concatenate([centroids.reshape(-1, vectors.shape[1]), np.zeros((extra, vectors.shape[1]))])
    return single.identifier_set(
        settings,
        corpus,
        tokenized,
        seed,
        identifiers,
        view="codes",
        vocabulary=tokenized.vocabulary + len(token_vectors),
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
