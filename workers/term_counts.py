"""How often each token occurs in each row: what TF-IDF and inverse document frequencies start from."""

import numpy as np
import scipy.sparse as sparse

from workers.ragged import Ragged


def term_counts(rows: Ragged, vocabulary: int) -> sparse.csr_matrix:
    """float64 (rows, vocabulary)."""
    tokens = np.array(rows.values)  # a copy: SciPy sorts in place, and the file is mapped read-only
    counts = sparse.csr_matrix((np.ones(len(tokens)), tokens, rows.offsets), shape=(len(rows), vocabulary))
    counts.sum_duplicates()
    return counts
