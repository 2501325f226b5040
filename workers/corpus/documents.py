"""A corpus: documents, queries with their relevant documents and split, and the files of the corpus step."""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from results.files import read_json, write_json

SPLITS = ("train", "dev", "test")

_DOCUMENTS = pa.schema([("docid", pa.string()), ("title", pa.string()), ("text", pa.string())])
_QUERIES = pa.schema(
    [("qid", pa.string()), ("text", pa.string()), ("split", pa.string()), ("docids", pa.list_(pa.string()))]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """What is retrieved. `title` may be empty, `text` may not."""

    docid: str
    title: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """A query and its relevant documents. `split` is empty until one is given (see `workers.corpus.split`)."""

    qid: str
    text: str
    split: str = ""
    docids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Documents in the order of their ids; queries in the order of their source."""

    name: str
    documents: tuple[Document, ...]
    queries: tuple[Query, ...]
    title_in_text: bool = True
    """Whether documents are indexed with their title."""

    def indexed_texts(self) -> list[str]:
        """The indexed text of every document."""
        return [indexed_text(document, self.title_in_text) for document in self.documents]

    def split(self, name: str) -> tuple[Query, ...]:
        """The queries of one split."""
        return tuple(query for query in self.queries if query.split == name)


def indexed_text(document: Document, title_in_text: bool) -> str:
    """The text that is indexed and that identifiers are taken from: the title in front where it is asked for."""
    return f"{document.title} {document.text}" if title_in_text and document.title else document.text


def clean(text: str) -> str:
    """The text as UTF-8 can hold it: surrogate pairs joined, lone surrogates replaced by U+FFFD."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def one_line(text: str) -> str:
    """Cleaned, with every run of whitespace made one space: how titles and queries are stored."""
    return " ".join(clean(text).split())


def normalise(text: str) -> str:
    """The form in which two texts are compared: case folded, whitespace collapsed."""
    return " ".join(text.casefold().split())


def label(source_name: str) -> str:
    """A name that may stand in a path and in a table: other characters become `-`."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", source_name).strip("-._")[:80] or "corpus"


def content_hash(corpus: Corpus) -> str:
    """SHA-256 over documents and queries with their splits; the order they stand in does not matter."""
    digest = hashlib.sha256()
    for rows in (
        ([d.docid, d.title, d.text] for d in corpus.documents),
        ([q.qid, q.text, q.split, *sorted(q.docids)] for q in corpus.queries),
    ):
        _add_rows(digest, rows)
    return digest.hexdigest()


def _add_rows(digest: "hashlib._Hash", rows: Iterable[list[str]]) -> None:
    for line in sorted(json.dumps(row, ensure_ascii=False) for row in rows):
        digest.update(line.encode("utf-8") + b"\n")
    digest.update(b"\n")


def summary(corpus: Corpus) -> dict[str, Any]:
    """What the other steps and the dry run need to know of a corpus without reading it."""
    titled = {document.docid for document in corpus.documents if document.title}
    relevant = [docid for query in corpus.split("train") for docid in query.docids]
    return {
        "name": corpus.name,
        "hash": content_hash(corpus),
        "title_in_text": corpus.title_in_text,
        "documents": len(corpus.documents),
        "queries": {name: len(corpus.split(name)) for name in SPLITS},
        "train_pairs": len(relevant),
        "titled": {"documents": len(titled), "train_pairs": sum(docid in titled for docid in relevant)},
    }


def write(corpus: Corpus, folder: Path) -> None:
    """Write `documents.parquet`, `queries.parquet` and `summary.json` into a folder that exists."""
    documents = [{"docid": d.docid, "title": d.title, "text": d.text} for d in corpus.documents]
    queries = [{"qid": q.qid, "text": q.text, "split": q.split, "docids": list(q.docids)} for q in corpus.queries]
    pq.write_table(pa.Table.from_pylist(documents, schema=_DOCUMENTS), folder / "documents.parquet")
    pq.write_table(pa.Table.from_pylist(queries, schema=_QUERIES), folder / "queries.parquet")
    write_json(folder / "summary.json", summary(corpus))


def load(folder: Path) -> Corpus:
    """What `write` wrote."""
    documents = pq.read_table(folder / "documents.parquet", schema=_DOCUMENTS).to_pylist()
    queries = pq.read_table(folder / "queries.parquet", schema=_QUERIES).to_pylist()
    known = read_json(folder / "summary.json")
    return Corpus(
        name=known["name"],
        title_in_text=known["title_in_text"],
        documents=tuple(Document(**row) for row in documents),
        queries=tuple(Query(**{**row, "docids": tuple(row["docids"])}) for row in queries),
    )


def query_splits(folder: Path) -> list[str]:
    """The split of every query that `write` wrote, in the order of the queries table, without reading the texts."""
    splits: list[str] = pq.read_table(folder / "queries.parquet", columns=["split"])["split"].to_pylist()
    return splits
