"""What every identifier kind comes to: views to write in, training pairs in one seeded order, held-out identifiers."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from results.files import read_json, write_json
from workers.corpus.documents import Corpus
from workers.decoding.index import PlannedIndex, build_index
from workers.decoding.view import View
from workers.ragged import Ragged

PADDED = 2.0
"""Rows are stored by columns where these have at most so many times as many entries as the rows have tokens."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Pair i is (source tokens `sources[source[i]]`, document `document[i]`, identifier `target[i]` in `view[i]`)."""

    sources: Ragged
    source: np.ndarray
    document: np.ndarray
    target: Ragged
    view: np.ndarray
    """int8: which of the set's views the identifier is written in."""

    def __len__(self) -> int:
        return len(self.source)

    def take(self, rows: np.ndarray) -> "Pairs":
        """The given pairs in the given order."""
        return Pairs(
            sources=self.sources,
            source=self.source[rows],
            document=self.document[rows],
            target=self.target.take(rows),
            view=self.view[rows],
        )

    def save(self, folder: Path) -> None:
        """Into a folder of their own."""
        folder.mkdir(parents=True, exist_ok=True)
        self.sources.save(folder, "source")
        self.target.save(folder, "target")
        np.save(folder / "source.npy", self.source)
        np.save(folder / "document.npy", self.document)
        np.save(folder / "view.npy", self.view)

    @classmethod
    def load(cls, folder: Path) -> "Pairs":
        """Memory-mapped where large."""
        return cls(
            sources=Ragged.load(folder, "source"),
            target=Ragged.load(folder, "target"),
            source=np.load(folder / "source.npy"),
            document=np.load(folder / "document.npy"),
            view=np.load(folder / "view.npy"),
        )


@dataclass(frozen=True, kw_only=True)
class IdentifierSet:
    """The output of the identifiers step.

    A data scale D is the first D pairs of `train`, so smaller ones are nested in larger ones. `held_out` has
    the dev and test queries' identifiers, drawn exactly as the training pairs' are: its `sources` are all
    queries of the corpus, and `source` is a row of the corpus' queries table.
    """

    kind: str
    views: tuple[View, ...]
    train: Pairs
    held_out: Pairs
    vocabulary: int
    """Token ids below this may occur: the tokenizer's and the identifiers' own."""
    ranks_by: str
    """`evidence`: partial identifiers vote for documents; `identifier`: a finished identifier is one document."""
    mean_nll: bool
    """Whether CGL compares identifiers by mean NLL a token (else by its sum)."""
    token_vectors: np.ndarray | None
    """float32 (new tokens, dimensions): meaning of the identifiers' own tokens, to start embeddings from."""

    def ends(self, view: np.ndarray, end: int) -> np.ndarray:
        """The token that ends the prompt of each given view: its marker, or the model's own `end`. int64, as `view`."""
        return np.array([end if each.marker is None else each.marker for each in self.views], dtype=np.int64)[view]

    def save(self, folder: Path) -> None:
        """Arrays as .npy, the rest as `identifiers.json`."""
        for number, view in enumerate(self.views):
            view.save(folder / f"view{number}")
        self.train.save(folder / "train")
        self.held_out.save(folder / "held_out")
        if self.token_vectors is not None:
            np.save(folder / "token_vectors.npy", self.token_vectors)
        names = ("kind", "vocabulary", "ranks_by", "mean_nll")
        known = {name: getattr(self, name) for name in names}
        write_json(folder / "identifiers.json", known | {"views": len(self.views)})

    @classmethod
    def load(cls, folder: Path) -> "IdentifierSet":
        """Read a finished identifiers step."""
        vectors = folder / "token_vectors.npy"
        known = read_json(folder / "identifiers.json")
        return cls(
            views=tuple(View.load(folder / f"view{number}") for number in range(known.pop("views"))),
            train=Pairs.load(folder / "train"),
            held_out=Pairs.load(folder / "held_out"),
            token_vectors=np.load(vectors) if vectors.exists() else None,
            **known,
        )


def row_view(name: str, rows: Ragged, documents: np.ndarray, vocabulary: int, marker: int | None = None) -> View:
    """A view whose identifiers are whole rows, row i of `documents[i]`. Tokens and marker are below `vocabulary`."""
    return View(
        name=name,
        index=PlannedIndex(rows, vocabulary, "rows"),
        documents=documents.astype(np.int32),
        marker=marker,
        max_length=int(rows.lengths.max(initial=1)),
    )


def naming_view(name: str, rows: Ragged, vocabulary: int) -> View:
    """A view whose row i names document i. Rows of about one length, as codes are, are sorted: the index is smaller."""
    longest = int(rows.lengths.max(initial=0))
    if not len(rows) or not rows.lengths.all() or longest * len(rows) > PADDED * len(rows.values):
        return row_view(name, rows, np.arange(len(rows)), vocabulary)
    begins, lengths, last = rows.offsets[:-1], rows.lengths, len(rows.values) - 1
    columns = [
        np.where(lengths > depth, rows.values[np.minimum(begins + depth, last)], vocabulary).astype(np.int32)
        for depth in range(longest)
    ]
    documents = np.lexsort(columns[::-1])
    return View(
        name=name,
        index=build_index(rows.take(documents), vocabulary, "columns"),
        documents=documents.astype(np.int32),
        marker=None,
        max_length=longest,
    )


def query_documents(corpus: Corpus, held_out: bool) -> tuple[np.ndarray, np.ndarray]:
    """(query row, document row) of every relevant document of the training or of the held-out queries."""
    row_of = {document.docid: row for row, document in enumerate(corpus.documents)}
    rows = [
        (query, row_of[docid])
        for query, each in enumerate(corpus.queries)
        if (each.split != "train") == held_out
        for docid in each.docids
    ]
    table = np.array(rows, dtype=np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def seeded_order(count: int, seed: int) -> np.ndarray:
    """The one order that all data scales are prefixes of."""
    return np.random.default_rng(seed).permutation(count)
