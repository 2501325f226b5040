"""From the last hidden states to logits: what stands between the decoder stack and the vocabulary."""

from typing import Any

import torch
from transformers import PreTrainedModel


def token_logits(model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
    """(..., width) of the decoder's last layer -> (..., vocabulary), in the model's precision.

    Both training and inference come here. A family that scales or caps its logits beyond T5's way does without that.
    """
    head: Any = model.get_output_embeddings()
    if getattr(model.config, "scale_decoder_outputs", False):
        hidden = hidden * model.config.d_model**-0.5  # T5 with a tied output layer
    return head(hidden.to(head.weight.device))
