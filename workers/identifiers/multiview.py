"""Several views of a document at once (MINDER, Li et al. 2023): spans of its text, its title, its pseudo-queries.

Each view has an index and a marker, a new token that ends the prompt and says what is to be written. What is written
in any view, in part too, is evidence for the documents that hold it.
"""

from typing import Any

import numpy as np

from workers.corpus.documents import Corpus
from workers.identifiers import ngram, pseudo_query
from workers.identifiers.sets import IdentifierSet, Pairs, query_documents, row_view, seeded_order
from workers.identifiers.texts import Encode, text_rows
from workers.identifiers.title import titled_counts, titles_of
from workers.ragged import Ragged
from workers.settings import MultiviewIdentifiers
from workers.tokenized import TokenizedCorpus


def capacity(settings: MultiviewIdentifiers, summary: dict[str, Any]) -> int:
    """What a training query gives in each view; of pseudo-queries see `workers.identifiers.pseudo_query.capacity`.

    Raises BadInput where no document has a title.
    """
    titled = titled_counts(settings, summary)["train_pairs"] * settings.titles_per_query
    pseudo = pseudo_query.answered_pairs(summary) * settings.pseudo_per_query
    return summary["train_pairs"] * settings.per_query + pseudo + titled


def build(
    settings: MultiviewIdentifiers, corpus: Corpus, tokenized: TokenizedCorpus, seed: int, encode: Encode
) -> IdentifierSet:
    """The views `body`, `title` and `query`, in this order, and pairs in all three.

    Titles and pseudo-queries have no end behind them: the beginning of one is evidence, as a span is.
    """
    first = tokenized.vocabulary  # markers come behind the tokenizer's tokens, one a view
    vocabulary = first + len(settings.VIEWS)
    titles = text_rows(encode, titles_of(settings, corpus), settings.max_length, end=None)
    named = pseudo_query.encoded(settings, corpus, encode, None, seed)
    idf = ngram.inverse_document_frequency(tokenized.documents, tokenized.vocabulary)
    rng = np.random.default_rng([seed, 4])

    def pairs(held_out: bool) -> Pairs:
        count, temperature = settings.pseudo_per_query, settings.temperature
        return _all_views(
            ngram.span_pairs(settings, corpus, tokenized, idf, rng, held_out),
            _title_pairs(titles, corpus, tokenized, settings.titles_per_query, held_out),
            pseudo_query.overlap_pairs(named, corpus, tokenized, idf, count, temperature, rng, held_out),
        )

    train = pairs(held_out=False)
    return IdentifierSet(
        kind=settings.kind,
        views=(
            ngram.body_view(settings, tokenized, vocabulary, marker=first),
            row_view("title", titles, np.arange(len(titles)), vocabulary, marker=first + 1),
            row_view("query", named.rows, named.documents, vocabulary, marker=first + 2),
        ),
        train=train.take(seeded_order(len(train), seed)),
        held_out=pairs(held_out=True),
        vocabulary=vocabulary,
        ranks_by="evidence",
        mean_nll=True,
        token_vectors=None,
    )


def _title_pairs(titles: Ragged, corpus: Corpus, tokenized: TokenizedCorpus, count: int, held_out: bool) -> Pairs:
    queries, documents = query_documents(corpus, held_out)
    usable = titles.lengths[documents] > 0
    queries, documents = np.repeat(queries[usable], count), np.repeat(documents[usable], count)
    return Pairs(
        sources=tokenized.queries,
        source=queries,
        document=documents,
        target=titles.take(documents),
        view=np.zeros(len(queries), dtype=np.int8),
    )


def _all_views(*views: Pairs) -> Pairs:
    """The pairs of all views, each with the number of its own. They share their sources."""
    return Pairs(
        sources=views[0].sources,
        source=np.concatenate([pairs.source for pairs in views]),
        document=np.concatenate([pairs.document for pairs in views]),
        target=Ragged.joined([pairs.target for pairs in views]),
        view=np.repeat(np.arange(len(views), dtype=np.int8), [len(pairs) for pairs in views]),
    )
