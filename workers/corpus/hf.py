"""Any Hugging Face dataset as a corpus: from the hub, saved with `save_to_disk`, or a folder of data files.

A row is a (query, text) pair or a text with a list of queries; rows of the same document are put together.
"""

import re
from pathlib import Path
from typing import Any

from workers.corpus.documents import Corpus, Document, Query, label, one_line
from workers.corpus.files import content
from workers.corpus.jsonl import identity, shown_title, string
from workers.corpus.settings import HfCorpus
from workers.errors import BadInput

_HUB_NAME = re.compile(r"^[\w-][\w.-]*(/[\w-][\w.-]*)?$")


def name(settings: HfCorpus) -> str:
    """The last part of the path, and the subset."""
    last = settings.path.rstrip("/").split("/")[-1]
    return label(f"{last}-{settings.subset}" if settings.subset else last)


def is_local(settings: HfCorpus) -> bool:
    """Whether the path is there on this machine; a hub name else. A path that is neither is an error."""
    if Path(settings.path).exists():
        return True
    if not _HUB_NAME.match(settings.path):
        raise BadInput(f"corpus.path: {settings.path} does not exist")
    return False


def fingerprint(settings: HfCorpus) -> str:
    """SHA-256 of a local folder's files; of a hub dataset its name and revision only."""
    if is_local(settings):
        return content(path for path in _folder(settings).rglob("*") if path.is_file() and path.name[0] != ".")
    return f"hub:{settings.path}@{settings.revision or 'main'}"


def read(settings: HfCorpus) -> Corpus:
    """One document an id (or a distinct text where no id column is named), with the queries of all its rows.

    Every query takes part in the seeded split: `settings.split` says which rows are read.
    """
    dataset = _load(settings)
    columns = settings.columns
    wanted = [column for column in (columns.text, columns.query, columns.title, columns.id) if column]
    for column in wanted:
        if column not in dataset.column_names:
            there = ", ".join(sorted(dataset.column_names))
            raise BadInput(f"corpus.columns: {settings.path} has no column {column!r}; there are: {there}")
    documents: dict[str, Document] = {}
    queries: list[Query] = []
    for number, row in enumerate(dataset.select_columns(wanted)):
        where = f"{settings.path}: row {number}"
        text = string(row, columns.text, where)
        if not text:
            raise BadInput(f"{where}: a document with no text (column {columns.text!r} is blank)")
        key = identity(row[columns.id], where, columns.id) if columns.id else text
        if key not in documents:
            title = shown_title(string(row, columns.title, where)) if columns.title else ""
            documents[key] = Document(docid=key if columns.id else str(number), title=title, text=text)
        elif documents[key].text != text:
            raise BadInput(f"{where}: id {key!r} stood in an earlier row with another text")
        for position, query in enumerate(_queries(row[columns.query], where, columns.query)):
            queries.append(Query(qid=f"{number}#{position}", text=query, docids=(documents[key].docid,)))
    if not documents:
        raise BadInput(f"corpus.split: {settings.split} of {settings.path} has no row")
    return Corpus(name=name(settings), documents=tuple(documents.values()), queries=tuple(queries))


def _queries(value: Any, where: str, column: str) -> list[str]:
    """One string or a list of them; null for a document without a query."""
    texts = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise BadInput(f"{where}: column {column!r} must hold a string or a list of strings")
    lines = [one_line(text) for text in texts]
    if not all(lines):
        raise BadInput(f"{where}: a blank query in column {column!r}")
    return lines


def _folder(settings: HfCorpus) -> Path:
    folder = Path(settings.path)
    if not folder.is_dir():
        raise BadInput(f"corpus.path: {folder} is a file; `source: hf` wants a folder of data files or a hub name")
    return folder


def _load(settings: HfCorpus) -> Any:
    """The rows that are asked for. Whatever `datasets` cannot do with the path is the user's to mend."""
    import datasets
    import httpx

    local = is_local(settings)
    datasets.disable_progress_bars()
    try:
        if local and any((_folder(settings) / file).is_file() for file in ("state.json", "dataset_dict.json")):
            return _saved(settings)
        return datasets.load_dataset(
            settings.path, settings.subset, split=settings.split, revision=None if local else settings.revision
        )
    except BadInput:
        raise
    except (OSError, ValueError, httpx.HTTPError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        origin = "folder" if local else "hub dataset"
        raise BadInput(
            f"corpus.path: {origin} {settings.path!r}, split {settings.split!r}, cannot be loaded: {reason}"
        ) from error
    finally:
        datasets.enable_progress_bars()


def _saved(settings: HfCorpus) -> Any:
    """A folder written by `save_to_disk`; of several splits those named, joined by `+`."""
    import datasets

    saved = datasets.load_from_disk(settings.path)
    if isinstance(saved, datasets.Dataset):
        return saved
    names = [part.strip() for part in settings.split.split("+")]
    for wanted in names:
        if wanted not in saved:
            raise BadInput(f"corpus.split: {settings.path} has no split {wanted!r}; there are: {', '.join(saved)}")
    return datasets.concatenate_datasets([saved[wanted] for wanted in names])
