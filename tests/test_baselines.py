"""The baselines: BM25 finds documents by their words, embeddings do too, a random ranking is random."""

import json
from pathlib import Path

import numpy as np
import pytest

from results.schema import BASELINES
from workers import baselines, tokenizer
from workers.corpus.documents import Corpus, Document, Query, write
from workers.errors import BadInput
from workers.ragged import Ragged
from workers.settings import BaselinesJob, EvaluationSettings, TokenizerJob, TokenizerSettings

TOPICS = ["river water boat fishing harbour", "planet orbit star telescope comet", "bread flour oven yeast dough"]


def steps(folder: Path) -> tuple[Path, Path]:
    """A corpus of three topics with a word of its own in each document, and its tokenizer step."""
    generator = np.random.default_rng(0)
    documents, queries = [], []
    for number in range(60):
        words = [*generator.choice(TOPICS[number % 3].split(), size=12), f"zq{number}k"]
        documents.append(Document(docid=f"d{number:02}", title=f"T{number}", text=" ".join(words)))
        for split in ("train", "test"):
            text = f"{split} where is zq{number}k {words[0]}"
            queries.append(Query(qid=f"{split}{number}", text=text, split=split, docids=(f"d{number:02}",)))
    for name in ("corpus", "tokenizer", "out"):
        (folder / name).mkdir()
    write(Corpus(name="toy", documents=tuple(documents), queries=tuple(queries)), folder / "corpus")
    job = TokenizerJob(tokenizer=TokenizerSettings(vocabulary=500), pretrained=None)
    tokenizer.prepare(job, corpus=folder / "corpus", out=folder / "tokenizer")
    return folder / "corpus", folder / "tokenizer"


def test_every_baseline_has_every_metric(tmp_path: Path) -> None:
    corpus, tokens = steps(tmp_path)
    job = BaselinesJob(ranks=(4, 32), evaluation=EvaluationSettings(bootstrap=100))
    baselines.prepare(job, corpus=corpus, tokenizer=tokens, out=tmp_path / "out")
    rows = json.loads((tmp_path / "out" / "baselines.json").read_text())
    found = {row["baseline"]: row for row in rows}
    assert list(found) == ["random", "bm25", "embeddings-r4", "embeddings-r32"]
    for row in rows:
        assert set(row) | {"grid", "corpus", "corpus_hash"} == set(BASELINES.names)
        assert (row["n_documents"], row["n_queries"]) == (60, 60)
    assert found["bm25"]["hit@1"] == 1.0
    assert found["random"]["hit@10"] < 0.4
    assert found["embeddings-r32"]["hit@10"] > 0.6 > found["random"]["hit@10_hi"]
    first = (tmp_path / "out" / "baselines.json").read_bytes()
    baselines.prepare(job, corpus=corpus, tokenizer=tokens, out=tmp_path / "out")
    assert (tmp_path / "out" / "baselines.json").read_bytes() == first


def test_a_split_without_queries(tmp_path: Path) -> None:
    corpus, tokens = steps(tmp_path)
    job = BaselinesJob(ranks=(), evaluation=EvaluationSettings(split="dev"))
    with pytest.raises(BadInput, match=r"evaluation\.split: corpus toy has no dev query"):
        baselines.prepare(job, corpus=corpus, tokenizer=tokens, out=tmp_path / "out")


def test_bm25_takes_texts_without_words() -> None:
    assert baselines.bm25_ranking(["a", "!", ""], ["x", "the"]).tolist() == [[0, 1, 2], [0, 1, 2]]
    found = baselines.bm25_ranking(["running boats", "?", "漢字 text"], ["boat", "漢字", "", "the of", "unseen"])
    assert found[:2, 0].tolist() == [0, 2]
    assert found.shape == (5, 3)


def test_random_ranking_has_no_document_twice() -> None:
    drawn = baselines.random_ranking(50, 130, seed=1)
    assert drawn.shape == (50, 100)
    assert all(len(set(row)) == 100 for row in drawn.tolist())
    assert (drawn != baselines.random_ranking(50, 130, seed=2)).any()
    assert baselines.random_ranking(2, 5, seed=1).shape == (2, 5)


def test_embedding_ranking_equals_cosines_by_hand() -> None:
    generator = np.random.default_rng(3)
    table = generator.normal(size=(9, 4)).astype(np.float32)
    documents = [generator.integers(0, 8, size=size).tolist() for size in (5, 3, 7, 0, 4)]
    queries = [[1, 2, 2], [8], []]
    found = baselines.embedding_ranking(Ragged.of(documents), Ragged.of(queries), table)
    idf = [np.log(6 / (1 + sum(token in document for document in documents))) for token in range(9)]

    def vector(tokens: list[int]) -> np.ndarray:
        total = sum((idf[token] * table[token] for token in tokens), np.zeros(4))
        return total / (np.linalg.norm(total) or 1)

    for query, row in zip(queries, found, strict=True):
        scores = np.array([vector(query) @ vector(document) for document in documents])
        assert np.all(np.diff(scores[row]) <= 1e-9)
