"""CGL against its definition, and evaluation of a trained model end to end."""

import json
import math
from pathlib import Path

import ir_measures
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import Steps, Trainer
from test_identifier_kinds import build as prepared

from workers import evaluation, retrieval
from workers.cgl import Contest, contest_losses, draw_contests
from workers.corpus.documents import load
from workers.errors import BadInput
from workers.identifiers.sets import IdentifierSet, Pairs
from workers.models.build import build
from workers.models.loss import PairLoss, pair_tensors
from workers.ragged import Ragged
from workers.settings import (
    Budget,
    EvaluationSettings,
    ModelSettings,
    ScoreJob,
    SearchJob,
)

EVALUATION = EvaluationSettings(negatives=10, bootstrap=200)


@pytest.fixture(scope="module", params=["t5-ngram", "llama-codebook"])
def folders(request: pytest.FixtureRequest, trained: Trainer) -> dict[str, Path]:
    return trained(*request.param.split("-"))


@pytest.fixture(scope="module")
def kinds(finished_steps: Steps, tmp_path_factory: pytest.TempPathFactory) -> dict[str, IdentifierSet]:
    """One set with codes and one with several views."""
    multiview = prepared(finished_steps, tmp_path_factory.mktemp("kinds") / "multiview", "multiview")
    return {"codebook": IdentifierSet.load(finished_steps.codebook), "multiview": multiview}


def search(folders, out: Path, beams: int) -> dict:
    out.mkdir()
    evaluation.search(SearchJob(evaluation=EVALUATION, budget=Budget(beams=beams)), **folders, out=out)
    return json.loads((out / "metrics.json").read_text())


def test_search_finds_documents_and_repeats(folders, tmp_path: Path) -> None:
    narrow, wide = search(folders, tmp_path / "1", 1), search(folders, tmp_path / "8", 8)
    assert wide["hit@10"] > 10 / 48 + 0.1, "better than chance"
    assert wide["hit@10"] >= narrow["hit@10"]
    assert wide["hit@10_lo"] <= wide["hit@10"] <= wide["hit@10_hi"]
    assert wide["infer_flops_per_query"] > narrow["infer_flops_per_query"]
    again = search(folders, tmp_path / "again", 8)
    assert {k: v for k, v in again.items() if "@" in k} == {k: v for k, v in wide.items() if "@" in k}
    assert (tmp_path / "again" / "run.trec").read_bytes() == (tmp_path / "8" / "run.trec").read_bytes()


def test_the_run_file_gives_the_stored_metrics(folders, tmp_path: Path) -> None:
    """Read back by trec_eval's rules, ties and all."""
    metrics = search(folders, tmp_path / "out", 8)
    queries = load(folders["corpus"]).split("test")
    qrels = [ir_measures.Qrel(query.qid, docid, 1) for query in queries for docid in query.docids]
    measures = {"hit@1": ir_measures.Success @ 1, "hit@10": ir_measures.Success @ 10, "ndcg@10": ir_measures.nDCG @ 10}
    run = list(ir_measures.read_trec_run(str(tmp_path / "out" / "run.trec")))
    values = ir_measures.calc_aggregate(list(measures.values()), qrels, run)
    for name, measure in measures.items():
        assert values[measure] == pytest.approx(metrics[name])


def test_query_rows_agree_with_the_metrics(folders, tmp_path: Path) -> None:
    metrics = search(folders, tmp_path / "out", 8)
    rows = pq.read_table(tmp_path / "out" / "queries.parquet").to_pylist()
    assert len(rows) == metrics["n_queries"] == len(load(folders["corpus"]).split("test"))
    hit = np.mean([row["rank"] is not None and row["rank"] <= 10 for row in rows])
    assert hit == pytest.approx(metrics["hit@10"])


def test_batches_do_not_change_the_ranking(folders, tmp_path: Path) -> None:
    loaded = retrieval.load_trained(*(folders[name] for name in ("corpus", "tokenizer", "identifiers", "train")))
    one, many = (
        retrieval.retrieve(loaded, EVALUATION.model_copy(update={"batch": batch}), Budget(beams=4)).run
        for batch in (1, 16)
    )
    for qid, ranking in one.items():
        assert dict(ranking) == pytest.approx(dict(many[qid]), rel=1e-3)


def test_score_beats_chance_and_repeats(folders, tmp_path: Path) -> None:
    results = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        evaluation.score(ScoreJob(evaluation=EVALUATION), **folders, out=tmp_path / name)
        results.append(json.loads((tmp_path / name / "metrics.json").read_text()))
    first, second = ({k: v for k, v in result.items() if k != "eval_seconds"} for result in results)
    assert first == second
    assert first["cgl_chance"] == pytest.approx(math.log(11))
    assert first["cgl"] < first["cgl_chance"]
    assert first["cgl_published_chance"] == pytest.approx(math.log(1 + 1 / 10))
    rows = pq.read_table(tmp_path / "a" / "queries.parquet").to_pydict()
    published = np.log1p(np.array(rows["cgl_published_positive"]) / np.array(rows["cgl_published_negative"]))
    assert published.mean() == pytest.approx(first["cgl_published"])


@pytest.mark.parametrize("kind", ["codebook", "multiview"])
@pytest.mark.parametrize("mean_nll", [True, False])
@pytest.mark.parametrize("family", ["t5", "llama"])
def test_cgl_equals_its_definition(
    finished_steps: Steps, kinds: dict[str, IdentifierSet], family: str, mean_nll: bool, kind: str
) -> None:
    """One forward pass a (query, identifier) pair, with its view's marker, and the formulas written out: the oracle."""
    ids = kinds[kind]
    model = build(ModelSettings(family=family, size={"t5": "7k", "llama": "6k"}[family]), ids.vocabulary, 0, 0).eval()
    held_out = ids.held_out
    queries = np.unique(held_out.source)[:4]
    contests = draw_contests(held_out, queries, 6, seed=1)
    ids = IdentifierSet(**{**ids.__dict__, "mean_nll": mean_nll})
    losses = contest_losses(model, ids, contests, end=1, longest=64)
    tight = contest_losses(model, ids, contests, end=1, longest=64, memory_mb=1)
    np.testing.assert_allclose(tight.cgl, losses.cgl, atol=1e-5)
    meant = np.concatenate([np.append(contest.right, contest.negatives) for contest in contests])
    assert set(held_out.view[meant].tolist()) == set(range(len(ids.views)))

    def nll(query: int, row: int, mean: bool) -> float:
        marker = ids.views[held_out.view[row]].marker
        ends = np.array([1 if marker is None else marker])
        inputs = pair_tensors(held_out.sources, np.array([query]), held_out.target, np.array([row]), ends, 64)
        with torch.inference_mode():
            value = float(PairLoss(model)(*inputs))
        return value if mean else value * len(held_out.target[row])

    for place, contest in enumerate(contests):
        right = math.exp(-nll(contest.query, contest.right[0], mean_nll))
        wrong = sum(math.exp(-nll(contest.query, row, mean_nll)) for row in contest.negatives)
        assert losses.cgl[place] == pytest.approx(-math.log(right / (right + wrong)), abs=1e-5)
        assert losses.nll[place] == pytest.approx(nll(contest.query, contest.right[0], True), abs=1e-5)
        positive = min(nll(contest.query, row, True) for row in contest.right)
        negative = sum(nll(contest.query, row, True) for row in contest.negatives)
        assert losses.published[place] == pytest.approx(-math.log(negative / (negative + positive)), abs=1e-6)


def test_contests_are_fair() -> None:
    held_out = Pairs(
        sources=Ragged.of([[1], [2], [3]]),
        source=np.array([0, 0, 1, 2]),
        document=np.array([7, 7, 8, 7]),
        target=Ragged.of([[1], [2], [3], [4]]),
        view=np.zeros(4, dtype=np.int8),
    )
    contests = draw_contests(held_out, np.array([0, 1, 2]), 50, seed=0)
    assert [sorted(contest.right.tolist()) for contest in contests] == [[0, 1], [2], [3]]
    first = {draw_contests(held_out, np.array([0]), 5, seed=seed)[0].right[0] for seed in range(20)}
    assert first == {0, 1}, "any of the right ones may be the one"
    assert set(contests[0].negatives.tolist()) == {2}, "an identifier of the same document is no negative"
    assert set(contests[1].negatives.tolist()) == {0, 1, 3}
    again = draw_contests(held_out, np.array([1]), 50, seed=0)
    assert (again[0].negatives == contests[1].negatives).all(), "whatever other queries there are"
    alone = Pairs(**{**held_out.__dict__, "document": np.array([7, 7, 7, 7])})
    with pytest.raises(BadInput, match="at least two documents"):
        draw_contests(alone, np.array([0]), 5, seed=0)


def test_a_model_that_ignores_the_query_is_at_chance(finished_steps: Steps) -> None:
    """The NLL of an identifier under token frequencies alone, which differ by how a span was picked."""
    ids = IdentifierSet.load(finished_steps.ngram)
    tokens = ids.views[0].index.shards[0].tokens
    tokens = tokens[tokens < ids.vocabulary]
    frequency = np.bincount(tokens, minlength=ids.vocabulary) / len(tokens)
    nll = {row: float(-np.log(frequency[ids.held_out.target[row]]).mean()) for row in range(len(ids.held_out))}
    values = []
    for seed in range(20):
        contests = draw_contests(ids.held_out, np.unique(ids.held_out.source), 16, seed=seed)
        values.append(np.mean([_contrast(nll, contest) for contest in contests]))
    assert math.log(17) - 0.05 < np.mean(values) < math.log(17) + 0.3


def _contrast(nll: dict[int, float], contest: Contest) -> float:
    right = math.exp(-nll[contest.right[0]])
    return -math.log(right / (right + sum(math.exp(-nll[row]) for row in contest.negatives)))
