"""Identifiers: what a model writes to name a document. A kind is one module and one line here; modules load lazily."""

from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from workers.corpus.documents import load
from workers.errors import BadInput
from workers.settings import IdentifiersJob
from workers.tokenized import TokenizedCorpus

KINDS = {
    "ngram": "workers.identifiers.ngram",
    "codebook": "workers.identifiers.codebook",
    "hierarchical": "workers.identifiers.hierarchical",
    "title": "workers.identifiers.title",
    "name": "workers.identifiers.name",
    "pseudo_query": "workers.identifiers.pseudo_query",
    "multiview": "workers.identifiers.multiview",
}
"""Each module has `build(settings, corpus, tokenized, seed, encode) -> IdentifierSet` and `capacity(settings,
summary)`. The driver asks for `capacity`, so what takes long to import is imported within `build`."""


def capacity(settings: Any, summary: dict[str, Any]) -> int:
    """The largest D: how many training pairs a corpus with this summary gives under these settings.

    Exact, but for pseudo-queries of a file or a model: documents for which there are none give no pair.
    Raises BadInput where the corpus lacks what identifiers of this kind are made of.
    """
    return import_module(KINDS[settings.kind]).capacity(settings, summary)


def prepare(job: IdentifiersJob, *, corpus: Path, tokenizer: Path, out: Path) -> None:
    """Build identifiers, index and pairs of one kind and write them to `out`.

    Raises BadInput where no training pair comes of it (every document's text is empty, say).
    """
    from workers.tokenizer import encode  # transformers: not for the driver's `capacity`

    module = import_module(KINDS[job.identifiers.kind])
    tokenized = TokenizedCorpus.load(tokenizer)
    built = module.build(job.identifiers, load(corpus), tokenized, job.seed, partial(encode, tokenizer))
    if not len(built.train.target):
        raise BadInput(f"identifiers: {job.identifiers.kind} finds no training pair in {corpus.name}")
    built.save(out)
