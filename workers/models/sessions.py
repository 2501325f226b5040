"""Inference on a batch of queries: each is encoded or prefilled once, and its rows share that work.

A session's rows begin as one a query. `advance` says for each new row which old row it continues, so a query's
rows can grow to many beams, shrink and die out. What was computed of the query is never copied to them.
"""

from typing import Any, Protocol

import numpy as np
import torch
from transformers import Cache, DynamicCache, EncoderDecoderCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from workers.memory import HEAD_VALUES
from workers.models.attention import RowGroups, SharedPrompt, shared_prompts
from workers.models.logits import token_logits
from workers.models.prompts import prompts
from workers.ragged import Ragged


class Session(Protocol):
    """One batch of queries under one model."""

    first: torch.Tensor
    """float32 (queries, vocabulary): log-probabilities of the first token."""

    def advance(self, parents: torch.Tensor, tokens: torch.Tensor, each: int | None = None) -> torch.Tensor:
        """Each new row continues row `parents[i]` with `tokens[i]`: float32 (rows, vocabulary) log-probabilities.

        Both are int64 (rows,). New rows are in the order of their queries, else ValueError. They are grouped on the
        host, so there `parents` should be; only where every query has `each` new rows may they be on the device
        without being waited for. The result lives in memory that the next `advance` writes over.
        """
        ...

    def restart(self) -> None:
        """Rows are one a query again and nothing is written; the queries are not encoded again."""
        ...


def open_session(model: PreTrainedModel, queries: Ragged, rows: np.ndarray, ends: np.ndarray, longest: int) -> Session:
    """Encode (T5) or prefill (decoder-only) the given queries, cut to `longest` tokens; `ends[i]` is put behind the
    i-th of them."""
    kind = EncoderDecoderSession if model.config.is_encoder_decoder else DecoderSession
    return kind(model, prompts(queries, rows, ends, longest))


class WrittenLayer(DynamicLayer):
    """One layer's keys and values of what the rows have written."""

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """As the base class', which indexes a good deal slower on a CPU."""
        if self.keys is not None and self.values is not None:
            self.keys = self.keys.index_select(0, indices)
            self.values = self.values.index_select(0, indices)


class _Rows:
    """What both kinds of session share: which query a row belongs to, and log-probabilities from hidden states."""

    def __init__(self, model: PreTrainedModel, queries: Ragged, left: bool) -> None:
        self.model = model
        self.decoder: Any = model.get_decoder()
        device: torch.device = model.device
        self.device = device
        self.queries = len(queries)
        self.tokens = torch.from_numpy(queries.padded(np.arange(len(queries)), fill=0, left=left)).to(device)
        lengths, width = queries.lengths, self.tokens.shape[1]
        column = np.arange(width)[::-1] if left else np.arange(width)
        inside = torch.from_numpy(column < lengths[:, None]).to(device)
        self.mask = inside.long()
        padding = torch.zeros(inside.shape, device=device).masked_fill_(~inside, -torch.inf)[:, None, None]
        self.padding = None if (lengths == width).all() else padding
        self.cache_of_written: Any = Cache(layer_class_to_replicate=WrittenLayer)
        self.query_of_row = np.arange(self.queries)
        self.buffer = torch.empty(0)

    def _select(self, parents: torch.Tensor, each: int | None) -> RowGroups:
        """Reorder what is written, and group the new rows."""
        if each is not None:
            self.query_of_row = np.repeat(np.arange(self.queries), each)
            self.cache_of_written.batch_select_indices(parents.to(self.device, non_blocking=True))
            return RowGroups(self.query_of_row, self.queries, self.device)
        chosen = parents.cpu().numpy()
        identity = np.array_equal(chosen, np.arange(len(self.query_of_row)))
        self.query_of_row = self.query_of_row[chosen]
        if (np.diff(self.query_of_row) < 0).any():
            raise ValueError("rows must stay in the order of their queries")
        if not identity:
            self.cache_of_written.batch_select_indices(parents.to(self.device, non_blocking=True))
        return RowGroups(self.query_of_row, self.queries, self.device)

    def _log_probs(self, hidden: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        """(rows, width) -> `out`, (rows, vocabulary). All logits at once would cost a second such table."""
        step = max(1, HEAD_VALUES[self.device.type] // out.shape[1])
        for begin in range(0, len(hidden), step):
            logits = token_logits(self.model, hidden[begin : begin + step])
            torch.log_softmax(logits, dim=-1, dtype=torch.float32, out=out[begin : begin + step])
        return out

    def _room(self, rows: int) -> torch.Tensor:
        """float32 (rows, vocabulary) of memory that is used again: fresh pages cost as much as filling them."""
        if len(self.buffer) < rows:
            room = max(rows, len(self.buffer) + len(self.buffer) // 4)  # rows that grow a little each time
            self.buffer = torch.empty(0)  # never the old and the new one at once
            self.buffer = torch.empty(room, self._vocabulary(), device=self.device)
        return self.buffer[:rows]

    def _vocabulary(self) -> int:
        head: Any = self.model.get_output_embeddings()
        return head.weight.shape[0]


class EncoderDecoderSession(_Rows):
    """T5: the encoder runs once a query, and so do the keys and values of cross-attention."""

    @torch.inference_mode()
    def __init__(self, model: PreTrainedModel, queries: Ragged) -> None:
        super().__init__(model, queries, left=False)
        encoder: Any = model.get_encoder()
        self.encoded = encoder(input_ids=self.tokens, attention_mask=self.mask).last_hidden_state
        self.cross = DynamicCache()
        start = torch.full((self.queries,), model.config.decoder_start_token_id, device=self.device)
        hidden = self._decode(start, RowGroups(self.query_of_row, self.queries, self.device))
        self.first = self._log_probs(hidden, torch.empty(self.queries, self._vocabulary(), device=self.device))
        self.started = [(layer.keys, layer.values) for layer in self.cache_of_written.layers]

    @torch.inference_mode()
    def advance(self, parents: torch.Tensor, tokens: torch.Tensor, each: int | None = None) -> torch.Tensor:
        groups = self._select(parents, each)
        if not len(tokens):
            return self._room(0)
        hidden = self._decode(tokens.to(self.device, non_blocking=True), groups)
        return self._log_probs(hidden, self._room(len(tokens)))

    @torch.inference_mode()
    def restart(self) -> None:
        self.query_of_row = np.arange(self.queries)
        self.cache_of_written = Cache(layer_class_to_replicate=WrittenLayer)
        for number, (keys, values) in enumerate(self.started):
            self.cache_of_written.update(keys, values, number)

    def _decode(self, tokens: torch.Tensor, groups: RowGroups) -> torch.Tensor:
        """(rows,) -> (rows, width). Of `encoded` nothing but its presence counts once cross-attention has run."""
        with shared_prompts(self.decoder):
            output = self.decoder(
                input_ids=tokens[:, None],
                encoder_hidden_states=self.encoded,
                past_key_values=EncoderDecoderCache(self.cache_of_written, self.cross),
                use_cache=True,
                shared=SharedPrompt(padding=self.padding, cache=None, groups=groups),
            )
        return output.last_hidden_state[:, 0]


class DecoderSession(_Rows):
    """Decoder-only: the prompt is prefilled once a query, padded on the left; positions leave the padding out."""

    @torch.inference_mode()
    def __init__(self, model: PreTrainedModel, queries: Ragged) -> None:
        super().__init__(model, queries, left=True)
        self.lengths = queries.lengths
        self.written = 0
        self.prompt = DynamicCache()  # without the config: a layer with a window would keep only its end
        output = self.decoder(
            input_ids=self.tokens,
            attention_mask=self.mask,
            position_ids=(self.mask.cumsum(1) - 1).clamp(min=0),
            past_key_values=self.prompt,
            use_cache=True,
        )
        hidden = output.last_hidden_state[:, -1]
        self.first = self._log_probs(hidden, torch.empty(self.queries, self._vocabulary(), device=self.device))

    @torch.inference_mode()
    def advance(self, parents: torch.Tensor, tokens: torch.Tensor, each: int | None = None) -> torch.Tensor:
        groups = self._select(parents, each)
        if not len(tokens):
            return self._room(0)
        positions = torch.from_numpy(self.lengths[self.query_of_row] + self.written)
        self.written += 1
        with shared_prompts(self.decoder):
            output = self.decoder(
                input_ids=tokens.to(self.device, non_blocking=True)[:, None],
                position_ids=positions.to(self.device, non_blocking=True)[:, None],
                past_key_values=self.cache_of_written,
                use_cache=True,
                shared=SharedPrompt(padding=self.padding, cache=self.prompt, groups=groups),
            )
        return self._log_probs(output.last_hidden_state[:, 0], self._room(len(tokens)))

    def restart(self) -> None:
        self.query_of_row = np.arange(self.queries)
        self.cache_of_written = Cache(layer_class_to_replicate=WrittenLayer)
        self.written = 0
