"""Pieces of a transformer layer that the decoders' own loops share. Weights stay Hugging Face's modules' own.

What a step needs of a module is looked up once: a module's attributes and calls cost as much as a small product.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

JOINED_VALUES = 2**18
"""Weights of projections that are copied into one matrix: small ones, where a call costs as much as its work."""


class Joined:
    """Linear layers with the same input as one, or a single one: (..., width) -> (..., sum of their widths)."""

    def __init__(self, layers: Sequence[Any]) -> None:
        self._parts = [(layer.weight, layer.bias) for layer in layers]
        self.device: torch.device = layers[0].weight.device
        if len(layers) > 1 and sum(layer.weight.numel() for layer in layers) <= JOINED_VALUES:
            biases = [layer.bias for layer in layers if layer.bias is not None]
            if len(biases) in (0, len(layers)):
                weight = torch.cat([layer.weight for layer in layers])
                self._parts = [(weight, torch.cat(biases) if biases else None)]

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        outputs = [functional.linear(hidden, weight, bias) for weight, bias in self._parts]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)


class RmsNorm:
    """A T5 or LLaMA norm module, rounded where that rounds in half precision."""

    def __init__(self, norm: Any) -> None:
        self._weight: torch.Tensor = norm.weight
        self.device: torch.device = norm.weight.device
        self._shape, self._epsilon = norm.weight.shape, norm.variance_epsilon

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.rms_norm(hidden, self._shape, None, self._epsilon).to(self._weight.dtype) * self._weight
