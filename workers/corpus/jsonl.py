"""A corpus in one file with a JSON object a line: `text`, `queries`, and optionally `id` and `title`."""

from pathlib import Path
from typing import Any

from workers.corpus.documents import Corpus, Document, Query, clean, label, one_line
from workers.corpus.files import COMPRESSED, content, existing, read_objects
from workers.corpus.settings import JsonlCorpus
from workers.errors import BadInput


def name(settings: JsonlCorpus) -> str:
    """The file's name without its endings."""
    path = Path(settings.path)
    while path.suffix in (*COMPRESSED, ".jsonl", ".json", ".ndjson"):
        path = path.with_suffix("")
    return label(path.name)


def fingerprint(settings: JsonlCorpus) -> str:
    """SHA-256 of the file."""
    return content([_file(settings)])


def is_local(settings: JsonlCorpus) -> bool:
    """Always: nothing is downloaded."""
    return True


def read(settings: JsonlCorpus) -> Corpus:
    """Every line one document. A fault is an error with the file and the line number.

    A missing `id` becomes the line number. Other keys are not read.
    """
    path = _file(settings)
    documents: list[Document] = []
    queries: list[Query] = []
    lines: dict[str, int] = {}
    for number, row in read_objects(path):
        where = f"{path}:{number}"
        document = _document(row, number, where)
        if document.docid in lines:
            raise BadInput(f"{where}: id {document.docid!r} was on line {lines[document.docid]} already")
        lines[document.docid] = number
        documents.append(document)
        queries += _queries(row, document.docid, where)
    if not documents:
        raise BadInput(f"{path}: no document in it")
    return Corpus(name=name(settings), documents=tuple(documents), queries=tuple(queries))


def _file(settings: JsonlCorpus) -> Path:
    path = existing(settings.path)
    if not path.is_file():
        raise BadInput(f"corpus.path: {path} is a folder, and `source: jsonl` wants a file")
    return path


def identity(value: Any, where: str, key: str) -> str:
    """A document's or query's id as a string: a string that is not blank, or an integer."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadInput(f"{where}: `{key}` must be a string or an integer, not {type(value).__name__}")
    if not str(value).strip():
        raise BadInput(f"{where}: `{key}` is blank")
    return clean(str(value))


def string(row: dict[str, Any], key: str, where: str) -> str:
    """A string of the row, cleaned; an empty one where the key is missing or null."""
    value = row.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadInput(f"{where}: `{key}` must be a string, not {type(value).__name__}")
    return clean(value).strip()


def shown_title(title: str) -> str:
    """Titles of wiki dumps are written with underscores; they are shown with spaces."""
    return one_line(title.replace("_", " "))


def _document(row: dict[str, Any], number: int, where: str) -> Document:
    docid = identity(row["id"], where, "id") if row.get("id") is not None else str(number)
    text = string(row, "text", where)
    if not text:
        raise BadInput(f"{where}: a document with no text (`text` is missing or blank)")
    return Document(docid=docid, title=shown_title(string(row, "title", where)), text=text)


def _queries(row: dict[str, Any], docid: str, where: str) -> list[Query]:
    if "queries" not in row:
        raise BadInput(f"{where}: `queries` is missing; there are {', '.join(map(str, row))}")
    texts = row["queries"]
    if not isinstance(texts, list):
        raise BadInput(f"{where}: `queries` must be a list of strings (it may be empty)")
    found = []
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise BadInput(f"{where}: query {position + 1} must be a string, not {type(text).__name__}")
        if not one_line(text):
            raise BadInput(f"{where}: query {position + 1} is blank")
        found.append(Query(qid=f"{docid}#{position}", text=one_line(text), docids=(docid,)))
    return found
