"""What a model reads: the query's tokens, cut, and the token that ends them; a batch of them, padded."""

import numpy as np
import torch

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


class PaddedPrompts:
    """A batch of prompts on the model's device, padded to the longest on the left or on the right."""

    def __init__(self, queries: Ragged, left: bool, device: torch.device) -> None:
        self.longest = int(queries.lengths.max(initial=0))
        self.lengths = torch.from_numpy(queries.lengths).to(device)
        self.tokens = torch.from_numpy(queries.padded(np.arange(len(queries)), fill=0, left=left)).to(device)
        column = np.arange(self.longest)[::-1] if left else np.arange(self.longest)
        inside = torch.from_numpy(column < queries.lengths[:, None]).to(device)
        self.mask = inside.long()
        """int64 (queries, longest): 1 at a token, 0 at padding."""
        self.padding: torch.Tensor | None = None
        """float32 (queries, 1, 1, longest): -inf at padding, for scores; None where nothing is padded."""
        if (queries.lengths < self.longest).any():
            self.padding = torch.zeros(inside.shape, device=device).masked_fill_(~inside, -torch.inf)[:, None, None]

    @property
    def positions(self) -> torch.Tensor:
        """int64 (queries, longest): a token's place in its prompt; 0 on padding on the left."""
        return (self.mask.cumsum(1) - 1).clamp_(min=0)
