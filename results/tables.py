"""Rows of the Parquet tables that `results.schema` describes, into a results folder and out of it."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from results.errors import TornFile
from results.store import Store

PARQUET = ".parquet"
AT_ONCE = 16
"""Parts read at the same time: from an object store each takes a while, and next to nothing of this machine."""


def write_rows(store: Store, name: str, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    """One Parquet part. A row may leave columns out (null); a column that the schema lacks is an error."""
    unknown = {column for row in rows for column in row} - set(schema.names)
    if unknown:
        raise KeyError(f"columns {sorted(unknown)} are not in the schema of {name}")
    store.write_table(name, pa.Table.from_pylist(rows, schema=schema))


def parts(store: Store, folder: str) -> list[str]:
    """Names of the Parquet parts in a folder, sorted."""
    found = (name for name in store.listing(folder) if name.endswith(PARQUET) and not name.startswith("."))
    return [f"{folder}/{name}" for name in found]


def read_rows(store: Store, folder: str, schema: pa.Schema) -> pa.Table:
    """All parts in a folder as one table in file order; empty where there is none."""
    return read_parts(store, parts(store, folder), schema)


def read_parts(store: Store, names: Iterable[str], schema: pa.Schema) -> pa.Table:
    """Some parts as one table, in the order given; columns that a part lacks are null.

    Raises:
        FileNotFoundError: a part is not there.
        TornFile: it is not whole, or its columns are of other types.
    """
    names = list(names)
    found = zip(names, read_each(store, names), strict=True)
    tables = [fitted(table, schema, store.shown(name)) for name, table in found]
    return pa.concat_tables(tables) if tables else schema.empty_table()


def read_each(store: Store, names: Sequence[str]) -> list[pa.Table]:
    """Some parts with their own columns, several at a time. Raises FileNotFoundError or TornFile."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(store.read_table, names))


def fitted(table: pa.Table, schema: pa.Schema, name: str) -> pa.Table:
    """The table with exactly the schema's columns; those that it lacks are null."""
    if table.schema.equals(schema):
        return table.replace_schema_metadata()
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.nulls(len(table), field.type))
            continue
        try:
            columns.append(table.column(field.name).cast(field.type))
        except pa.ArrowException as error:
            raise TornFile(f"{name}: column {field.name!r} is no {field.type} ({error})") from None
    return pa.table(columns, schema=schema.remove_metadata())
