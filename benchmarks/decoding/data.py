"""What decoding is measured on: seeded Zipf text, natural text from a file, and a session without a model."""

from collections.abc import Iterator
from pathlib import Path

import numba
import numpy as np
import torch

from benchmarks.rows import Options, Skipped
from workers.corpus.files import read_objects
from workers.decoding.index import Index, build_index
from workers.ragged import Ragged
from workers.settings import TokenizerSettings
from workers.tokenizer import train

VOCABULARY = 32_128
"""T5's."""
SEED = 17
RECORDED = "elsewhere, 2 CPU cores"
"""Where SEAL's figures, for its FM-index (C++) over 10 M Zipf tokens, were measured. They are never run here."""
NOISE = 3.0
"""Standard deviation of random logits; peaked about as much as a trained model's."""


def zipf_rows(tokens: int, vocabulary: int) -> Ragged:
    """Documents of 100 to 200 tokens, drawn by Zipf's law with exponent 1, about `tokens` in all.

    Half of all tokens are followed by a fixed successor, itself drawn by Zipf's law, so that long n-grams
    repeat as they do in text.
    """
    rng = np.random.default_rng(SEED)
    cumulative = np.cumsum(1 / np.arange(1, vocabulary + 1))
    names = rng.permutation(vocabulary)

    def drawn(count: int) -> np.ndarray:
        return names[np.searchsorted(cumulative, rng.random(count) * cumulative[-1])].astype(np.int32)

    values = _followed(drawn(tokens), drawn(vocabulary), rng.random(tokens) < 0.5)
    ends = np.cumsum(rng.integers(100, 201, size=tokens // 100))
    return Ragged(values=values, offsets=np.concatenate([[0], ends[ends < tokens], [tokens]]).astype(np.int64))


@numba.njit(cache=True)
def _followed(tokens: np.ndarray, successor: np.ndarray, follows: np.ndarray) -> np.ndarray:
    for at in range(1, len(tokens)):
        if follows[at]:
            tokens[at] = successor[tokens[at - 1]]
    return tokens


def corpora(options: Options) -> Iterator[tuple[str, Index] | Skipped]:
    """(name, index of all suffixes) of each text: Zipf at two sizes, and the given file."""
    vocabulary = 2_048 if options.quick else VOCABULARY
    for millions in (0.05,) if options.quick else (1, 10):
        tokens = int(millions * 1e6)
        yield f"Zipf {millions:g} M", build_index(zipf_rows(tokens, vocabulary), vocabulary, "suffixes")
    if options.squad is None:
        yield Skipped(name="natural text", why="not given (--squad FILE)")
    else:
        rows = text_rows(options.squad, vocabulary)
        yield (
            f"{options.squad.stem.split('.')[0]} {len(rows.values) / 1e6:.1f} M",
            build_index(rows, vocabulary, "suffixes"),
        )


def text_rows(path: Path, vocabulary: int) -> Ragged:
    """The `text` of each line, with a byte-level BPE trained on it."""
    texts = [row["text"] for _, row in read_objects(path)]
    tokenizer = train(TokenizerSettings(vocabulary=vocabulary), texts)
    return Ragged.of(tokenizer(texts, add_special_tokens=False)["input_ids"])


def random_log_probs(rows: int, vocabulary: int, rng: np.random.Generator) -> np.ndarray:
    """float32 (rows, vocabulary), each row a distribution of its own."""
    noise = torch.from_numpy(rng.standard_normal((rows, vocabulary), dtype=np.float32))
    return torch.log_softmax(NOISE * noise, dim=-1).numpy()


class PrecomputedSession:
    """A session whose log-probabilities were drawn beforehand: row i of a step is that of its i-th beam."""

    def __init__(self, beams: int, steps: int, vocabulary: int) -> None:
        rng = np.random.default_rng(SEED)
        drawn = [random_log_probs(beams if step else 1, vocabulary, rng) for step in range(steps)]
        self.steps = [torch.from_numpy(each) for each in drawn]
        self.first = self.steps[0]
        self.done = 0

    def advance(self, parents: torch.Tensor, tokens: torch.Tensor, each: int | None = None) -> torch.Tensor:
        """float32 (rows, vocabulary), whatever the rows continue."""
        self.done += 1
        return self.steps[self.done][: len(parents)]

    def restart(self) -> None:
        """Back to the first step."""
        self.done = 0
