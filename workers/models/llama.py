"""Prefill and steps of LLaMA's decoder, and of those built like it, over Hugging Face's submodules.

Their forward pass builds masks, positions and caches anew each time, which in small models costs several times the
arithmetic. The values are the same.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from workers.models.attention import Prompt, RowGroups, Written, attend_prompt_and_written, attend_within
from workers.models.layers import Joined, RmsNorm
from workers.models.prompts import PaddedPrompts

ARCHITECTURES = {"LlamaModel", "MistralModel", "Qwen2Model"}
"""Whose forward pass this is. Others have the same modules and scale a residual or an embedding between them."""

FIXED_ROTATIONS = {"default", "linear", "llama3", "yarn"}
"""Rotary positions whose angles do not depend on how long the longest sequence has become."""


def is_like_llama(decoder: PreTrainedModel) -> bool:
    """Whether `LlamaDecoder` gives what the model's own forward pass gives."""
    if type(decoder).__name__ not in ARCHITECTURES:
        return False
    stack: Any = decoder
    own = [part for layer in stack.layers for part in (layer.self_attn, layer.mlp)]
    plain = all(type(each) is nn.Linear for part in own for name, each in part.named_children() if "proj" in name)
    return plain and stack.rotary_emb.rope_type in FIXED_ROTATIONS


class LlamaDecoder:
    """Prompts, padded on the left, and steps behind them."""

    def __init__(self, decoder: PreTrainedModel, batch: PaddedPrompts) -> None:
        stack: Any = decoder
        self._embedding: torch.Tensor = stack.embed_tokens.weight
        self._norm = RmsNorm(stack.norm)
        self._layers = [_Layer(layer, stack.config) for layer in stack.layers]
        self._rotations = _Rotations(stack.rotary_emb, self._embedding.new_empty(0))
        self._lengths, self._longest, self._padding = batch.lengths, batch.longest, batch.padding
        self.prompts: list[Prompt] = []
        self.first = self._prefill(batch)
        self.restart()

    def _prefill(self, batch: PaddedPrompts) -> torch.Tensor:
        """Fill `prompts`; the last state of each, (queries, width)."""
        queries, length = batch.tokens.shape
        hidden = functional.embedding(batch.tokens.flatten(), self._embedding)
        rotation = self._rotations.at(batch.positions.flatten(), length)
        causal = {window: _causal(length, window, hidden.device) for window in {each.window for each in self._layers}}
        for layer in self._layers:
            query, new = layer.project(hidden, rotation)
            heads, group, width = query.shape[1:]
            both = new.view(queries, length, 2, heads, width).permute(2, 0, 3, 1, 4).contiguous()
            prompt = Prompt(both[0], both[1])
            self.prompts.append(prompt)
            found = attend_within(
                query.view(queries, length, heads, group, width).permute(0, 2, 3, 1, 4),
                prompt,
                bias=causal[layer.window],
                padding=batch.padding,
                scaling=layer.scaling,
            )
            hidden = layer.output(hidden, found.permute(0, 3, 1, 2, 4).reshape(query.shape))
        return self._norm(hidden.view(queries, length, -1)[:, -1])

    def restart(self) -> None:
        """Nothing is written."""
        self._written, self._count = Written(len(self._layers)), 0

    def step(self, tokens: torch.Tensor, parents: torch.Tensor, groups: RowGroups) -> torch.Tensor:
        """As `sessions.Decoder.step`."""
        hidden = functional.embedding(tokens, self._embedding)
        positions = self._lengths.index_select(0, groups.query_of_row) + self._count
        rotation = self._rotations.at(positions, self._longest + self._count)
        self._count += 1
        for number, layer in enumerate(self._layers):
            query, new = layer.project(hidden, rotation)
            key, value = self._written.append(number, parents, new)
            found = attend_prompt_and_written(
                query,
                self.prompts[number],
                key,
                value,
                padding=self._padding,
                groups=groups,
                scaling=layer.scaling,
                window=layer.window,
            )
            hidden = layer.output(hidden, found)
        return self._norm(hidden)


class _Layer:
    """One layer; `hidden` is (rows, width) everywhere."""

    def __init__(self, layer: Any, config: Any) -> None:
        attention = layer.self_attn
        self._before, self._between = RmsNorm(layer.input_layernorm), RmsNorm(layer.post_attention_layernorm)
        self._out, self._down = Joined([attention.o_proj]), Joined([layer.mlp.down_proj])
        self._gate_and_up, self._activation = Joined([layer.mlp.gate_proj, layer.mlp.up_proj]), layer.mlp.act_fn
        self._joined = Joined([attention.q_proj, attention.k_proj, attention.v_proj])
        self._width = attention.head_dim
        self._key_heads = config.num_key_value_heads
        self._heads = config.num_attention_heads
        self.scaling = attention.scaling
        everywhere = config.sliding_window if config.model_type == "mistral" else None
        self.window: int | None = getattr(attention, "sliding_window", everywhere)

    def project(
        self, hidden: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries (rows, key heads, group, d), and the new keys and values (rows, 2, key heads, d)."""
        cos, sin = rotation
        joined = self._joined(self._before(hidden))
        parts = joined.view(len(hidden), -1, self._width)
        turning = self._heads + self._key_heads
        turned = parts[:, :turning]  # queries and keys: values have no position
        turned = turned * cos + turned.roll(self._width // 2, dims=-1) * sin
        query = turned[:, : self._heads].view(len(hidden), self._key_heads, -1, self._width)
        return query, torch.stack([turned[:, self._heads :], parts[:, turning:]], dim=1)

    def output(self, hidden: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
        """`found`: (rows, key heads, group, d)."""
        hidden = hidden + self._out(found.reshape(len(hidden), -1))
        gate, up = self._gate_and_up(self._between(hidden)).chunk(2, dim=-1)
        return hidden + self._down(self._activation(gate) * up)


def _causal(length: int, window: int | None, device: torch.device) -> torch.Tensor:
    """float32 (length, length), to be added to scores: very low where a position does not see another."""
    hidden = torch.full((length, length), torch.finfo(torch.float32).min, device=device)
    later = hidden.triu(1)
    return later if window is None else later + hidden.tril(-window)


class _Rotations:
    """Cosines and sines of all positions so far needed; the sine's first half is negative, so that turning a vector
    takes one roll of it."""

    def __init__(self, rotary: Any, like: torch.Tensor) -> None:
        """`like`: any tensor of the precision and on the device that is wanted."""
        self._rotary, self._like = rotary, like
        self._room = 0

    def at(self, positions: torch.Tensor, last: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Two of (rows, 1, d), for int64 (rows,) positions of which none is above `last`."""
        if self._room <= last:
            self._room = last + 64
            cos, sin = self._rotary(self._like, torch.arange(self._room, device=self._like.device)[None])
            half = sin.shape[2] // 2
            self._cos, self._sin = cos[0], torch.cat([-sin[0, :, :half], sin[0, :, half:]], dim=-1)
        return self._cos.index_select(0, positions)[:, None], self._sin.index_select(0, positions)[:, None]
