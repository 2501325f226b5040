"""Inference on a batch of queries: each is encoded or prefilled once, and its rows share that work.

A session's rows begin as one a query. `advance` says for each new row which old row it continues, so a query's
rows can grow to many beams, shrink and die out. What was computed of the query is never copied to them.
"""

from typing import Any, Protocol

import numpy as np
import torch
from transformers import PreTrainedModel

from workers.models.any_decoder import AnyDecoder
from workers.models.attention import Prompt, RowGroups
from workers.models.build import is_spread
from workers.models.llama import LlamaDecoder, is_like_llama
from workers.models.logits import token_logits
from workers.models.prompts import PaddedPrompts, prompts
from workers.models.t5 import T5Decoder
from workers.models.together import VALUES_TOGETHER
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


class ScoringSession(Session, Protocol):
    """One that can also be asked for single log-probabilities."""

    def score(self, parents: torch.Tensor, tokens: torch.Tensor, rows: np.ndarray, wanted: np.ndarray) -> torch.Tensor:
        """Advance, and give only the log-probability of token `wanted[i]` behind new row `rows[i]`: float32 (asked,).

        `rows` and `wanted` are int64 (asked,). The whole table is never made, which would not fit into a CPU's cache.
        """
        ...


def open_session(
    model: PreTrainedModel, queries: Ragged, rows: np.ndarray, ends: np.ndarray, longest: int
) -> ScoringSession:
    """Encode (T5) or prefill (decoder-only) the given queries, cut to `longest` tokens; `ends[i]` is put behind the
    i-th of them."""
    return ModelSession(model, prompts(queries, rows, ends, longest))


class Decoder(Protocol):
    """The incremental step of a model over its prompts, which it holds."""

    prompts: list[Prompt]
    """A layer each."""
    first: torch.Tensor
    """(queries, width): the state from which each query's first token follows."""

    def step(self, tokens: torch.Tensor, parents: torch.Tensor, groups: RowGroups) -> torch.Tensor:
        """Row i is row `parents[i]` with `tokens[i]` behind it, both int64 (rows,): its last state, (rows, width)."""
        ...

    def restart(self) -> None:
        """Nothing is written."""
        ...


def _decoder(model: PreTrainedModel, queries: Ragged) -> Decoder:
    """Encode or prefill."""
    if model.config.is_encoder_decoder:
        return T5Decoder(model, PaddedPrompts(queries, left=False, device=model.device))
    batch = PaddedPrompts(queries, left=True, device=model.device)
    stack: Any = model.get_decoder()
    if is_like_llama(stack) and not is_spread(model):
        return LlamaDecoder(stack, batch)
    return AnyDecoder(stack, batch)  # its own forward pass goes from device to device


class ModelSession:
    """The session of a real model: which query a row belongs to, and log-probabilities from hidden states."""

    @torch.inference_mode()
    def __init__(self, model: PreTrainedModel, queries: Ragged) -> None:
        self.model, self.device, self.queries = model, model.device, len(queries)
        self.query_of_row = np.arange(self.queries)
        self.groups: RowGroups | None = None
        self.each: int | None = None
        self.buffer = torch.empty(0)
        self.decoder = _decoder(model, queries)
        self.first = self._log_probs(
            self.decoder.first, torch.empty(self.queries, self._vocabulary(), device=self.device)
        )

    @torch.inference_mode()
    def advance(self, parents: torch.Tensor, tokens: torch.Tensor, each: int | None = None) -> torch.Tensor:
        """As `Session.advance`."""
        self._follow(parents, each)
        room = self._room(len(tokens))
        return self._log_probs(self._step(parents, tokens), room) if len(tokens) else room

    @torch.inference_mode()
    def score(self, parents: torch.Tensor, tokens: torch.Tensor, rows: np.ndarray, wanted: np.ndarray) -> torch.Tensor:
        """As `ScoringSession.score`."""
        self._follow(parents, None)
        hidden, step = self._step(parents, tokens), self._rows_together()
        block = self._room(min(step, len(hidden)))
        order = np.argsort(rows, kind="stable")
        begins = np.searchsorted(rows[order], np.arange(0, len(hidden) + step, step))
        asked, row, column = (torch.from_numpy(each).to(self.device) for each in (order, rows[order], wanted[order]))
        found = torch.empty(len(rows), device=self.device)
        for number, begin in enumerate(range(0, len(hidden), step)):
            part = slice(*begins[number : number + 2].tolist())
            here = hidden[begin : begin + step]
            log_probs = self._log_probs(here, block[: len(here)])
            found[asked[part]] = log_probs[row[part] - begin, column[part]]
        return found

    def restart(self) -> None:
        """As `Session.restart`."""
        self.query_of_row, self.each = np.arange(self.queries), None
        self.decoder.restart()

    def _follow(self, parents: torch.Tensor, each: int | None) -> None:
        """Say on the host which query each new row belongs to."""
        if each is not None:
            if each != self.each:  # else as before: nothing is sent to the device
                self.each = each
                self.query_of_row = np.repeat(np.arange(self.queries), each)
                self.groups = RowGroups(self.query_of_row, self.queries, self.device)
            return
        query = self.query_of_row[parents.cpu().numpy()]
        if (query[1:] < query[:-1]).any():
            raise ValueError("rows must stay in the order of their queries")
        self.query_of_row = query
        self.groups, self.each = RowGroups(query, self.queries, self.device), None

    def _step(self, parents: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """(rows, width): the last states of the rows that `_follow` was told of."""
        assert self.groups is not None
        tokens, parents = tokens.to(self.device, non_blocking=True), parents.to(self.device, non_blocking=True)
        return self.decoder.step(tokens, parents, self.groups)

    def _rows_together(self) -> int:
        return max(1, VALUES_TOGETHER[self.device.type] // self._vocabulary())

    def _log_probs(self, hidden: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        """(rows, width) -> `out`, (rows, vocabulary). All logits at once would cost a second such table."""
        step = self._rows_together()
        for begin in range(0, len(hidden), step):
            logits = token_logits(self.model, hidden[begin : begin + step]).to(self.device)
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
