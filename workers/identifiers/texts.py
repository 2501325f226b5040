"""Identifiers that are text in the tokenizer's own tokens: titles, names, pseudo-queries."""

from collections.abc import Callable, Sequence

import numpy as np

from workers.ragged import Ragged

Encode = Callable[[Sequence[str]], Ragged]
"""Texts -> their tokens, by the tokenizer that the corpus was encoded with."""


def text_rows(encode: Encode, texts: Sequence[str], max_length: int, end: int | None) -> Ragged:
    """A row a text: its first `max_length` tokens, and `end` behind them where one is given.

    `end` occurs in no text, so with it no row begins another. A text without a token is an empty row.
    """
    encoded = encode(texts)
    last = np.array([] if end is None else [end], dtype=np.int32)
    rows = (encoded[row][:max_length] for row in range(len(encoded)))
    return Ragged.of([np.concatenate([tokens, last]) if len(tokens) else tokens for tokens in rows])
