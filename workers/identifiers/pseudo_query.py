"""Pseudo-queries as identifiers: queries that the document answers, each with the tokenizer's end behind it.

A document has as many identifiers as it has pseudo-queries; one that has none is never found. Documents that share
a pseudo-query share that identifier. A training query is paired with those of its document that are most like it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from workers.corpus.documents import Corpus
from workers.errors import BadInput
from workers.identifiers.ngram import inverse_document_frequency
from workers.identifiers.query_sources import pseudo_queries
from workers.identifiers.sets import IdentifierSet, Pairs, query_documents, row_view, seeded_order
from workers.identifiers.texts import Encode, text_rows
from workers.ragged import Ragged
from workers.settings import MultiviewIdentifiers, PseudoQueryIdentifiers
from workers.tokenized import TokenizedCorpus


@dataclass(frozen=True, kw_only=True)
class PseudoQueries:
    """Rows in the order of documents; a document has no two equal ones."""

    rows: Ragged
    documents: np.ndarray
    """int32 (rows,), ascending: whose each is."""
    ended: bool
    """Whether the last token of a row is the tokenizer's end."""
    max_length: int
    """Tokens after which a pseudo-query was cut, without the end."""


def capacity(settings: PseudoQueryIdentifiers, summary: dict[str, Any]) -> int:
    """`per_query` pairs a training query and document, those of a document with few being repeated.

    Exact where `queries` is `train`, and where it is a file that has been read; documents that a model writes nothing
    for give no pair. Raises BadInput where a file has no pseudo-query of a document that is trained on.
    """
    pairs = answered_pairs(summary)
    if not pairs:
        raise BadInput("identifiers.queries: no document with a training query has a pseudo-query that may be used")
    return pairs * settings.per_query


def answered_pairs(summary: dict[str, Any]) -> int:
    """Training pairs of a query and a document with a pseudo-query, as far as is known."""
    return int(summary.get("pseudo_pairs", summary["train_pairs"]))


def build(
    settings: PseudoQueryIdentifiers, corpus: Corpus, tokenized: TokenizedCorpus, seed: int, encode: Encode
) -> IdentifierSet:
    """A row a (document, pseudo-query), and (query, pseudo-query) pairs."""
    named = encoded(settings, corpus, encode, tokenized.end, seed)
    idf = inverse_document_frequency(tokenized.documents, tokenized.vocabulary)
    rng = np.random.default_rng([seed, 3])
    count, temperature = settings.per_query, settings.temperature
    train = overlap_pairs(named, corpus, tokenized, idf, count, temperature, rng, held_out=False)
    return IdentifierSet(
        kind=settings.kind,
        views=(row_view("query", named.rows, named.documents, tokenized.vocabulary),),
        train=train.take(seeded_order(len(train), seed)),
        held_out=overlap_pairs(named, corpus, tokenized, idf, count, temperature, rng, held_out=True),
        vocabulary=tokenized.vocabulary,
        ranks_by="identifier",
        mean_nll=True,
        token_vectors=None,
    )


def encoded(
    settings: PseudoQueryIdentifiers | MultiviewIdentifiers,
    corpus: Corpus,
    encode: Encode,
    end: int | None,
    seed: int,
) -> PseudoQueries:
    """The pseudo-queries of all documents, cut to `max_length` tokens, with `end` behind each where one is given."""
    texts = pseudo_queries(settings, corpus, seed)
    owners = np.repeat(np.arange(len(texts)), [len(each) for each in texts])
    rows = text_rows(encode, [text for each in texts for text in each], settings.max_length, end)
    first: dict[tuple[int, bytes], int] = {}
    for row, owner in enumerate(owners.tolist()):
        if len(rows[row]):
            first.setdefault((owner, rows[row].tobytes()), row)
    kept = np.array(list(first.values()), dtype=np.int64)
    return PseudoQueries(
        rows=rows.take(kept),
        documents=owners[kept].astype(np.int32),
        ended=end is not None,
        max_length=settings.max_length,
    )


def overlap_pairs(
    named: PseudoQueries,
    corpus: Corpus,
    tokenized: TokenizedCorpus,
    idf: np.ndarray,
    count: int,
    temperature: float,
    rng: np.random.Generator,
    held_out: bool,
) -> Pairs:
    """`count` pseudo-queries of every document relevant to a training (or held-out) query, as of view 0."""
    queries, documents = query_documents(corpus, held_out)
    first = np.searchsorted(named.documents, documents, side="left")
    last = np.searchsorted(named.documents, documents, side="right")
    usable = last > first
    queries, documents = queries[usable], documents[usable]
    targets = [
        pick(named, np.arange(begin, behind), tokenized.queries[query], idf, count, temperature, rng)
        for begin, behind, query in zip(first[usable], last[usable], queries, strict=True)
    ]
    return Pairs(
        sources=tokenized.queries,
        source=np.repeat(queries, count),
        document=np.repeat(documents, count),
        target=named.rows.take(np.concatenate([np.empty(0, dtype=np.int64), *targets])),
        view=np.zeros(len(queries) * count, dtype=np.int8),
    )


def pick(
    named: PseudoQueries,
    rows: np.ndarray,
    query: np.ndarray,
    idf: np.ndarray,
    count: int,
    temperature: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """`count` of the rows, by Gumbel top-k of the IDF of the tokens shared with the query; too few are repeated.

    One that reads as the query itself only where there is no other: to copy the query is no knowledge of the document.
    """
    texts = [named.rows[row][: -1 if named.ended else None] for row in rows]
    itself = query[: named.max_length]
    others = [place for place, text in enumerate(texts) if not np.array_equal(text, itself)]
    kept = np.array(others or range(len(rows)), dtype=np.int64)
    overlap = np.array([idf[texts[place][np.isin(texts[place], query)]].sum() for place in kept])
    noisy = overlap / temperature + rng.gumbel(size=len(kept))
    return np.resize(rows[kept[np.argsort(-noisy)[:count]]], count)
