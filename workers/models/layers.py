"""Pieces of a transformer layer that the decoders' own loops share. Weights stay Hugging Face's modules' own."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

JOINED_VALUES = 2**18
"""Weights of projections that are copied into one matrix: small ones, where a call costs as much as its work."""


class Joined:
    """Linear layers with the same input as one: (..., width) -> (..., sum of their widths)."""

    def __init__(self, layers: Sequence[Any]) -> None:
        self._parts = [(layer.weight, layer.bias) for layer in layers]
        if sum(layer.weight.numel() for layer in layers) <= JOINED_VALUES:
            biases = [layer.bias for layer in layers if layer.bias is not None]
            if len(biases) in (0, len(layers)):
                weight = torch.cat([layer.weight for layer in layers])
                self._parts = [(weight, torch.cat(biases) if biases else None)]

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        outputs = [functional.linear(hidden, weight, bias) for weight, bias in self._parts]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)


def rms_norm(hidden: torch.Tensor, norm: Any) -> torch.Tensor:
    """A T5 or LLaMA norm module, rounded where that rounds in half precision."""
    weight: torch.Tensor = norm.weight
    return functional.rms_norm(hidden, weight.shape, None, norm.variance_epsilon).to(weight.dtype) * weight
