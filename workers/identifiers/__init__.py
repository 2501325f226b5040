"""Identifiers: what a model writes to name a document. A kind is one module and one line here; modules load lazily."""

from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from workers.corpus.documents import load
from workers.errors import BadInput
from workers.identifiers import query_sources
from workers.settings import IdentifiersJob, PseudoQuerySettings
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


def capacity(settings: Any, summary: dict[str, Any], corpus: Path | None = None) -> int:
    """The largest D: how many training pairs a corpus with this summary gives under these settings.

    Where the corpus's folder is given a file of pseudo-queries is read too, and the answer exact but for
    pseudo-queries of a model: documents for which it writes none give no pair.
    Raises BadInput, with the key or the file and line, where the corpus or the file lacks what identifiers of this
    kind are made of.
    """
    if corpus is not None and isinstance(settings, PseudoQuerySettings) and query_sources.is_file(settings):
        summary = {**summary, "pseudo_pairs": query_sources.pairs_of_file(settings, load(corpus))}
    return import_module(KINDS[settings.kind]).capacity(settings, summary)


def prepare(job: IdentifiersJob, *, corpus: Path, tokenizer: Path, out: Path) -> None:
    """Build identifiers, index and pairs of one kind and write them to `out`.

    Raises BadInput where no training pair comes of it (every document's text is empty, say).
    """
    from workers.tokenizer import encode  # transformers: not for the driver's `capacity`

    module = import_module(KINDS[job.identifiers.kind])
    tokenized = TokenizedCorpus.load(tokenizer)
    read = load(corpus)
    built = module.build(job.identifiers, read, tokenized, job.seed, partial(encode, tokenizer))
    if not len(built.train.target):
        raise BadInput(f"identifiers: {job.identifiers.kind} finds no training pair in {read.name}")
    built.save(out)
