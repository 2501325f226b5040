"""A step of T5's decoder over Hugging Face's submodules, without what its forward pass does for training and masks.

In small models that costs several times the arithmetic. The values are those of `T5Stack.forward`.
"""

from functools import cache
from typing import Any

import torch
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.models.t5.modeling_t5 import T5Attention

from workers.models.attention import Prompt, RowGroups, Written, attend_prompt, attend_written
from workers.models.layers import Joined, rms_norm


class T5Decoder:
    """Steps over encoded queries: `encoded` (queries, prompt length, width), `padding` as for `attend_prompt`."""

    def __init__(self, model: PreTrainedModel, encoded: torch.Tensor, padding: torch.Tensor | None) -> None:
        stack: Any = model.get_decoder()
        self._embedding: torch.Tensor = stack.embed_tokens.weight
        self._norm = stack.final_layer_norm
        self._layers = [_Layer(block) for block in stack.block]
        self._distances = _Distances(stack.block[0].layer[0].SelfAttention)
        self._padding = padding
        self.prompts = [layer.prompt(encoded) for layer in self._layers]
        self._written, self._count = Written(len(self._layers)), 0

    def start(self, token: int, groups: RowGroups) -> torch.Tensor:
        """The step with which every query begins, a row each: (queries, width). `restart` comes back to behind it."""
        rows = torch.arange(groups.queries, device=self._embedding.device)
        hidden = self.step(torch.full_like(rows, token), rows, groups)
        self._started = self._written.copy()
        return hidden

    def restart(self) -> None:
        """Nothing is written but what `start` wrote."""
        self._written, self._count = self._started.copy(), 1

    def step(self, tokens: torch.Tensor, parents: torch.Tensor, groups: RowGroups) -> torch.Tensor:
        """As `sessions.Decoder.step`."""
        hidden = functional.embedding(tokens, self._embedding)
        self._count += 1
        bias = self._distances.bias(self._count)
        for number, layer in enumerate(self._layers):
            query, new = layer.project(hidden)
            key, value = self._written.append(number, parents, new)
            hidden = layer.own_output(hidden, attend_written(query, key, value, bias))
            found = attend_prompt(layer.cross_query(hidden), self.prompts[number], self._padding, groups)
            hidden = layer.feed_forward(layer.cross_output(hidden, found))
        return rms_norm(hidden, self._norm)


class _Layer:
    """One block: self-attention, cross-attention, feed-forward; `hidden` is (rows, width) everywhere."""

    def __init__(self, block: Any) -> None:
        self._own, self._cross, self._last = block.layer
        attention = self._own.SelfAttention
        self._heads, self._width = attention.n_heads, attention.key_value_proj_dim
        self._joined = Joined([attention.q, attention.k, attention.v])

    def prompt(self, encoded: torch.Tensor) -> Prompt:
        """Keys and values of cross-attention."""
        attention = self._cross.EncDecAttention
        shape = (*encoded.shape[:2], self._heads, self._width)
        keys, values = (each(encoded).view(shape).transpose(1, 2).contiguous() for each in (attention.k, attention.v))
        return Prompt(keys, values)

    def project(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries (rows, heads, 1, d) of self-attention, and its keys and values (rows, 2, heads, d)."""
        joined = self._joined(rms_norm(hidden, self._own.layer_norm))
        parts = joined.view(len(hidden), 3, self._heads, self._width)
        return parts[:, 0, :, None], parts[:, 1:]

    def own_output(self, hidden: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
        """`found`: (rows, heads, 1, d)."""
        return _limited(hidden + _linear(found.reshape(len(hidden), -1), self._own.SelfAttention.o))

    def cross_query(self, hidden: torch.Tensor) -> torch.Tensor:
        """(rows, heads, 1, d)."""
        query = _linear(rms_norm(hidden, self._cross.layer_norm), self._cross.EncDecAttention.q)
        return query.view(len(hidden), self._heads, 1, self._width)

    def cross_output(self, hidden: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
        """As `own_output`."""
        return _limited(hidden + _linear(found.reshape(len(hidden), -1), self._cross.EncDecAttention.o))

    def feed_forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """The last sublayer, gated or not."""
        return _limited(hidden + self._last.DenseReluDense(rms_norm(hidden, self._last.layer_norm)))


class _Distances:
    """The bias that self-attention adds to its scores, which only depends on how far back a key is."""

    def __init__(self, attention: Any) -> None:
        self._attention = attention
        self._bias = torch.empty(1, 0, 1, 0)

    def bias(self, written: int) -> torch.Tensor:
        """float32 (1, heads, 1, written): of the newest of `written` tokens on all of them."""
        room = self._bias.shape[3]
        if room < written:
            table: torch.Tensor = self._attention.relative_attention_bias.weight
            buckets = _buckets(
                max(32, 2 * room),
                self._attention.relative_attention_num_buckets,
                self._attention.relative_attention_max_distance,
            )
            self._bias = functional.embedding(buckets.to(table.device), table).float().t()[None, :, None]
            return self.bias(written)
        return self._bias[..., room - written :]


@cache
def _buckets(length: int, buckets: int, longest: int) -> torch.Tensor:
    """int64 (length,): the bucket of each of `length` tokens as the newest of them sees it."""
    back = torch.arange(1 - length, 1)
    return T5Attention._relative_position_bucket(back, bidirectional=False, num_buckets=buckets, max_distance=longest)


def _linear(hidden: torch.Tensor, layer: Any) -> torch.Tensor:
    return functional.linear(hidden, layer.weight)


def _limited(hidden: torch.Tensor) -> torch.Tensor:
    """float16 overflows in T5, whose forward pass therefore clamps it."""
    if hidden.dtype != torch.float16:
        return hidden
    limit = torch.finfo(torch.float16).max - 1000
    return hidden.clamp(-limit, limit)
