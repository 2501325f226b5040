"""The tokenised corpus: what the tokenizer step leaves for all later steps. Reading it needs no tokenizer."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from results.files import read_json, write_json
from workers.ragged import Ragged


@dataclass(frozen=True, kw_only=True)
class TokenizedCorpus:
    """Row i of `documents` and of `queries` is row i of the corpus' tables."""

    documents: Ragged
    queries: Ragged
    word_starts: np.ndarray
    """bool, one a document token: whether a word begins here."""
    vocabulary: int
    pad: int
    end: int
    """Behind a query of an encoder-decoder model."""
    mark: int
    """Between query and identifier of a decoder-only model."""

    def save(self, folder: Path) -> None:
        """Arrays as .npy, the rest as `tokens.json`."""
        self.documents.save(folder, "documents")
        self.queries.save(folder, "queries")
        np.save(folder / "word_starts.npy", self.word_starts)
        names = ("vocabulary", "pad", "end", "mark")
        write_json(folder / "tokens.json", {name: getattr(self, name) for name in names})

    @classmethod
    def load(cls, folder: Path) -> "TokenizedCorpus":
        """Read a finished tokenizer step; token arrays are memory-mapped."""
        return cls(
            documents=Ragged.load(folder, "documents"),
            queries=Ragged.load(folder, "queries"),
            word_starts=np.load(folder / "word_starts.npy", mmap_mode="r"),
            **read_json(folder / "tokens.json"),
        )
