"""Attention of many rows to one prompt: a query's beams share its keys and values, which are never copied to them.

A step writes one token a row. Its scores on the prompt are one matrix product a query, in which the query's rows
stand where the positions of a longer input would; its scores on what the row has written itself are the row's own.
One softmax runs over both.

Hugging Face's attention modules call `shared_attention` by the name it is registered under, so every model
that goes through their attention interface is served.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface, Cache, PreTrainedModel

NAME = "gridlaw_shared_prompt"


class RowGroups:
    """Rows grouped by query, and the way between rows and a rectangle of (queries, most rows of a query).

    Decided on the host, so that no GPU is waited for. Where every query has as many rows, nothing is gathered.
    """

    def __init__(self, query_of_row: np.ndarray, queries: int, device: torch.device) -> None:
        counts = np.bincount(query_of_row, minlength=queries)
        self.queries = queries
        self.most = int(counts.max(initial=0))
        self._row_of_slot: torch.Tensor | None = None
        self._slot_of_row: torch.Tensor | None = None
        if (counts != self.most).any():
            place = np.arange(len(query_of_row)) - (np.cumsum(counts) - counts)[query_of_row]
            slot = query_of_row * self.most + place
            row = np.zeros(queries * self.most, dtype=np.int64)  # a slot without a row repeats row 0; nobody reads it
            row[slot] = np.arange(len(slot))
            self._row_of_slot = torch.from_numpy(row).to(device, non_blocking=True)
            self._slot_of_row = torch.from_numpy(slot).to(device, non_blocking=True)

    def pack(self, rows: torch.Tensor) -> torch.Tensor:
        """(rows, heads, group, n) -> (queries, heads, most x group, n)."""
        if self._row_of_slot is not None:
            rows = rows.index_select(0, self._row_of_slot)
        _, heads, group, n = rows.shape
        packed = rows.view(self.queries, self.most, heads, group, n).transpose(1, 2)
        return packed.reshape(self.queries, heads, self.most * group, n)

    def unpack(self, packed: torch.Tensor, group: int) -> torch.Tensor:
        """(queries, heads, most x group, n) -> (rows, heads, group, n)."""
        _, heads, _, n = packed.shape
        slots = packed.view(self.queries, heads, self.most, group, n).transpose(1, 2)
        slots = slots.reshape(self.queries * self.most, heads, group, n)
        return slots if self._slot_of_row is None else slots.index_select(0, self._slot_of_row)


@dataclass
class SharedPrompt:
    """What the attention of a step needs beside its own tensors."""

    padding: torch.Tensor | None
    """float32 (queries, 1, 1, prompt length): -inf where a query's prompt is padding; None where none is."""
    cache: Cache | None
    """Keys and values of a decoder-only model's prompts; an encoder-decoder's come as those of its cross-attention."""
    groups: RowGroups


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
    position_bias: torch.Tensor | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """One new token a row: `query` (rows, heads, 1, d) -> (rows, 1, heads, d).

    `key` and `value` are (rows, key heads, written, d) in self-attention, and (queries, heads, prompt length, d) in
    cross-attention. Raises NotImplementedError for models that cap their scores or have attention sinks.
    """
    if softcap is not None or s_aux is not None:
        raise NotImplementedError("models with capped attention scores or attention sinks are not supported")
    rows, heads, _one, width = query.shape
    grouped = query.view(rows, key.shape[1], heads // key.shape[1], width)
    if shared.cache is not None:
        layer: Any = shared.cache.layers[module.layer_idx]
        out = _prompt_and_written(grouped, layer.keys, layer.values, key, value, shared, scaling, sliding_window)
    elif module.is_causal:
        scores = _row_scores(grouped, key) * scaling
        if position_bias is not None:
            scores = scores + position_bias.float()
        out = _row_values(torch.softmax(scores, dim=-1).to(value.dtype), value)
    else:
        out = _prompt_only(grouped, key, value, shared, scaling)
    return out.view(rows, 1, heads, width), None


def _prompt_only(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, shared: SharedPrompt, scaling: float
) -> torch.Tensor:
    scores = (shared.groups.pack(query) @ key.transpose(2, 3)).float() * scaling
    if shared.padding is not None:
        scores += shared.padding
    return shared.groups.unpack(torch.softmax(scores, dim=-1).to(value.dtype) @ value, query.shape[2])


def _prompt_and_written(
    query: torch.Tensor,
    prompt_key: torch.Tensor,
    prompt_value: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    shared: SharedPrompt,
    scaling: float,
    window: int | None,
) -> torch.Tensor:
    groups, group, padding = shared.groups, query.shape[2], shared.padding
    if window is not None:
        # Prompts are padded on the left, so the newest `window` keys are the same columns for every row.
        hidden = max(0, prompt_key.shape[2] + key.shape[2] - window)
        outside = max(0, hidden - prompt_key.shape[2])
        prompt_key, prompt_value = prompt_key[:, :, hidden:], prompt_value[:, :, hidden:]
        key, value = key[:, :, outside:], value[:, :, outside:]
        padding = None if padding is None else padding[..., hidden:]
    on_prompt = (groups.pack(query) @ prompt_key.transpose(2, 3)).float()
    if padding is not None:
        on_prompt += padding
    scores = torch.cat([groups.unpack(on_prompt, group), _row_scores(query, key)], dim=-1)
    weights = torch.softmax(scores * scaling, dim=-1).to(value.dtype)
    prompt, written = weights.split([prompt_key.shape[2], key.shape[2]], dim=-1)
    return groups.unpack(groups.pack(prompt) @ prompt_value, group) + _row_values(written, value)


def _row_scores(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """(rows, heads, group, d) on (rows, heads, written, d): float32 (rows, heads, group, written)."""
    return (query @ key.transpose(2, 3)).float()


def _row_values(weights: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """(rows, heads, group, written) of (rows, heads, written, d): (rows, heads, group, d)."""
    return weights @ value


AttentionInterface.register(NAME, shared_attention)
