"""What a beam search may write: an index, and the documents that its rows belong to."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from results.files import read_json, write_json
from workers.decoding.index import Index


@dataclass(frozen=True, kw_only=True)
class View:
    """One kind of text or code that a document may be named by, with the index that constrains it."""

    name: str
    index: Index
    documents: np.ndarray
    """int32 (rows of the index,): the document that each row names or belongs to."""
    marker: int | None
    """The token that ends a prompt which asks for this view; None where the model's own end does."""
    max_length: int
    """Longest identifier in tokens."""

    @cached_property
    def most_rows(self) -> int:
        """Rows of the document that has the most."""
        return int(np.unique(self.documents, return_counts=True)[1].max(initial=0))

    def save(self, folder: Path) -> None:
        """The index in a folder, the rest beside it."""
        folder.mkdir(parents=True, exist_ok=True)
        self.index.save(folder / "index")
        np.save(folder / "documents.npy", self.documents)
        write_json(folder / "view.json", {name: getattr(self, name) for name in ("name", "marker", "max_length")})

    @classmethod
    def load(cls, folder: Path) -> "View":
        """Memory-mapped where large."""
        return cls(
            index=Index.load(folder / "index"),
            documents=np.load(folder / "documents.npy", mmap_mode="r").view(np.ndarray),
            **read_json(folder / "view.json"),
        )
