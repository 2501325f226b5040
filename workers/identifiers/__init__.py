"""Identifiers: what a model writes to name a document. A kind is one module and one line here; modules load lazily."""

from importlib import import_module
from pathlib import Path
from typing import Any

from workers.corpus.documents import load
from workers.errors import BadInput
from workers.settings import IdentifiersJob
from workers.tokenized import TokenizedCorpus

KINDS = {"ngram": "workers.identifiers.ngram", "codebook": "workers.identifiers.codebook"}
"""Each module has `build(settings, corpus, tokenized, seed) -> IdentifierSet` and `capacity(settings, summary)`."""


def capacity(settings: Any, summary: dict[str, Any]) -> int:
    """The largest D: how many training pairs a corpus with this summary gives under these settings."""
    return import_module(KINDS[settings.kind]).capacity(settings, summary)


def prepare(job: IdentifiersJob, *, corpus: Path, tokenizer: Path, out: Path) -> None:
    """Build identifiers, index and pairs of one kind and write them to `out`.

    Raises BadInput where no training pair comes of it (every document's text is empty, say).
    """
    module = import_module(KINDS[job.identifiers.kind])
    built = module.build(job.identifiers, load(corpus), TokenizedCorpus.load(tokenizer), job.seed)
    if not len(built.train.target):
        raise BadInput(f"identifiers: {job.identifiers.kind} finds no training pair in {corpus.name}")
    built.save(out)
