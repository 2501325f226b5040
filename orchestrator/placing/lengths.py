"""How long a corpus's documents and queries are, and how many there are: read, or assumed where it is not read."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from orchestrator.grid import Grid

UNKNOWN_DOCUMENTS = 100_000
"""Of a corpus that is not read and whose grid does not say."""
QUERY_BYTES = 50.0
"""Of a query that is not read: a question of ten words."""
DOCUMENT_BYTES = 600.0
"""Of a document that is not read: a passage of a hundred words."""
WORD_BYTES = 6.0
"""With the space behind it."""
TOKEN_BYTES_AT_512, MORE_A_DOUBLING, LONGEST_TOKEN_BYTES = 2.26, 0.52, 4.4
"""Of a token, by the size of the vocabulary: measured with 512 and 4,096 tokens on API documentation, and English
under a vocabulary of 32,000."""


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """What estimates need to know of a corpus. Means, in bytes of UTF-8."""

    documents: int
    train_pairs: int
    held_out: Mapping[str, int] = field(default_factory=dict)
    """Split -> queries."""
    query_bytes: float = QUERY_BYTES
    document_bytes: float = DOCUMENT_BYTES
    assumed: tuple[str, ...] = ()
    """What was not read, in words."""

    def queries(self, split: str) -> int:
        """Queries that a metric is measured on."""
        return self.held_out.get(split, 0)

    def query_tokens(self, vocabulary: int) -> float:
        """Of a query, under a vocabulary of this size."""
        return max(1.0, self.query_bytes / token_bytes(vocabulary))

    def document_tokens(self, vocabulary: int) -> float:
        """Of a document."""
        return max(1.0, self.document_bytes / token_bytes(vocabulary))

    @staticmethod
    def tokens_of_words(words: int, vocabulary: int) -> float:
        """Of a span of so many words."""
        return words * max(1.0, WORD_BYTES / token_bytes(vocabulary))


def token_bytes(vocabulary: int) -> float:
    """Of a token on average."""
    return min(LONGEST_TOKEN_BYTES, TOKEN_BYTES_AT_512 + MORE_A_DOUBLING * math.log2(max(vocabulary, 512) / 512))


def read_lengths(summary: Mapping[str, Any], corpus: Path) -> Lengths:
    """Of a finished corpus step; only the ends of its files are read."""
    return Lengths(
        documents=summary["documents"],
        train_pairs=summary["train_pairs"],
        held_out=summary["queries"],
        query_bytes=_mean_bytes(corpus / "queries.parquet", QUERY_BYTES),
        document_bytes=_mean_bytes(corpus / "documents.parquet", DOCUMENT_BYTES),
    )


def assume_lengths(grid: Grid) -> Lengths:
    """Of a corpus that is not read: as many training queries as the largest D needs, and as many held out as asked."""
    corpus = grid.corpus
    documents = corpus.documents or UNKNOWN_DOCUMENTS
    said = f"{documents:,} documents" + ("" if corpus.documents else " (the grid does not say)")
    return Lengths(
        documents=documents,
        train_pairs=documents,
        held_out={"dev": corpus.dev, "test": corpus.test},
        assumed=(said, f"queries of {QUERY_BYTES:.0f} and documents of {DOCUMENT_BYTES:.0f} bytes"),
    )


def _mean_bytes(path: Path, otherwise: float) -> float:
    """Mean size of the column `text`, by what Parquet notes of it; `otherwise` where there is no such file."""
    try:
        metadata = pq.read_metadata(path)
    except OSError:
        return otherwise
    names = [metadata.schema.column(number).path for number in range(metadata.num_columns)]
    if "text" not in names or not metadata.num_rows:
        return otherwise
    column = names.index("text")
    groups = (metadata.row_group(number).column(column) for number in range(metadata.num_row_groups))
    return sum(group.total_uncompressed_size for group in groups) / metadata.num_rows
