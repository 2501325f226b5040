"""The training loss of both families: mean NLL of the identifiers' tokens given the query."""

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from workers.models.logits import token_logits
from workers.models.prompts import prompts
from workers.ragged import Ragged

IGNORED = -100


class PairLoss(nn.Module):
    """A model and its loss over a batch of (query, identifier) pairs; what DeepSpeed trains."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, sources: torch.Tensor, lengths: torch.Tensor, labels: torch.Tensor, tokens: float | None = None
    ) -> torch.Tensor:
        """`sources` (pairs, width) padded on the right, `lengths` (pairs,), `labels` (pairs, longest), IGNORED behind.

        Returns the NLL of the identifiers' tokens, summed and divided by `tokens`; by their own number where it is left
        out. With the mean number of tokens of the passes that make up a batch, the mean over those passes is the mean
        over the batch's tokens, however it is cut. Only the identifiers' tokens meet the output layer.
        """
        if tokens is None:
            tokens = int((labels != IGNORED).sum())
        if self.model.config.is_encoder_decoder:
            logits = self._encoder_decoder(sources, lengths, labels)
        else:
            logits = self._decoder(sources, lengths, labels)
        logits, labels = logits.float().flatten(0, 1), labels.flatten()
        return nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum") / tokens

    def _encoder_decoder(self, sources: torch.Tensor, lengths: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        mask = (torch.arange(sources.shape[1], device=sources.device) < lengths[:, None]).long()
        start = labels.new_full((len(labels), 1), self.model.config.decoder_start_token_id)
        inputs = torch.cat([start, labels[:, :-1].clamp(min=0)], dim=1)
        return self.model(input_ids=sources, attention_mask=mask, decoder_input_ids=inputs, use_cache=False).logits

    def _decoder(self, sources: torch.Tensor, lengths: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        pairs, longest = labels.shape
        room = sources.new_zeros(pairs, longest - 1)
        sequence = torch.cat([sources, room], dim=1)
        at = lengths[:, None] + torch.arange(longest, device=sources.device)
        sequence.scatter_(1, at[:, :-1], labels[:, :-1].clamp(min=0))
        hidden = self.model.model(input_ids=sequence, use_cache=False).last_hidden_state
        before = (at - 1)[:, :, None].expand(-1, -1, hidden.shape[2])
        return token_logits(self.model, hidden.gather(1, before))


def pair_tensors(
    sources: Ragged, source: np.ndarray, targets: Ragged, target: np.ndarray, ends: np.ndarray, longest: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The three inputs of `PairLoss` for pairs (sources[source[i]], targets[target[i]]), prompts ended with `ends`."""
    ended = prompts(sources, source, ends, longest)
    inputs = torch.from_numpy(ended.padded(np.arange(len(ended)), fill=0))
    labels = torch.from_numpy(targets.padded(target, fill=IGNORED))
    return inputs, torch.from_numpy(ended.lengths), labels
