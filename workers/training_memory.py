"""The memory of a training, by a formula; it imports no torch, so that a plan can ask it."""

BUCKET = 100_000_000
"""Gradients that are reduced together, in values; no more than the model has."""
LIVE = 500_000_000
"""Weights that ZeRO stage 3 has whole on a GPU at a time, in values."""
SUB_GROUP = 200_000_000
"""Weights of one rank that the optimizer goes through at a time in stage 3, in values."""


def even(values: int) -> int:
    """Rounded up: DeepSpeed's buffers must be."""
    return values + values % 2
