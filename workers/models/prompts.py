"""What a model reads: the query's tokens, cut, and the token that ends them."""

import numpy as np

from workers.ragged import Ragged, concatenated_ranges


def prompts(queries: Ragged, rows: np.ndarray, ends: np.ndarray, longest: int) -> Ragged:
    """The given queries, each cut to `longest` tokens and ended with its own of `ends` (one a row): never empty."""
    rows = np.asarray(rows, dtype=np.int64)
    kept = np.minimum(queries.offsets[rows + 1] - queries.offsets[rows], longest)
    offsets = np.concatenate([[0], np.cumsum(kept + 1)])
    positions, owner = concatenated_ranges(queries.offsets[rows], kept)
    values = np.empty(offsets[-1], dtype=np.int32)
    values[np.arange(len(owner)) + owner] = queries.values[positions]
    values[offsets[1:] - 1] = ends
    return Ragged(values=values, offsets=offsets)
