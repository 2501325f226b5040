"""FLOPs of training and inference from a model's shape: two for each multiply-add of a matrix product.

Counted are the products of the weights and of attention, as computed (a causal mask saves nothing) but
without padding; norms, softmax and element-wise work are left out. A test compares with PyTorch's counter.

    forward of a token in a block      2 d (2 i + 2 k) + 2 m d f         i, k: query and key widths, f: feed-forward
    attention of s tokens to c others  4 i s c
    T5 cross attention                 2 d 2 i a target token, 2 d 2 i a query token, 4 i t q
    output layer                       2 d V a target token
    training                           3 x forward (the backward pass is twice the forward)
"""

import numpy as np

from workers.models.shapes import Shape


def forward_flops(shape: Shape, query: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Of one pair each, float64; `query` counts the end or mark behind it, `target` the identifier's tokens."""
    query, target = np.asarray(query, dtype=np.float64), np.asarray(target, dtype=np.float64)
    head = 2 * shape.width * shape.vocabulary * target
    if shape.family == "t5":
        encoder = _tokens(shape, query) + _attention(shape, query, query)
        decoder = _tokens(shape, target) + _attention(shape, target, target)
        return encoder + decoder + _cross(shape, query, target) + head
    sequence = query + target - 1
    return _tokens(shape, sequence) + _attention(shape, sequence, sequence) + head


def training_flops(shape: Shape, query: np.ndarray, target: np.ndarray) -> float:
    """Of one pass over the given pairs."""
    return 3 * float(forward_flops(shape, query, target).sum())


def inference_flops(shape: Shape, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Of a constrained search, a query each, float64.

    `query`: (queries,) lengths with the end or mark. `rows`: (queries, passes) beams that went through the model
    in each pass; the first pass is the encoding or prefill and gives the first token.
    """
    query, rows = np.asarray(query, dtype=np.float64), np.asarray(rows, dtype=np.float64)
    written = np.arange(rows.shape[1])
    head = 2 * shape.width * shape.vocabulary * rows.sum(axis=1)
    if shape.family == "t5":
        start = _tokens(shape, query) + _attention(shape, query, query) + 4 * _square(shape) * shape.layers * query
        steps = _tokens(shape, rows) + _attention(shape, rows, written + 1) + 4 * _square(shape) * shape.layers * rows
        return start + (steps + _attention(shape, rows, query[:, None])).sum(axis=1) + head
    prefill = _tokens(shape, query) + _attention(shape, query, query)
    later = rows[:, 1:]
    steps = _tokens(shape, later) + _attention(shape, later, query[:, None] + written[1:])
    return prefill + steps.sum(axis=1) + head


def _square(shape: Shape) -> int:
    return shape.width * shape.heads * shape.head_width


def _tokens(shape: Shape, tokens: np.ndarray) -> np.ndarray:
    kv = shape.width * (shape.kv_heads or shape.heads) * shape.head_width
    matrices = 3 if shape.gated or shape.family == "llama" else 2
    linear = 2 * (2 * _square(shape) + 2 * kv + matrices * shape.width * shape.feed_forward)
    return shape.layers * linear * tokens


def _attention(shape: Shape, tokens: np.ndarray, others: np.ndarray) -> np.ndarray:
    return shape.layers * 4 * shape.heads * shape.head_width * tokens * others


def _cross(shape: Shape, query: np.ndarray, target: np.ndarray) -> np.ndarray:
    linear = 4 * _square(shape) * shape.layers * (query + target)
    return linear + _attention(shape, target, query)
