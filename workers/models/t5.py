"""T5's encoder and a step of its decoder over Hugging Face's submodules, without their masks, caches and wrappers.

In small models those cost several times the arithmetic. The values are those of `T5Stack.forward`.
"""

from functools import lru_cache
from typing import Any

import torch
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.models.t5.modeling_t5 import T5Attention

from workers.models.attention import Prompt, RowGroups, Written, attend_prompt, attend_within, attend_written
from workers.models.layers import Joined, RmsNorm
from workers.models.prompts import PaddedPrompts


class T5Decoder:
    """Encoded prompts, padded on the right, and steps over them."""

    def __init__(self, model: PreTrainedModel, batch: PaddedPrompts) -> None:
        stack: Any = model.get_decoder()
        encoded = _encode(model.get_encoder(), batch)
        self._embedding: torch.Tensor = stack.embed_tokens.weight
        self._norm = RmsNorm(stack.final_layer_norm)
        self._layers = [_Layer(block) for block in stack.block]
        self._distances = _Distances(stack.block[0].layer[0].SelfAttention)
        self._padding = batch.padding
        self.prompts = [_cross_prompt(block.layer[1].EncDecAttention, encoded) for block in stack.block]
        self._written, self._count = Written(len(self._layers)), 0
        start = torch.full_like(batch.lengths, model.config.decoder_start_token_id)
        groups = RowGroups.one_each(len(start), start.device)
        self.first = self.step(start, groups.query_of_row, groups)
        self._started = self._written.copy()

    def restart(self) -> None:
        """Nothing is written but the token that begins."""
        self._written, self._count = self._started.copy(), 1

    def step(self, tokens: torch.Tensor, parents: torch.Tensor, groups: RowGroups) -> torch.Tensor:
        """As `sessions.Decoder.step`."""
        hidden = functional.embedding(tokens, self._embedding)
        self._count += 1
        bias, padding = self._distances.bias(self._count), self._padding
        for number, layer in enumerate(self._layers):
            if layer.device != hidden.device:  # a model may be spread over several
                hidden, parents, bias = (each.to(layer.device) for each in (hidden, parents, bias))
                groups, padding = groups.at(layer.device), None if padding is None else padding.to(layer.device)
            query, new = layer.own.project(hidden)
            key, value = self._written.append(number, parents, new)
            hidden = layer.own.output(hidden, attend_written(query, key, value, bias))
            found = attend_prompt(layer.cross_query(hidden), self.prompts[number], padding, groups)
            hidden = layer.feed_forward(layer.cross_output(hidden, found))
        return self._norm(hidden.to(self._norm.device))


class _Own:
    """A self-attention sublayer; `hidden` is (rows, width) everywhere."""

    def __init__(self, sublayer: Any) -> None:
        attention = sublayer.SelfAttention
        self._norm, self._heads = RmsNorm(sublayer.layer_norm), attention.n_heads
        self._joined, self._out = Joined([attention.q, attention.k, attention.v]), Joined([attention.o])
        self.device = self._joined.device

    def project(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries (rows, heads, 1, d), and keys and values (rows, 2, heads, d)."""
        joined = self._joined(self._norm(hidden))
        parts = joined.view(len(hidden), 3, self._heads, -1)
        return parts[:, 0, :, None], parts[:, 1:]

    def output(self, hidden: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
        """`found`: (rows, heads, 1, d)."""
        return _project_out(hidden, found, self._out)


class _Layer:
    """One block of the decoder."""

    def __init__(self, block: Any) -> None:
        own, cross, last = block.layer
        attention = cross.EncDecAttention
        self.own, self.feed_forward = _Own(own), _FeedForward(last)
        self._norm, self._heads = RmsNorm(cross.layer_norm), attention.n_heads
        self._query, self._out = Joined([attention.q]), Joined([attention.o])
        self.device = self._query.device

    def cross_query(self, hidden: torch.Tensor) -> torch.Tensor:
        """(rows, heads, 1, d) of (rows, width)."""
        return self._query(self._norm(hidden)).view(len(hidden), self._heads, 1, -1)

    def cross_output(self, hidden: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
        """`found`: (rows, heads, 1, d)."""
        return _project_out(hidden, found, self._out)


class _FeedForward:
    """The last sublayer, gated or not."""

    def __init__(self, sublayer: Any) -> None:
        self._norm, self._dense = RmsNorm(sublayer.layer_norm), sublayer.DenseReluDense

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        return _limited(hidden + self._dense(self._norm(hidden)))


def _encode(encoder: Any, batch: PaddedPrompts) -> torch.Tensor:
    """(queries, longest, width)."""
    queries, length = batch.tokens.shape
    hidden = functional.embedding(batch.tokens.flatten(), encoder.embed_tokens.weight)
    bias = _bias(encoder.block[0].layer[0].SelfAttention, length, length)[:, :, None]
    padding = batch.padding
    for block in encoder.block:
        own = _Own(block.layer[0])
        hidden, bias = hidden.to(own.device), bias.to(own.device)
        padding = None if padding is None else padding.to(own.device)
        query, new = own.project(hidden)
        heads, _, width = query.shape[1:]
        both = new.view(queries, length, 2, heads, width).permute(2, 0, 3, 1, 4)
        found = attend_within(
            query.view(queries, length, heads, 1, width).permute(0, 2, 3, 1, 4),
            Prompt(both[0], both[1]),
            bias=bias,
            padding=padding,
            scaling=1.0,
        )
        hidden = own.output(hidden, found.permute(0, 3, 1, 2, 4).reshape(query.shape))
        hidden = _FeedForward(block.layer[1])(hidden)
    norm = RmsNorm(encoder.final_layer_norm)
    return norm(hidden.to(norm.device)).view(queries, length, -1)


def _cross_prompt(attention: Any, encoded: torch.Tensor) -> Prompt:
    """Keys and values of cross-attention."""
    encoded = encoded.to(attention.k.weight.device)
    shape = (*encoded.shape[:2], attention.n_heads, attention.key_value_proj_dim)
    keys, values = (each(encoded).view(shape).transpose(1, 2).contiguous() for each in (attention.k, attention.v))
    return Prompt(keys, values)


def _project_out(hidden: torch.Tensor, found: torch.Tensor, out: Joined) -> torch.Tensor:
    """Add what attention found, (rows, heads, 1, d), to (rows, width)."""
    return _limited(hidden + out(found.reshape(len(hidden), -1)))


class _Distances:
    """The bias that the decoder's self-attention adds to its scores: it only depends on how far back a key is."""

    def __init__(self, attention: Any) -> None:
        self._attention = attention
        self._room = 0

    def bias(self, written: int) -> torch.Tensor:
        """float32 (1, heads, 1, written): of the newest of `written` tokens on all of them."""
        if self._room < written:
            self._room = max(32, 2 * written)
            self._bias = _bias(self._attention, 1, self._room)
        return self._bias[..., self._room - written :]


def _bias(attention: Any, asking: int, length: int) -> torch.Tensor:
    """float32 (1, heads, asking, length): of the newest `asking` of `length` tokens on all of them."""
    table: torch.Tensor = attention.relative_attention_bias.weight
    buckets = _buckets(
        asking,
        length,
        not attention.is_decoder,
        attention.relative_attention_num_buckets,
        attention.relative_attention_max_distance,
    )
    return functional.embedding(buckets.to(table.device), table).float().permute(2, 0, 1)[None]


@lru_cache(maxsize=64)
def _buckets(asking: int, length: int, both_ways: bool, buckets: int, longest: int) -> torch.Tensor:
    """int64 (asking, length): in which bucket of distances a token is for each of the newest `asking`."""
    place = torch.arange(length)
    distance = place[None] - place[length - asking :, None]
    return T5Attention._relative_position_bucket(
        distance, bidirectional=both_ways, num_buckets=buckets, max_distance=longest
    )


def _limited(hidden: torch.Tensor) -> torch.Tensor:
    """float16 overflows in T5, whose forward pass therefore clamps it."""
    if hidden.dtype != torch.float16:
        return hidden
    limit = torch.finfo(torch.float16).max - 1000
    return hidden.clamp(-limit, limit)
