"""How much memory a search will need, by a formula; it imports no torch, so that a plan can ask it.

Bytes of a search in a batch of q queries with r rows in all, prompts of p tokens, t new tokens, b bytes a value:

    prompt     q (p L 2k b + [T5] p d b + 4V)      its keys and values, the encoder's states, `first`
    opening    q p b (3 d + max(m f, 4 h w + h p)) a layer's activations in encoding or prefill, freed after it
    rows       r ((L + 1) t 2k b + 4V)             the written keys and values (reordered a layer at a time), log-probs
               + r b 3 d                           a layer's activations in a step: the stream and either
               + r max(b m f, 4 b h w + 12 h (p + t))   the feed-forward layer's or the attention's with its scores
    head       H b                                 logits that are not yet normalised
    total      prompt + max(opening, rows) + head

L layers, d width, h heads of width w, k key width, f feed-forward width, m its matrices, V vocabulary. Scores are
there three times in float32: on the prompt, joined with those on what is written, and as weights. The model's own
weights are not counted. Scoring given tokens keeps no row's log-probabilities: 0 for the V of the rows' 4V.
"""

from dataclasses import dataclass

from workers.models.shapes import Shape
from workers.models.together import VALUES_TOGETHER

SEARCH_SHARE = 0.7
"""Of the GPU memory that weights and indexes leave: what a batch may take. The allocator's slack has the rest."""


UNEVEN = 1.25
"""What the fullest of several GPUs has of a model that is spread over them and of its rows, for an even part."""


@dataclass(frozen=True, kw_only=True)
class SearchMemory:
    """The formula for one model and one length of prompts."""

    shape: Shape
    prompt: int
    """Tokens of the longest prompt of the batch."""
    new_tokens: int
    value_bytes: int = 4
    """Of the model's precision."""
    device: str = "cpu"
    """`cpu` or `cuda`."""
    kept_values: int | None = None
    """Log-probabilities kept a row: those of the vocabulary in a search (None), 0 where given tokens are scored."""

    def total(self, queries: int, rows: int) -> int:
        """Bytes of a batch with `rows` rows in all."""
        return self._head + queries * self._prompt + max(queries * self._opening, rows * self._row)

    def queries(self, rows: int, limit: int) -> int:
        """The most queries of `rows` rows each that fit into `limit` bytes; at least 1."""
        return max(1, (limit - self._head) // (self._prompt + max(self._opening, rows * self._row)))

    def rows(self, limit: int) -> int:
        """The most rows that one query can have within `limit` bytes; at least 1."""
        return max(1, (limit - self._head - self._prompt) // self._row)

    @property
    def _head(self) -> int:
        return VALUES_TOGETHER[self.device] * self.value_bytes

    @property
    def _key_value(self) -> int:
        shape = self.shape
        return 2 * (shape.kv_heads or shape.heads) * shape.head_width * self.value_bytes

    def _activations(self, scores: int) -> int:
        """Bytes of one token in one layer, whose attention holds `scores` bytes of scores."""
        shape, b = self.shape, self.value_bytes
        matrices = 3 if shape.gated or shape.family == "llama" else 2
        attention = 4 * shape.heads * shape.head_width * b + scores
        return 3 * shape.width * b + max(matrices * shape.feed_forward * b, attention)

    @property
    def _prompt(self) -> int:
        states = self.prompt * self.shape.width * self.value_bytes if self.shape.family == "t5" else 0
        return self.prompt * self.shape.layers * self._key_value + states + 4 * self.shape.vocabulary

    @property
    def _opening(self) -> int:
        return self.prompt * self._activations(self.shape.heads * self.prompt * self.value_bytes)

    @property
    def _row(self) -> int:
        written = (self.shape.layers + 1) * self.new_tokens * self._key_value
        scores = 3 * 4 * self.shape.heads * (self.prompt + self.new_tokens)
        kept = self.shape.vocabulary if self.kept_values is None else self.kept_values
        return written + 4 * kept + self._activations(scores)
