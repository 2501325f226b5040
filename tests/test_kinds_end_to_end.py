"""Every kind of identifiers, from the corpus to ranked documents through the worker functions."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import Trainer
from test_identifier_kinds import SETTINGS

from workers import evaluation
from workers.corpus.documents import load
from workers.ranking import read_trec
from workers.settings import Budget, EvaluationSettings, ScoreJob, SearchJob

EVALUATION = EvaluationSettings(negatives=10, bootstrap=100)
FAMILIES = {
    "ngram": "t5",
    "codebook": "llama",
    "hierarchical": "t5",
    "title": "llama",
    "name": "t5",
    "pseudo_query": "llama",
    "multiview": "t5",
}


def test_all_kinds_are_tested() -> None:
    assert FAMILIES.keys() == SETTINGS.keys()


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_kind_is_trained_scored_and_searched(trained: Trainer, tmp_path: Path, kind: str) -> None:
    folders = trained(FAMILIES[kind], kind)
    documents = load(folders["corpus"]).documents
    queries = {query.qid: query for query in load(folders["corpus"]).split("test")}
    for name, do, job in (
        ("score", evaluation.score, ScoreJob(evaluation=EVALUATION)),
        ("search", evaluation.search, SearchJob(evaluation=EVALUATION, budget=Budget(beams=8))),
    ):
        (tmp_path / name).mkdir()
        do(job, **folders, out=tmp_path / name)
    metrics = json.loads((tmp_path / "search" / "metrics.json").read_text())
    run = read_trec(tmp_path / "search" / "run.trec")
    assert run.keys() <= queries.keys()
    assert {docid for ranking in run.values() for docid, _ in ranking} <= {document.docid for document in documents}
    first = np.mean([bool(run.get(qid)) and run[qid][0][0] in query.docids for qid, query in queries.items()])
    assert first == pytest.approx(metrics["hit@1"])
    assert metrics["hit@10"] > 10 / len(documents) + 0.1, "better than chance"
    assert metrics["hit@1"] > 2 / len(documents), "better than chance"
    scores = json.loads((tmp_path / "score" / "metrics.json").read_text())
    assert scores["cgl"] < scores["cgl_chance"]
    assert pq.read_table(tmp_path / "score" / "queries.parquet").num_rows == scores["n_queries"] == len(queries)
