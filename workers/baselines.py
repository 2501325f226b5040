"""What stands beside every table: a random ranking, BM25, and token embeddings without any training."""

from pathlib import Path
from typing import Any

import numpy as np

from results.files import write_json
from workers import ranking
from workers.corpus.documents import Corpus, load
from workers.embeddings import ppmi_svd
from workers.errors import BadInput
from workers.ragged import Ragged
from workers.settings import BaselinesJob, EmbeddingSettings
from workers.term_counts import term_counts
from workers.tokenized import TokenizedCorpus

DEPTH = 100
"""Documents a query in each ranking: as many as the deepest metric looks at."""
_AT_ONCE = 1 << 24
"""Scores (queries x documents) held at once."""


def prepare(job: BaselinesJob, *, corpus: Path, tokenizer: Path, out: Path) -> None:
    """The baselines step: `baselines.json`, a list with one object a baseline, with every metric and its interval.

    Baselines: `random`, `bm25`, and `embeddings-r<rank>` for each rank of the job, on the queries of
    `job.evaluation.split`. Raises `BadInput` where the corpus has none.
    """
    held = load(corpus)
    rows = np.flatnonzero([query.split == job.evaluation.split for query in held.queries])
    if not len(rows):
        raise BadInput(f"evaluation.split: corpus {held.name} has no {job.evaluation.split} query")
    texts = [held.queries[row].text for row in rows]
    found = {
        "random": random_ranking(len(rows), len(held.documents), job.evaluation.seed),
        "bm25": bm25_ranking(held.indexed_texts(), texts),
    }
    tokens = TokenizedCorpus.load(tokenizer)
    for rank in job.ranks:
        table = ppmi_svd(tokens.documents, tokens.vocabulary, rank, EmbeddingSettings().window)
        found[f"embeddings-r{rank}"] = embedding_ranking(tokens.documents, tokens.queries.take(rows), table)
    write_json(out / "baselines.json", [_row(name, held, rows, best, job) for name, best in found.items()])


def _row(name: str, corpus: Corpus, rows: np.ndarray, best: np.ndarray, job: BaselinesJob) -> dict[str, Any]:
    """`best`: int (queries, depth), the rows of the documents from best to worst."""
    queries = [corpus.queries[row] for row in rows]
    run = {
        query.qid: [(corpus.documents[document].docid, float(-rank)) for rank, document in enumerate(ranked)]
        for query, ranked in zip(queries, best, strict=True)
    }
    values = ranking.measure({query.qid: query.docids for query in queries}, run)
    metrics = ranking.summarise(values, job.evaluation.bootstrap, job.evaluation.seed)
    return {"baseline": name, "n_documents": len(corpus.documents), "n_queries": len(queries), **metrics}


def random_ranking(queries: int, documents: int, seed: int) -> np.ndarray:
    """int64 (queries, depth): for each query its own draw without replacement."""
    generator = np.random.default_rng([seed, 0])
    depth = min(DEPTH, documents)
    return np.stack([generator.choice(documents, size=depth, replace=False) for _ in range(queries)])


def bm25_ranking(documents: list[str], queries: list[str]) -> np.ndarray:
    """int64 (queries, depth), by bm25s (Lucene's variant, k1 1.5, b 0.75), English stopwords, Snowball stems."""
    import bm25s
    import Stemmer

    options = {"stopwords": "en", "stemmer": Stemmer.Stemmer("english"), "show_progress": False}
    indexed = bm25s.tokenize(documents, **options)
    if not any(len(ids) for ids in indexed.ids):  # nothing that BM25 calls a word: all documents score 0
        return np.tile(np.arange(min(DEPTH, len(documents))), (len(queries), 1))
    index = bm25s.BM25(backend="numpy")
    index.index(indexed, show_progress=False)
    asked = bm25s.tokenize(queries, return_ids=False, **options)
    depth = min(DEPTH, len(documents))
    return _top((index.get_scores(words) if words else np.zeros(len(documents)) for words in asked), depth)


def embedding_ranking(documents: Ragged, queries: Ragged, embeddings: np.ndarray) -> np.ndarray:
    """int64 (queries, depth), by the cosine of IDF-weighted sums of token embeddings, (vocabulary, rank)."""
    vocabulary = len(embeddings)
    counts = term_counts(documents, vocabulary)
    frequency = np.asarray((counts > 0).sum(axis=0)).ravel()
    weighted = np.log((len(documents) + 1) / (frequency + 1))[:, None] * embeddings
    passages = _unit(counts @ weighted)
    asked = _unit(term_counts(queries, vocabulary) @ weighted)
    size = max(1, _AT_ONCE // max(1, len(passages)))
    blocks = (asked[start : start + size] @ passages.T for start in range(0, len(asked), size))
    return _top((scores for block in blocks for scores in block), min(DEPTH, len(passages)))


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


def _top(rows: Any, depth: int) -> np.ndarray:
    """Positions of the `depth` largest values of each row, the largest first; the first of equal ones wins."""
    return np.stack([np.argsort(-scores, kind="stable")[:depth] for scores in rows])
