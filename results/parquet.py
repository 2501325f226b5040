"""Parquet files as bytes, which is how every kind of store keeps them."""

import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq


def to_bytes(table: pa.Table) -> bytes:
    """The file of a table."""
    content = io.BytesIO()
    pq.write_table(table, content)
    return content.getvalue()


def from_bytes(content: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """The table of a file, or some columns of it. Raises OSError or pyarrow.ArrowException where it is not whole.

    Read in this thread alone: one of Arrow's own may hold on to the bytes until after the interpreter has ended, and
    the process aborts when it lets go of them.
    """
    return pq.ParquetFile(pa.BufferReader(content)).read(columns=columns, use_threads=False)
