"""The model's own forward pass with a query's rows attending to one prompt: for decoders without a loop of their own.

Hugging Face's attention modules call `shared_attention` by the name it is registered under, so every decoder-only
model that goes through their attention interface is served.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface, Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from workers.errors import BadInput
from workers.models.attention import Prompt, RowGroups, attend_prompt_and_written
from workers.models.prompts import PaddedPrompts

NAME = "gridlaw_shared_prompt"


@dataclass
class SharedPrompt:
    """What the attention of a step needs beside its own tensors."""

    padding: torch.Tensor | None
    """As for `attend_prompt`."""
    layers: list[Prompt]
    """Each where its layer is."""
    groups: RowGroups

    def at(self, device: torch.device) -> "SharedPrompt":
        """What is not a layer's own, on a device: a model's layers may be on several."""
        if self.groups.query_of_row.device == device:
            return self
        padding = None if self.padding is None else self.padding.to(device)
        return SharedPrompt(padding=padding, layers=self.layers, groups=self.groups.at(device))


class WrittenLayer(DynamicLayer):
    """One layer's keys and values of what the rows have written."""

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """As the base class', which indexes a good deal slower on a CPU."""
        if self.keys is not None and self.values is not None:
            indices = indices.to(self.keys.device)
            self.keys = self.keys.index_select(0, indices)
            self.values = self.values.index_select(0, indices)


@contextmanager
def shared_prompts(decoder: PreTrainedModel) -> Iterator[None]:
    """Within it the decoder's attention is `shared_attention`; then what it was before."""
    config: Any = decoder.config
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def shared_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    shared: SharedPrompt,
    scaling: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """One new token a row: `query` (rows, heads, 1, d) -> (rows, 1, heads, d).

    `key` and `value` are (rows, key heads, written, d). Raises BadInput for a model that caps its scores or
    has attention sinks.
    """
    if softcap is not None or s_aux is not None:
        kind = type(module).__name__
        raise BadInput(f"models.pretrained: {kind} caps attention scores or has attention sinks: it cannot be searched")
    rows, heads, _one, width = query.shape
    shared = shared.at(query.device)
    out = attend_prompt_and_written(
        query.view(rows, key.shape[1], heads // key.shape[1], width),
        shared.layers[module.layer_idx],
        key,
        value,
        padding=shared.padding,
        groups=shared.groups,
        scaling=scaling,
        window=sliding_window,
    )
    return out.view(rows, 1, heads, width), None


AttentionInterface.register(NAME, shared_attention)


class AnyDecoder:
    """Prompts, padded on the left, and steps of any decoder-only model."""

    def __init__(self, decoder: PreTrainedModel, batch: PaddedPrompts) -> None:
        self.decoder, self.lengths, self.padding = decoder, batch.lengths, batch.padding
        run: Any = decoder
        cache: Any = DynamicCache()  # without the config: a layer with a window would keep only its end
        output = run(
            input_ids=batch.tokens,
            attention_mask=batch.mask,
            position_ids=batch.positions,
            past_key_values=cache,
            use_cache=True,
        )
        self.prompts = [Prompt(layer.keys, layer.values) for layer in cache.layers]
        self.first = output.last_hidden_state[:, -1]
        self.restart()

    def restart(self) -> None:
        """Nothing is written."""
        self.cache: Any = Cache(layer_class_to_replicate=WrittenLayer)
        self.written = 0

    def step(self, tokens: torch.Tensor, parents: torch.Tensor, groups: RowGroups) -> torch.Tensor:
        """As `sessions.Decoder.step`."""
        self.cache.batch_select_indices(parents)
        positions = self.lengths[groups.query_of_row] + self.written
        self.written += 1
        run: Any = self.decoder
        with shared_prompts(self.decoder):
            output = run(
                input_ids=tokens[:, None],
                position_ids=positions[:, None],
                past_key_values=self.cache,
                use_cache=True,
                shared=SharedPrompt(padding=self.padding, layers=self.prompts, groups=groups),
            )
        return output.last_hidden_state[:, 0]
