"""Inference on a batch of queries: each is encoded or prefilled once, beams and candidates share that work.

A session's rows start as one a query. `advance` and `score` say for each new row which old row it continues,
so a query's rows can grow to many beams and shrink again without its encoding being computed twice.
"""

from typing import Protocol

import numpy as np
import torch
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel

from workers.models.prompts import prompts
from workers.ragged import Ragged


class Session(Protocol):
    """One batch of queries under one model."""

    first: torch.Tensor
    """float32 (queries, vocabulary): log-probabilities of the first token."""

    def advance(self, parents: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Each new row continues row `parents[i]` with `tokens[i]`: float32 (rows, vocabulary) log-probabilities."""
        ...

    def score(self, parents: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Log-probability of each token of `targets` (rows, length) given row `parents[i]`, before any `advance`.

        What follows a target's end (any padding) is scored too and must be masked by the caller.
        """
        ...


def open_session(model: PreTrainedModel, queries: Ragged, rows: np.ndarray, end: int, longest: int) -> Session:
    """Encode (T5) or prefill (decoder-only) the given queries. `end` is the token after a query, which is cut to
    `longest` tokens."""
    kind = EncoderDecoderSession if model.config.is_encoder_decoder else DecoderSession
    return kind(model, prompts(queries, rows, end, longest))


class EncoderDecoderSession:
    """T5: the encoder runs once a query; cross-attention keys are copied to beams, never recomputed."""

    def __init__(self, model: PreTrainedModel, queries: Ragged) -> None:
        self.model = model
        tokens = torch.from_numpy(queries.padded(np.arange(len(queries)), fill=0)).to(model.device)
        lengths = torch.from_numpy(queries.lengths).to(model.device)
        self.mask = (torch.arange(tokens.shape[1], device=model.device) < lengths[:, None]).long()
        with torch.inference_mode():
            self.encoded = model.get_encoder()(input_ids=tokens, attention_mask=self.mask).last_hidden_state
        self.cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        self.query_of_row = torch.arange(len(queries), device=model.device)
        start = torch.full((len(queries), 1), model.config.decoder_start_token_id, device=model.device)
        self.first = torch.log_softmax(self._decode(start)[:, -1].float(), dim=-1)

    def advance(self, parents: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        self._select(parents)
        return torch.log_softmax(self._decode(tokens[:, None])[:, -1].float(), dim=-1)

    def score(self, parents: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        first = self.first[parents].gather(1, targets[:, :1])
        if targets.shape[1] == 1:
            return first
        self._select(parents)
        rest = torch.log_softmax(self._decode(targets[:, :-1]).float(), dim=-1)
        return torch.cat([first, rest.gather(2, targets[:, 1:, None]).squeeze(2)], dim=1)

    def _select(self, parents: torch.Tensor) -> None:
        query_of_row = self.query_of_row[parents]
        self.cache.self_attention_cache.batch_select_indices(parents)
        if not torch.equal(query_of_row, self.query_of_row):
            self.cache.cross_attention_cache.batch_select_indices(parents)
            self.query_of_row = query_of_row

    @torch.inference_mode()
    def _decode(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.model(
            encoder_outputs=(self.encoded[self.query_of_row],),
            attention_mask=self.mask[self.query_of_row],
            decoder_input_ids=tokens,
            past_key_values=self.cache,
            use_cache=True,
        ).logits


class DecoderSession:
    """Decoder-only: the prompt is prefilled once a query, padded on the left; positions leave the padding out."""

    def __init__(self, model: PreTrainedModel, queries: Ragged) -> None:
        self.model = model
        tokens = torch.from_numpy(queries.padded(np.arange(len(queries)), fill=0, left=True)).to(model.device)
        self.lengths = torch.from_numpy(queries.lengths).to(model.device)
        width = tokens.shape[1]
        self.mask = (torch.arange(width, device=model.device) >= width - self.lengths[:, None]).long()
        self.cache = DynamicCache(config=model.config)
        positions = (self.mask.cumsum(1) - 1).clamp(min=0)
        self.first = torch.log_softmax(self._decode(tokens, positions, last=True)[:, -1].float(), dim=-1)

    def advance(self, parents: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        self._select(parents, 1)
        return torch.log_softmax(self._decode(tokens[:, None], self.lengths[:, None] - 1)[:, -1].float(), dim=-1)

    def score(self, parents: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        first = self.first[parents].gather(1, targets[:, :1])
        extra = targets.shape[1] - 1
        if extra == 0:
            return first
        begin = self.lengths[parents]
        self._select(parents, extra)
        positions = begin[:, None] + torch.arange(extra, device=begin.device)
        rest = torch.log_softmax(self._decode(targets[:, :-1], positions).float(), dim=-1)
        return torch.cat([first, rest.gather(2, targets[:, 1:, None]).squeeze(2)], dim=1)

    def _select(self, parents: torch.Tensor, added: int) -> None:
        self.cache.batch_select_indices(parents)
        self.lengths = self.lengths[parents] + added
        mask = self.mask[parents]
        self.mask = torch.cat([mask, mask.new_ones(len(parents), added)], dim=1)

    @torch.inference_mode()
    def _decode(self, tokens: torch.Tensor, positions: torch.Tensor, last: bool = False) -> torch.Tensor:
        return self.model(
            input_ids=tokens,
            attention_mask=self.mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1 if last else 0,
        ).logits
