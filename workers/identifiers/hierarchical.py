"""Semantic ids (DSI, Tay et al. 2022): a document's path through hierarchical k-means of document embeddings.

A cluster of more than `leaf` documents is split into `branching` ones; in a smaller one a last digit numbers the
documents. A token is a (level, digit). Every document has a path of its own, and no path begins another.
"""

from typing import Any

import numpy as np

from workers.corpus.documents import Corpus
from workers.identifiers import single
from workers.identifiers.sets import IdentifierSet
from workers.identifiers.texts import Encode
from workers.ragged import Ragged
from workers.settings import HierarchicalIdentifiers
from workers.tokenized import TokenizedCorpus

ITERATIONS = 25


def capacity(settings: HierarchicalIdentifiers, summary: dict[str, Any]) -> int:
    """Training queries and random spans of every document."""
    return single.capacity(settings, summary["train_pairs"], summary["documents"])


def build(
    settings: HierarchicalIdentifiers, corpus: Corpus, tokenized: TokenizedCorpus, seed: int, encode: Encode
) -> IdentifierSet:
    """Paths of all documents, a sorted index over them, and (query or span, path) pairs."""
    from workers.identifiers.document_vectors import document_vectors  # not for the driver's `capacity`

    vectors = document_vectors(settings, corpus, tokenized)
    digits = paths(vectors, settings.branching, settings.leaf, seed)
    per_level = max(settings.branching, settings.leaf)
    levels = np.arange(len(digits.values)) - np.repeat(digits.offsets[:-1], digits.lengths)
    numbers = (levels * per_level + digits.values).astype(np.int32)
    owned = mean_vectors(Ragged(values=numbers, offsets=digits.offsets), vectors, (levels.max() + 1) * per_level)
    identifiers = Ragged(values=numbers + np.int32(tokenized.vocabulary), offsets=digits.offsets)
    return single.identifier_set(
        settings,
        corpus,
        tokenized,
        seed,
        identifiers,
        view="path",
        vocabulary=tokenized.vocabulary + len(owned),
        mean_nll=False,
        token_vectors=owned,
    )


def paths(vectors: np.ndarray, branching: int, leaf: int, seed: int) -> Ragged:
    """Digits of every document, from the root on. `vectors`: float32 (documents, dimensions)."""
    found: list[list[int]] = [[] for _ in vectors]
    waiting = [np.arange(len(vectors))]
    while waiting:  # a list and not recursion: a depth that the data chooses
        cluster = waiting.pop()
        if len(cluster) <= leaf:
            digits = np.arange(len(cluster))
        else:
            digits = split(vectors[cluster], branching, seed + len(found[cluster[0]]))
            waiting += [cluster[digits == digit] for digit in np.unique(digits)]
        for document, digit in zip(cluster.tolist(), digits.tolist(), strict=True):
            found[document].append(digit)
    return Ragged.of(found)


def split(vectors: np.ndarray, branching: int, seed: int) -> np.ndarray:
    """int64 (vectors,): the k-means cluster of each, fewer than all in any one of them.

    Vectors that k-means cannot part (they are equal) are dealt out evenly.
    """
    import faiss  # not for the driver's `capacity`

    faiss.omp_set_num_threads(1)  # sums in one order, so that the same seed gives the same clusters
    count = min(branching, len(vectors))
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    kmeans = faiss.Kmeans(rows.shape[1], count, niter=ITERATIONS, seed=seed + 1, min_points_per_centroid=1)
    kmeans.train(rows)
    digits = kmeans.index.search(rows, 1)[1].ravel()
    if np.bincount(digits).max() == len(digits):
        return np.arange(len(digits)) * count // len(digits)
    return digits


def mean_vectors(tokens: Ragged, vectors: np.ndarray, count: int) -> np.ndarray:
    """float32 (count, dimensions): the mean vector of the documents with each token; zeros where none has it."""
    owner = np.repeat(np.arange(len(tokens)), tokens.lengths)
    sums = np.zeros((count, vectors.shape[1]))
    np.add.at(sums, tokens.values, vectors[owner])
    return (sums / np.maximum(np.bincount(tokens.values, minlength=count), 1)[:, None]).astype(np.float32)
