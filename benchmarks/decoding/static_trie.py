"""A trie as a CSR matrix with vectorised steps, after the public description of STATIC (2026): the baseline for codes.

States are numbered level by level. The first levels have a dense table of next states, the deeper ones row pointers
into flat arrays of tokens and next states; a step gathers as many children of every beam as any state of its level
has, masks what is no child, and takes a top-k.

The public layout stores tokens and next states as int32. Next states are numbered in the order of their edges, so a
next state is the number of its edge: `compact` leaves them out, and has tokens in a byte where that suffices.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

DENSE = 2
"""Levels with a table of next states."""


@dataclass(frozen=True, kw_only=True)
class StaticTrie:
    """A trie of rows of equal length. State 0 of each level's numbering is that level's first."""

    dense: tuple[torch.Tensor, ...]
    """int32 (states of the level, vocabulary) a dense level: the next state, -1 where there is none."""
    pointers: tuple[torch.Tensor, ...]
    """int32 (states + 1,) a deeper level."""
    tokens: tuple[torch.Tensor, ...]
    """int32 (edges,) a deeper level; uint8 in the compact form, where that suffices."""
    children: tuple[torch.Tensor, ...]
    """int32 (edges,) a deeper level; no tensors in the compact form."""
    widest: tuple[int, ...]
    """Most children of a state of each deeper level."""

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(each.nbytes for each in (*self.dense, *self.pointers, *self.tokens, *self.children))

    @classmethod
    def build(cls, rows: np.ndarray, vocabulary: int) -> "StaticTrie":
        """`rows`: int (ids, length), sorted and distinct."""
        dense, pointers, tokens, children, widest = [], [], [], [], []
        state = np.zeros(len(rows), dtype=np.int64)
        for depth in range(rows.shape[1]):
            new = np.diff(state, prepend=-1).astype(bool) | np.diff(rows[:, depth].astype(np.int64), prepend=-1).astype(
                bool
            )
            following = np.cumsum(new) - 1
            parent, token, child = state[new], rows[new, depth], following[new]
            if depth < DENSE:
                table = np.full((int(state[-1]) + 1, vocabulary), -1, dtype=np.int32)
                table[parent, token] = child
                dense.append(torch.from_numpy(table))
            else:
                pointer = np.searchsorted(parent, np.arange(int(state[-1]) + 2)).astype(np.int32)
                pointers.append(torch.from_numpy(pointer))
                tokens.append(torch.from_numpy(token.astype(np.int32)))
                children.append(torch.from_numpy(child.astype(np.int32)))
                widest.append(int(np.diff(pointer).max()))
            state = following
        return cls(
            dense=tuple(dense),
            pointers=tuple(pointers),
            tokens=tuple(tokens),
            children=tuple(children),
            widest=tuple(widest),
        )

    def compact(self) -> "StaticTrie":
        """The same trie without its next states, which are the numbers of their edges, and with small tokens."""
        largest = max((int(each.max()) for each in self.tokens), default=0)
        dtype = torch.uint8 if largest < 256 else torch.int32
        return replace(self, tokens=tuple(each.to(dtype) for each in self.tokens), children=())

    def step(
        self, depth: int, state: torch.Tensor, score: torch.Tensor, log_probs: torch.Tensor, beams: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """The best continuations of one query's beams: (beam, token, next state, score), best first.

        `state`: int64 (live beams,). `score`: float32 (live beams,). `log_probs`: float32 (live beams, vocabulary).
        """
        if depth < DENSE:
            following = self.dense[depth][state]
            token = None
            reached = log_probs.masked_fill(following < 0, -torch.inf)
        else:
            level = depth - DENSE
            begin = self.pointers[level][state].long()
            slot = begin[:, None] + torch.arange(self.widest[level])
            outside = slot >= self.pointers[level][state + 1].long()[:, None]
            slot.clamp_(max=len(self.tokens[level]) - 1)
            token = self.tokens[level][slot].long()
            following = self.children[level][slot] if self.children else slot
            reached = log_probs.gather(1, token).masked_fill_(outside, -torch.inf)
        total = (reached + score[:, None]).view(-1)
        best, picked = torch.topk(total, min(beams, len(total)))
        beam, column = picked // reached.shape[1], picked % reached.shape[1]
        chosen = column if token is None else token[beam, column]
        return beam, chosen, following[beam, column].long(), best
