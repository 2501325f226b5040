"""Every budget of inference on trained models: what it finds, what it costs, and that batches change nothing."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Trainer
from torch.utils.flop_counter import FlopCounterMode

from workers import evaluation, retrieval
from workers.ranking import read_trec
from workers.retrieval import Loaded, retrieve
from workers.settings import Budget, EvaluationSettings, SearchJob

EVALUATION = EvaluationSettings(negatives=10, bootstrap=100)
MODELS = {"ngram": "t5", "codebook": "llama", "multiview": "t5"}
PLAIN = [
    {"beams": 1},
    {"beams": 16},
    {"beams": 4, "max_new_tokens": 1},
    {"beams": 4, "max_new_tokens": 2},
    {"samples": 8},
    {"samples": 24, "temperature": 0.5},
    {"beams": 4, "rerank": 3},
    {"samples": 8, "temperature": 2.0, "rerank": 100},
]
VIEWS = [
    {"beams": 4},
    *({"beams": 4, "views": views} for views in ("body", "title", "query", "body+title")),
    {"beams": 4, "max_new_tokens": 2, "views": "body+query", "rerank": 100},
    {"samples": 8, "views": "title"},
]
CASES = [(kind, budget) for kind in ("ngram", "codebook") for budget in PLAIN] + [("multiview", b) for b in VIEWS]
Run = dict[str, list[tuple[str, float]]]


def budget_id(case: tuple[str, dict]) -> str:
    return f"{case[0]}-{Budget(**case[1]).label}"


every_budget = pytest.mark.parametrize(("kind", "budget"), CASES, ids=map(budget_id, CASES))


@pytest.fixture
def search(trained: Trainer, tmp_path: Path) -> Callable[..., tuple[dict, Run]]:
    """Through the worker function: metrics, and the run file, which lacks queries for which nothing was found."""

    def searched(kind: str, budget: dict, **given) -> tuple[dict, Run]:
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        out.mkdir()
        job = SearchJob(evaluation=EVALUATION.model_copy(update=given), budget=Budget(**budget))
        evaluation.search(job, **trained(MODELS[kind], kind), out=out)
        return json.loads((out / "metrics.json").read_text()), read_trec(out / "run.trec")

    return searched


@every_budget
def test_documents_are_real_distinct_and_ranked(search, trained: Trainer, kind: str, budget: dict) -> None:
    metrics, run = search(kind, budget)
    loaded = load(trained, kind)
    known = {document.docid for document in loaded.corpus.documents}
    queries = {query.qid for query in loaded.corpus.split("test")}
    assert set(run) <= queries
    assert len(run) > 0.8 * len(queries)
    for ranking in run.values():
        docids = [docid for docid, _ in ranking]
        assert set(docids) <= known
        assert len(set(docids)) == len(docids)
        assert (np.diff([score for _, score in ranking]) < 0).all()
    assert 0 <= metrics["hit@1"] <= metrics["hit@10"] <= 1
    assert metrics["beams"] == budget.get("beams")
    assert metrics["max_new_tokens"] <= budget.get("max_new_tokens", 100)


@every_budget
def test_batches_do_not_change_the_ranking(trained: Trainer, kind: str, budget: dict) -> None:
    """As the memory formula has it, one by one, sixteen together, with hardly any memory, and with both of these."""
    loaded = load(trained, kind)
    runs = []
    for given in ({}, {"batch": 1}, {"batch": 16}, {"memory_mb": 3}, {"batch": 16, "memory_mb": 3}):
        answers = retrieve(loaded, EVALUATION.model_copy(update=given), Budget(**budget))
        runs.append(answers)
    free, one, sixteen, small, both = runs
    assert (one.batch, sixteen.batch) == (1, 16)
    assert small.batch < free.batch
    assert both.batch == min(16, small.batch), "memory has the last word"
    for other in (one, sixteen, small, both):
        assert other.flops == pytest.approx(free.flops)
        for qid, ranking in free.run.items():
            assert dict(other.run[qid]) == pytest.approx(dict(ranking), rel=1e-3, abs=1e-4)


@pytest.fixture
def loaded_eager(trained: Trainer) -> Iterator[Callable[[str], Loaded]]:
    """PyTorch's counter knows no fused attention on a CPU."""
    changed = []

    def loader(kind: str) -> Loaded:
        loaded = load(trained, kind)
        changed.append((loaded.model, loaded.model.config._attn_implementation))
        loaded.model.set_attn_implementation("eager")
        return loaded

    yield loader
    for model, before in changed:
        model.set_attn_implementation(before)


@every_budget
def test_flops_are_within_two_percent(loaded_eager, kind: str, budget: dict) -> None:
    """The whole retrieval under PyTorch's counter, one query at a time.

    Together, a query with fewer rows than another is padded in attention to the prompt, which the formula leaves out.
    """
    loaded = few_queries(loaded_eager(kind), 3)
    with FlopCounterMode(display=False) as counter:
        answers = retrieve(loaded, EVALUATION.model_copy(update={"batch": 1}), Budget(**budget))
    assert len(answers.flops) == 3
    assert answers.flops.sum() == pytest.approx(counter.get_total_flops(), rel=0.02)


def load(trained: Trainer, kind: str) -> Loaded:
    folders = trained(MODELS[kind], kind)
    return retrieval.load_trained(*(folders[name] for name in ("corpus", "tokenizer", "identifiers", "train")))


def few_queries(loaded: Loaded, count: int) -> Loaded:
    """With only so many test queries, all of one length."""
    rows = loaded.queries("test")
    lengths = loaded.prompt_lengths(rows)
    rows = rows[lengths == np.bincount(lengths).argmax()][:count]
    queries = [
        each if row in rows or each.split != "test" else replace(each, split="dev")
        for row, each in enumerate(loaded.corpus.queries)
    ]
    return replace(loaded, corpus=replace(loaded.corpus, queries=tuple(queries)))


@pytest.mark.parametrize("kind", ["ngram", "codebook"])
def test_more_inference_costs_more_and_finds_more(search, kind: str) -> None:
    narrow, _ = search(kind, {"beams": 1})
    wide, _ = search(kind, {"beams": 16})
    short, _ = search(kind, {"beams": 16, "max_new_tokens": 1})
    few, _ = search(kind, {"samples": 2})
    many, _ = search(kind, {"samples": 24})
    assert short["infer_flops_per_query"] < wide["infer_flops_per_query"]
    assert short["max_new_tokens"] == 1 < wide["max_new_tokens"]
    for less, more in ((narrow, wide), (few, many)):
        assert less["infer_flops_per_query"] < more["infer_flops_per_query"]
        assert less["hit@10"] <= more["hit@10"]
        assert more["hit@10"] > 10 / 48 + 0.1, "better than chance"


def test_a_code_that_is_cut_off_names_all_documents_below_it(search, trained: Trainer) -> None:
    view = load(trained, "codebook").ids.views[0]
    firsts = view.index.shards[0].row_tokens(np.arange(len(view.documents)))[:, 0]
    first = {f"d{document}": int(token) for document, token in zip(view.documents, firsts, strict=True)}
    _, run = search("codebook", {"beams": 2, "max_new_tokens": 1})
    for ranking in run.values():
        groups = [first[docid] for docid, _ in ranking]
        chosen = list(dict.fromkeys(groups))
        assert len(chosen) == 2
        assert groups == sorted(groups, key=chosen.index), "documents of one code stand together"
        assert len(groups) == sum(code in chosen for code in first.values())


def test_views_add_up(search, trained: Trainer) -> None:
    names = ("body", "title", "query")
    alone = {name: search("multiview", {"beams": 4, "views": name}) for name in names}
    together, run = search("multiview", {"beams": 4})
    cost = sum(metrics["infer_flops_per_query"] for metrics, _ in alone.values())
    assert together["infer_flops_per_query"] == pytest.approx(cost)
    assert search("multiview", {"beams": 4, "views": "title+query+body"})[1] == run
    for name, (metrics, _) in alone.items():
        (view,) = (view for view in load(trained, "multiview").ids.views if view.name == name)
        assert metrics["max_new_tokens"] == view.max_length
    assert len({metrics["infer_flops_per_query"] for metrics, _ in alone.values()}) == 3
    for qid, ranking in run.items():
        named = {docid for _, each in alone.values() for docid, _ in each.get(qid, [])}
        assert {docid for docid, _ in ranking} == named


@pytest.mark.parametrize("kind", list(MODELS))
@pytest.mark.parametrize("most", [3, 100])
def test_reranking_moves_the_best_documents_alone(search, kind: str, most: int) -> None:
    plain, before = search(kind, {"beams": 8})
    again, after = search(kind, {"beams": 8, "rerank": most})
    assert again["infer_flops_per_query"] > plain["infer_flops_per_query"]
    moved = 0
    for qid, ranking in before.items():
        first, second = ([docid for docid, _ in each] for each in (ranking, after[qid]))
        assert sorted(first[:most]) == sorted(second[:most])
        assert first[most:] == second[most:]
        moved += first != second
    assert moved or kind == "codebook", "codes that were found in full have their likelihood already"
