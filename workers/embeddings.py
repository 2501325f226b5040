"""Token embeddings from the corpus alone: positive pointwise mutual information, factorised (Levy and Goldberg 2014).

Tiny models that start from random embeddings hardly learn to match words; from these they do.
"""

from pathlib import Path

import numpy as np
import scipy.sparse as sparse
from sklearn.utils.extmath import randomized_svd

from workers.ragged import Ragged
from workers.settings import EmbeddingsJob
from workers.tokenized import TokenizedCorpus


def prepare(job: EmbeddingsJob, *, tokenizer: Path, out: Path) -> None:
    """Write `embeddings.npy`, float32 (vocabulary, rank)."""
    corpus = TokenizedCorpus.load(tokenizer)
    np.save(out / "embeddings.npy", ppmi_svd(corpus.documents, corpus.vocabulary, job.rank, job.window))


def ppmi_svd(documents: Ragged, vocabulary: int, rank: int, window: int) -> np.ndarray:
    """float32 (vocabulary, rank): U sqrt(S) of the PPMI matrix, centred, every row of root mean square 1.

    Tokens that never occur get a zero row. A rank beyond the vocabulary's is padded with zero columns.
    """
    matrix = ppmi(cooccurrences(documents, vocabulary, window))
    kept = min(rank, vocabulary - 1)
    left, singular, _ = randomized_svd(matrix, n_components=kept, n_iter=4, random_state=0)
    embeddings = left * np.sqrt(singular)
    seen = np.asarray(matrix.sum(axis=1)).ravel() > 0
    embeddings[seen] -= embeddings[seen].mean(axis=0)
    embeddings[~seen] = 0
    norms = np.sqrt((embeddings**2).mean(axis=1, keepdims=True))
    embeddings = np.divide(embeddings, norms, out=np.zeros_like(embeddings), where=norms > 0)
    return np.pad(embeddings, ((0, 0), (0, rank - kept))).astype(np.float32)


def cooccurrences(documents: Ragged, vocabulary: int, window: int) -> sparse.csr_matrix:
    """Symmetric counts of tokens at most `window` apart in one document, (vocabulary, vocabulary)."""
    tokens = np.asarray(documents.values)
    owner = np.repeat(np.arange(len(documents)), documents.lengths)
    counts = sparse.csr_matrix((vocabulary, vocabulary), dtype=np.float64)
    for distance in range(1, window + 1):
        together = owner[:-distance] == owner[distance:]
        left, right = tokens[:-distance][together], tokens[distance:][together]
        ones = np.ones(len(left))
        counts += sparse.csr_matrix((ones, (left, right)), shape=counts.shape)
    return (counts + counts.T).tocsr()


def ppmi(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """max(0, log P(a, b) / (P(a) P(b)))."""
    total = counts.sum()
    if total == 0:
        return counts
    marginal = np.asarray(counts.sum(axis=1)).ravel()
    cells = counts.tocoo()
    values = np.log(cells.data * total / (marginal[cells.row] * marginal[cells.col]))
    positive = values > 0
    return sparse.csr_matrix((values[positive], (cells.row[positive], cells.col[positive])), shape=counts.shape)
