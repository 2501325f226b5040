"""Titles as identifiers (GENRE, De Cao et al. 2021): the title's tokens and the tokenizer's end.

Documents that share a title share the identifier. One without a title has none and is never found.
"""

from typing import Any

from workers.corpus.documents import Corpus
from workers.errors import BadInput
from workers.identifiers import single
from workers.identifiers.sets import IdentifierSet
from workers.identifiers.texts import Encode, text_rows
from workers.settings import MultiviewIdentifiers, TitleIdentifiers
from workers.tokenized import TokenizedCorpus


def capacity(settings: TitleIdentifiers, summary: dict[str, Any]) -> int:
    """Training queries, and random spans, of the documents with a title. Raises BadInput where there is none."""
    titled = titled_counts(settings, summary)
    return single.capacity(settings, titled["train_pairs"], titled["documents"])


def titled_counts(settings: TitleIdentifiers | MultiviewIdentifiers, summary: dict[str, Any]) -> dict[str, int]:
    """How many documents with a title there are, and training pairs of them. Raises BadInput where there is none."""
    titled: dict[str, int] = summary["titled"]
    if not titled["documents"]:
        raise _no_titles(settings, summary["name"])
    return titled


def build(
    settings: TitleIdentifiers, corpus: Corpus, tokenized: TokenizedCorpus, seed: int, encode: Encode
) -> IdentifierSet:
    """A row a document, and (query or span, title) pairs. Raises BadInput where no document has a title."""
    titles = text_rows(encode, titles_of(settings, corpus), settings.max_length, tokenized.end)
    return single.identifier_set(
        settings, corpus, tokenized, seed, titles, view="title", vocabulary=tokenized.vocabulary, mean_nll=True
    )


def titles_of(settings: TitleIdentifiers | MultiviewIdentifiers, corpus: Corpus) -> list[str]:
    """The title of every document, empty where it has none. Raises BadInput where no document has one."""
    titles = [document.title for document in corpus.documents]
    if not any(titles):
        raise _no_titles(settings, corpus.name)
    return titles


def _no_titles(settings: TitleIdentifiers | MultiviewIdentifiers, corpus: str) -> BadInput:
    return BadInput(f"identifiers.kind: {settings.kind} needs titles, and no document of {corpus} has one")
