"""Attention of many rows to one prompt: a query's beams share its keys and values, which are never copied to them.

A step writes one token a row. Its scores on the prompt are one matrix product a query, in which the query's rows
stand where the positions of a longer input would; its scores on what the row has written itself are the row's own.
One softmax runs over both.
"""

from copy import copy
from dataclasses import dataclass

import numpy as np
import torch

from workers.models.together import VALUES_TOGETHER


class RowGroups:
    """Rows grouped by query, and the way between rows and a rectangle of (queries, most rows of a query).

    Decided on the host, so that no GPU is waited for. Where every query has as many rows, nothing is gathered.
    """

    def __init__(self, query_of_row: np.ndarray, queries: int, device: torch.device) -> None:
        counts = np.bincount(query_of_row, minlength=queries)
        self.queries = queries
        self.query_of_row = torch.from_numpy(query_of_row).to(device, non_blocking=True)
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

    @classmethod
    def one_each(cls, queries: int, device: torch.device) -> "RowGroups":
        """One row a query."""
        return cls(np.arange(queries), queries, device)

    def at(self, device: torch.device) -> "RowGroups":
        """The same on a device: itself where it is there."""
        if self.query_of_row.device == device:
            return self
        there = copy(self)
        there.query_of_row = self.query_of_row.to(device)
        there._row_of_slot = None if self._row_of_slot is None else self._row_of_slot.to(device)
        there._slot_of_row = None if self._slot_of_row is None else self._slot_of_row.to(device)
        return there

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


@dataclass(frozen=True)
class Prompt:
    """Of one layer, a batch of queries: each tensor (queries, key heads, prompt length, d)."""

    keys: torch.Tensor
    values: torch.Tensor


def attend_within(
    query: torch.Tensor,
    prompt: Prompt,
    *,
    bias: torch.Tensor | None,
    padding: torch.Tensor | None,
    scaling: float,
) -> torch.Tensor:
    """All positions of prompts on each other: (queries, key heads, group, length, d), as `query` is.

    `bias`: float32, broadcast to (queries, key heads, group, length, length); a finite one, however low, keeps
    positions that see only padding from becoming nan. `padding` as for `attend_prompt`. Scores are made for a few
    queries at a time: all of them would be the largest tensor of all.
    """
    _, heads, group, length, width = query.shape
    step = max(1, VALUES_TOGETHER[query.device.type] // max(1, heads * group * length * length))
    out = torch.empty_like(query)
    for begin in range(0, len(query), step):
        part = slice(begin, begin + step)
        flat = query[part].reshape(-1, heads, group * length, width)
        scores = (flat @ prompt.keys[part].transpose(2, 3)).float().view(-1, heads, group, length, length)
        scores *= scaling
        if bias is not None:
            scores += bias
        if padding is not None:
            scores += padding[part, :, None]
        weights = torch.softmax(scores, dim=-1).to(query.dtype).view(-1, heads, group * length, length)
        out[part] = (weights @ prompt.values[part]).view(-1, heads, group, length, width)
    return out


class Written:
    """Keys and values of what the rows have written, a tensor a layer: (written, 2, rows, key heads, d).

    Time comes first, so that a step copies each old row to its place and writes the new one behind it without a
    second copy. Tensors are never changed once made: what was there before stays valid for who holds it.
    """

    def __init__(self, layers: int) -> None:
        self._layers: list[torch.Tensor | None] = [None] * layers

    def append(self, layer: int, parents: torch.Tensor, new: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows become those of `parents`, int64 (rows,), with `new` behind them: (rows, 2, key heads, d).

        Returns keys and values, (rows, key heads, written, d).
        """
        old, new = self._layers[layer], new.transpose(0, 1)
        before = 0 if old is None else len(old)
        joined = new.new_empty((before + 1, *new.shape))
        if old is not None:
            torch.index_select(old, 2, parents, out=joined[:before])
        joined[before] = new
        self._layers[layer] = joined
        both = joined.permute(1, 2, 3, 0, 4)
        return both[0], both[1]

    def copy(self) -> "Written":
        """One that goes its own way from here."""
        copied = Written(0)
        copied._layers = list(self._layers)
        return copied


def attend_written(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """`query` (rows, heads, 1, d) on (rows, heads, written, d), like T5 without scaling; float32 `bias` is added."""
    scores = (query @ key.transpose(2, 3)).float()
    if bias is not None:
        scores = scores + bias
    return torch.softmax(scores, dim=-1).to(value.dtype) @ value


def attend_prompt(query: torch.Tensor, prompt: Prompt, padding: torch.Tensor | None, groups: RowGroups) -> torch.Tensor:
    """`query` (rows, heads, 1, d) on its query's prompt, like T5 without scaling.

    `padding`: float32 (queries, 1, 1, prompt length), -inf where a query's prompt is padding; None where none is.
    """
    scores = (groups.pack(query) @ prompt.keys.transpose(2, 3)).float()
    if padding is not None:
        scores += padding
    return groups.unpack(torch.softmax(scores, dim=-1).to(prompt.values.dtype) @ prompt.values, query.shape[2])


def attend_prompt_and_written(
    query: torch.Tensor,
    prompt: Prompt,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    padding: torch.Tensor | None,
    groups: RowGroups,
    scaling: float,
    window: int | None,
) -> torch.Tensor:
    """`query` (rows, key heads, group, d) on its query's prompt and on (rows, key heads, written, d).

    `padding` as for `attend_prompt`. Of keys more than `window` back nothing is seen.
    """
    prompt_key, prompt_value, group = prompt.keys, prompt.values, query.shape[2]
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
    scores = torch.cat([groups.unpack(on_prompt, group), (query @ key.transpose(2, 3)).float()], dim=-1)
    weights = torch.softmax(scores * scaling, dim=-1).to(value.dtype)
    prompt_weights, written = weights.split([prompt_key.shape[2], key.shape[2]], dim=-1)
    return groups.unpack(groups.pack(prompt_weights) @ prompt_value, group) + written @ value
