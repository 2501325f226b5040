"""What users of transformers have today: `generate` with `prefix_allowed_tokens_fn` over a trie of dictionaries."""

from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from workers.ragged import Ragged


def build(rows: Ragged) -> dict[int, Any]:
    """A node is a dictionary from a token to the next node."""
    root: dict[int, Any] = {}
    for row in range(len(rows)):
        node = root
        for token in rows[row].tolist():
            node = node.setdefault(token, {})
    return root


def allowed_tokens(trie: dict[int, Any], prompt: int) -> Any:
    """For `prefix_allowed_tokens_fn`: what may follow a sequence, whose first `prompt` tokens are not of the trie."""

    def allowed(_: int, sequence: torch.Tensor) -> list[int]:
        node = trie
        for token in sequence[prompt:].tolist():
            node = node.get(token, {})
        return list(node) or [0]  # after an impossible beam; generate fills up with those where there are too few

    return allowed


@torch.inference_mode()
def generate(
    model: PreTrainedModel, queries: Ragged, trie: dict[int, Any], beams: int, length: int, scores: bool = False
) -> Any:
    """Each query's `beams` best sequences of `length` tokens, by the sum of log-probabilities; `queries` are prompts.

    Without `scores`, only the sequences are asked for, which is less work.
    """
    encoder = model.config.is_encoder_decoder
    tokens = torch.from_numpy(queries.padded(np.arange(len(queries)), fill=0, left=not encoder))
    width = tokens.shape[1]
    lengths = torch.from_numpy(queries.lengths)[:, None]
    columns = torch.arange(width)
    generator: Any = model
    return generator.generate(
        input_ids=tokens,
        attention_mask=(columns < lengths if encoder else columns >= width - lengths).long(),
        prefix_allowed_tokens_fn=allowed_tokens(trie, 1 if encoder else width),
        num_beams=beams,
        num_return_sequences=beams,
        max_new_tokens=length,
        length_penalty=0.0,
        early_stopping=False,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
        output_scores=scores,
        return_dict_in_generate=scores,
    )
