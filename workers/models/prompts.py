"""What a model reads: the query's tokens, cut, and the token that ends them."""

import numpy as np

from workers.ragged import Ragged


def prompts(queries: Ragged, rows: np.ndarray, end: int, longest: int) -> Ragged:
    """Each given query cut to `longest` tokens and ended with `end`, so that it is never empty."""
    return Ragged.of([np.append(queries[row][:longest], end) for row in rows])
