"""Corpora by their `source`, each read lazily by a module of its own: what documents and queries there are.

A source module has `name(settings)`, `fingerprint(settings)`, `is_local(settings)` and `read(settings)`; the last
gives every document and query that there is, and this module keeps the subset and holds queries out.
"""

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from workers.corpus.settings import BeirCorpus, HfCorpus, JsonlCorpus, PydocsCorpus

AnyCorpus = PydocsCorpus | JsonlCorpus | BeirCorpus | HfCorpus

SOURCES = {
    "pydocs": "workers.corpus.pydocs",
    "jsonl": "workers.corpus.jsonl",
    "beir": "workers.corpus.beir",
    "hf": "workers.corpus.hf",
}
"""The module of each `source`."""


def _module(settings: AnyCorpus) -> Any:
    return import_module(SOURCES[settings.source])


def name(settings: AnyCorpus) -> str:
    """What the corpus is called in results: `settings.name`, or the source's own name."""
    return settings.name or str(_module(settings).name(settings))


def is_local(settings: AnyCorpus) -> bool:
    """False where reading the corpus may need the network."""
    return bool(_module(settings).is_local(settings))


def fingerprint(settings: AnyCorpus) -> str:
    """Changes when the content behind the settings does: the hash of local files, or versions of packages.

    A hub dataset is known by its name and revision only. Raises `BadInput` where a local path is missing.
    """
    return str(_module(settings).fingerprint(settings))


def read(settings: AnyCorpus) -> Any:
    """The `workers.corpus.documents.Corpus` that the settings describe: subset kept, queries held out.

    Raises `BadInput` for anything that the user gave and that cannot be used.
    """
    from workers.corpus.split import hold_out, subset

    corpus = replace(_module(settings).read(settings), name=name(settings), title_in_text=settings.title_in_text)
    return hold_out(subset(corpus, settings.documents, settings.seed), settings)


def prepare(settings: AnyCorpus, *, out: Path) -> None:
    """The corpus step: write `documents.parquet`, `queries.parquet` and `summary.json` into the folder."""
    from workers.corpus.documents import write

    write(read(settings), out)
