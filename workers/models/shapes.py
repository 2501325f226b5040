"""The shape of a transformer, and its parameters counted group by group so that any N can be refitted.

`N` in every law is `parameters.n_params`: all parameters but the input embedding (Cai et al., SIGIR 2025).
A tied output layer is the input embedding and is not counted; an untied one is.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What decides parameters and FLOPs. `layers` is a stack's; T5 has two stacks of that depth."""

    family: Literal["t5", "llama"]
    width: int
    layers: int
    heads: int
    head_width: int
    feed_forward: int
    vocabulary: int
    kv_heads: int | None = None
    """LLaMA's key and value heads; `heads` where None."""
    gated: bool = False
    """T5 v1.1 and later: two input matrices in the feed-forward layer. LLaMA's always is."""
    tied: bool = True
    buckets: int = 32
    """T5's relative position buckets."""


@dataclass(frozen=True, kw_only=True)
class ParameterCounts:
    """Parameters by group."""

    embedding: int
    attention: int
    feed_forward: int
    norms: int
    positions: int
    output: int
    """The output layer where it is not tied."""

    @property
    def n_total(self) -> int:
        """All of them."""
        return self.embedding + self.n_params

    @property
    def n_params(self) -> int:
        """Without the input embedding."""
        return self.attention + self.feed_forward + self.norms + self.positions + self.output


def count_parameters(shape: Shape) -> ParameterCounts:
    """Counts from the shape alone, equal to those of the built model (a test compares)."""
    inner = shape.heads * shape.head_width
    kv_inner = (shape.kv_heads or shape.heads) * shape.head_width
    attention = shape.width * (2 * inner + 2 * kv_inner)
    matrices = 3 if shape.gated or shape.family == "llama" else 2
    feed_forward = matrices * shape.width * shape.feed_forward
    if shape.family == "t5":
        attentions, blocks, norms, positions = 3, 2, 5, 2 * shape.buckets * shape.heads
    else:
        attentions, blocks, norms, positions = 1, 1, 2, 0
    return ParameterCounts(
        embedding=shape.vocabulary * shape.width,
        attention=attentions * shape.layers * attention,
        feed_forward=blocks * shape.layers * feed_forward,
        norms=(norms * shape.layers + blocks) * shape.width,
        positions=positions,
        output=0 if shape.tied else shape.vocabulary * shape.width,
    )


def _t5(width: int, feed_forward: int, layers: int, heads: int, head_width: int) -> Shape:
    return Shape(
        family="t5",
        width=width,
        layers=layers,
        heads=heads,
        head_width=head_width,
        feed_forward=feed_forward,
        vocabulary=32128,
    )


def _llama(width: int, feed_forward: int, layers: int, heads: int, kv_heads: int) -> Shape:
    return Shape(
        family="llama",
        width=width,
        layers=layers,
        heads=heads,
        head_width=width // heads,
        feed_forward=feed_forward,
        vocabulary=32000,
        kv_heads=kv_heads,
        tied=False,
    )


PRETRAINED: dict[str, Shape] = {
    "google-t5/t5-small": _t5(512, 2048, 6, 8, 64),
    "google-t5/t5-base": _t5(768, 3072, 12, 12, 64),
    "google-t5/t5-large": _t5(1024, 4096, 24, 16, 64),
    "google-t5/t5-3b": _t5(1024, 16384, 24, 32, 128),
    "google-t5/t5-11b": _t5(1024, 65536, 24, 128, 128),
    "meta-llama/Llama-2-7b-hf": _llama(4096, 11008, 32, 32, 32),
    "meta-llama/Llama-2-13b-hf": _llama(5120, 13824, 40, 40, 40),
    "meta-llama/Llama-2-70b-hf": _llama(8192, 28672, 80, 64, 8),
    "meta-llama/Llama-2-7b-chat-hf": _llama(4096, 11008, 32, 32, 32),
    "meta-llama/Llama-2-13b-chat-hf": _llama(5120, 13824, 40, 40, 40),
    "meta-llama/Llama-2-70b-chat-hf": _llama(8192, 28672, 80, 64, 8),
}
"""Shapes of the models the paper used, so that a plan needs no download."""
