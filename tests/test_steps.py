"""Trials, steps and their keys: what is the same work, and what is not."""

import re
from pathlib import Path

import pytest

from orchestrator.forecasting.estimates import make_estimates, ranks
from orchestrator.grid import load
from orchestrator.labels import identifiers_label
from orchestrator.placing.lengths import Lengths
from orchestrator.rows import budget_columns, budget_name
from orchestrator.steps import Graph, expand, recipe_of
from workers.settings import (
    CodebookIdentifiers,
    HierarchicalIdentifiers,
    MultiviewIdentifiers,
    NgramIdentifiers,
    PseudoQueryIdentifiers,
    TitleIdentifiers,
)

GRID = """
name: tiny
corpus: {source: jsonl, path: corpus.jsonl}
identifiers: [{kind: ngram}, {kind: codebook, pairs: 30, only: {models: t5-7k, beams: 4}}]
models: [{family: t5, size: [7k, 29k]}, {family: llama, size: 6k, embeddings: {kind: random}}]
data: {pairs: [10, 20]}
inference: {beams: [1, 4]}
seeds: [0, 1]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "corpus.jsonl").write_text('{"text": "a b c", "queries": ["x y"]}\n')
    (tmp_path / "grid.yaml").write_text(GRID)
    return tmp_path


def _graph(folder: Path, *overrides: str) -> Graph:
    return expand(load(folder / "grid.yaml", overrides).grid)


def _new(before: Graph, after: Graph) -> list[str]:
    """Kinds of the steps that only the second grid has."""
    return sorted(step.kind for key, step in after.steps.items() if key not in before.steps)


def _seconds(graph: Graph) -> dict[str, float]:
    lengths = Lengths(documents=2000, train_pairs=6000, held_out={"test": 300})
    return make_estimates(graph, lengths, {}, ()).seconds()


def test_expands_in_order_with_filters(folder: Path) -> None:
    graph = _graph(folder)
    ngram = [trial for trial in graph.trials if trial.identifiers == "ngram"]
    assert [(t.model, t.pairs, t.seed, t.budget.beams) for t in ngram] == [
        (model, pairs, seed, beams)
        for model in ("t5-7k", "t5-29k", "llama-6k")
        for pairs in (10, 20)
        for seed in (0, 1)
        for beams in (1, 4)
    ]
    codebook = [trial for trial in graph.trials if trial.identifiers == "codebook"]
    assert [(t.model, t.pairs, t.seed, t.budget.beams) for t in codebook] == [("t5-7k", 30, 0, 4), ("t5-7k", 30, 1, 4)]
    assert graph.count() == {
        "corpus": 1,
        "tokenizer": 1,
        "embeddings": 2,
        "identifiers": 2,
        "baselines": 1,
        "train": 14,
        "score": 14,
        "search": 26,
    }


def test_every_step_stands_after_what_it_needs(folder: Path) -> None:
    graph = _graph(folder)
    seen: set[str] = set()
    for key, step in graph.steps.items():
        assert {needed for _, needed in step.needs} <= seen
        assert all(graph.steps[needed].kind == role for role, needed in step.needs)
        seen.add(key)
    needs = {step.settings.model.label: dict(step.needs) for step in graph.steps.values() if step.kind == "train"}
    assert "embeddings" in needs["t5-7k"]
    assert "embeddings" not in needs["llama-6k"]


def test_names_of_trials_are_distinct_file_names(folder: Path) -> None:
    trials = _graph(folder, "corpus.name=a.b").trials
    names = [trial.trial for trial in trials]
    assert len(set(names)) == len(names)
    assert names[0].startswith("a.b-ngram-t5-7k-d10-s0-b1-")
    assert {trial.init for trial in trials} == {"ppmi", "random"}


def test_the_same_grid_has_the_same_keys_wherever_its_corpus_lies(folder: Path) -> None:
    graph = _graph(folder)
    (folder / "moved").mkdir()
    (folder / "corpus.jsonl").rename(folder / "moved" / "corpus.jsonl")
    moved = _graph(folder, "corpus.path=moved/corpus.jsonl")
    assert moved.steps.keys() == graph.steps.keys()
    assert [trial.trial for trial in moved.trials] == [trial.trial for trial in graph.trials]
    (folder / "moved" / "corpus.jsonl").write_text('{"text": "other", "queries": ["x y"]}\n')
    assert not _graph(folder, "corpus.path=moved/corpus.jsonl").steps.keys() & graph.steps.keys()


@pytest.mark.parametrize(
    ("override", "new"),
    [
        ("training.log_every=3", []),
        ("training.checkpoint_every=7", []),
        ("training.keep_weights=false", []),
        ("resources.workers=7", []),
        ("tracking.project=other", []),
        ("name=other", []),
        ("evaluation.depth=200", ["search"] * 26),
        ("evaluation.batch=8", ["search"] * 26),  # its latency and memory are of batches of 8
        ("evaluation.memory_mb=800", []),
        ("corpus.name=other", []),
        ("evaluation.negatives=8", ["score"] * 14),
        ("inference.0.beams=[1, 4, 9]", ["search"] * 12),
        ("data.pairs=[10, 20, 40]", ["score"] * 6 + ["search"] * 12 + ["train"] * 6),
        ("seeds=[0, 1, 2]", ["score"] * 7 + ["search"] * 13 + ["train"] * 7),
    ],
)
def test_a_change_makes_new_only_what_depends_on_it(folder: Path, override: str, new: list[str]) -> None:
    assert _new(_graph(folder), _graph(folder, override)) == sorted(new)


def test_a_training_is_known_by_its_resolved_learning_rate(folder: Path) -> None:
    spelled = _graph(folder, "models={family: t5, size: 7k, learning_rate: 1.5e-2}", "identifiers={kind: ngram}")
    ladder = _graph(folder, "models={family: t5, size: 7k}", "identifiers={kind: ngram}")
    other = _graph(folder, "models={family: t5, size: 7k}", "identifiers={kind: ngram}", "training.learning_rate=1e-3")
    assert spelled.steps.keys() == ladder.steps.keys()
    assert not {t.train for t in other.trials} & {t.train for t in ladder.trials}


def test_a_folder_of_a_model_counts_by_its_content(folder: Path) -> None:
    for name in ("one", "moved"):
        (folder / name / "base").mkdir(parents=True)
        (folder / name / "base" / "model.safetensors").write_text("weights")
    (folder / "encoder").mkdir()
    (folder / "encoder" / "model.safetensors").write_text("weights")

    def graph(path: str) -> Graph:
        model = f"models={{family: t5, pretrained: {folder / path / 'base'}, learning_rate: 1e-3}}"
        codes = f"identifiers={{kind: codebook, embedding: {folder / 'encoder'}}}"
        return _graph(folder, model, codes)

    before = graph("one")
    assert before.steps.keys() == graph("moved").steps.keys()
    (folder / "moved" / "base" / "model.safetensors").write_text("other weights")
    assert {"tokenizer", "identifiers", "train", "score", "search"} <= set(_new(before, graph("moved")))
    (folder / "encoder" / "model.safetensors").write_text("other weights")
    assert {"identifiers", "train"} <= set(_new(before, graph("one")))
    assert "tokenizer" not in _new(before, graph("one"))


def test_pseudo_queries_count_by_the_content_of_their_file(folder: Path) -> None:
    (folder / "moved").mkdir()
    for path in (folder / "pseudo.jsonl", folder / "moved" / "pseudo.jsonl"):
        path.write_text('{"id": "1", "queries": ["a"]}\n')

    def graph(path: str) -> Graph:
        return _graph(folder, f"identifiers={{kind: pseudo_query, queries: {path}}}")

    before = graph("pseudo.jsonl")
    assert before.steps.keys() == graph("moved/pseudo.jsonl").steps.keys()
    (folder / "moved" / "pseudo.jsonl").write_text('{"id": "1", "queries": ["b"]}\n')
    assert set(_new(before, graph("moved/pseudo.jsonl"))) == {"identifiers", "train", "score", "search"}


def test_budgets_with_views_are_only_for_kinds_that_have_them(folder: Path) -> None:
    views = "inference={beams: [1, 4], views: [null, body, body+title]}"
    kinds = "identifiers=[{kind: ngram}, {kind: multiview, only: {beams: 4}}]"
    graph = _graph(folder, views, kinds, "models={family: t5, size: 7k}", "data.pairs=10", "seeds=0")
    found = [(trial.identifiers, trial.budget.label) for trial in graph.trials]
    assert found == [
        ("ngram", "b1"),
        ("ngram", "b4"),
        ("multiview", "b4"),
        ("multiview", "b4-vbody"),
        ("multiview", "b4-vbody+title"),
    ]


def test_names_of_trials_say_the_budget(folder: Path) -> None:
    cut = "{beams: 4, max_new_tokens: [2, 4]}"
    budgets = f"inference=[{{beams: 4, rerank: [null, 10]}}, {{samples: 8, temperature: [0.7, 1.0]}}, {cut}]"
    graph = _graph(folder, budgets, "models={family: t5, size: 7k}", "data.pairs=10", "seeds=0")
    ngram = [trial for trial in graph.trials if trial.identifiers == "ngram"]
    assert [trial.label for trial in ngram] == [
        f"corpus-ngram-t5-7k-d10-s0-{budget}" for budget in ("b4", "b4-r10", "s8t0.7", "s8", "b4-m2", "b4-m4")
    ]
    assert [trial.budget.beams for trial in graph.trials if trial.identifiers == "codebook"] == [4] * 4
    assert [budget_columns(trial.budget) for trial in (ngram[1], ngram[2])] == [
        {"beams": 4, "samples": None, "temperature": None, "max_new_tokens": None, "views": None, "rerank": 10},
        {"beams": None, "samples": 8, "temperature": 0.7, "max_new_tokens": None, "views": None, "rerank": None},
    ]
    assert [budget_name({"trial": trial.trial, **budget_columns(trial.budget)}) for trial in ngram] == [
        "beams=4",
        "beams=4/rerank=10",
        "samples=8/temperature=0.7",
        "samples=8/temperature=1.0",
        "beams=4/max_new_tokens=2",
        "beams=4/max_new_tokens=4",
    ]
    cost = _seconds(graph)
    assert cost[ngram[1].search] > cost[ngram[0].search]


def test_the_recipe_is_what_two_points_of_a_law_must_share(folder: Path) -> None:
    def recipes(*overrides: str) -> set[str]:
        graph = _graph(folder, *overrides)
        return {recipe_of(graph, trial) for trial in graph.trials}

    plain = recipes()
    assert len(plain) == 1
    assert len(next(iter(plain))) == 12
    assert recipes("training.learning_rate=1e-4", "training.log_every=3", "training.checkpoint_every=9") == plain
    for override in ("training.epochs=9", "tokenizer.vocabulary=500", "resources.workers_per_training=2"):
        assert recipes(override) != plain


def test_workers_together_are_part_of_a_training(folder: Path) -> None:
    assert {t.train for t in _graph(folder, "resources.workers_per_training=2").trials}.isdisjoint(
        t.train for t in _graph(folder).trials
    )


def test_labels_tell_identifier_settings_apart() -> None:
    assert identifiers_label(NgramIdentifiers(kind="ngram")) == "ngram"
    assert identifiers_label(NgramIdentifiers(kind="ngram", length=10)) == "ngram-10"
    assert identifiers_label(NgramIdentifiers(kind="ngram", temperature=2.0)) == "ngram-temperature2.0"
    assert identifiers_label(CodebookIdentifiers(kind="codebook", levels=2)) == "codebook-2x32"
    assert identifiers_label(HierarchicalIdentifiers(kind="hierarchical", leaf=5)) == "hierarchical-10x5"
    assert identifiers_label(TitleIdentifiers(kind="title", max_length=9)) == "title-max_length9"


def test_labels_tell_models_with_the_same_last_name_apart() -> None:
    labels = [
        identifiers_label(CodebookIdentifiers(kind="codebook", embedding=name, dimensions=dimensions))
        for name in ("a/b c", "other/b c")
        for dimensions in (96, 8)
    ]
    assert len(set(labels)) == 4
    assert re.fullmatch(r"codebook-embeddingb_c-[0-9a-f]{6}", labels[0])
    assert re.fullmatch(r"codebook-dimensions8-embeddingb_c-[0-9a-f]{6}", labels[1])
    written = PseudoQueryIdentifiers(kind="pseudo_query", queries="model:a/b")
    assert re.fullmatch(r"pseudo_query-queriesb-[0-9a-f]{6}", identifiers_label(written))


def test_a_long_label_is_cut_and_still_tells_settings_apart() -> None:
    changed = {"length": 9, "per_query": 3, "temperature": 2.25, "pseudo_per_query": 3, "titles_per_query": 17}
    labels = {identifiers_label(MultiviewIdentifiers(kind="multiview", max_length=99, **changed))}
    labels |= {
        identifiers_label(MultiviewIdentifiers(kind="multiview", max_length=99, **changed | {"temperature": 3.0}))
    }
    labels |= {
        identifiers_label(MultiviewIdentifiers(kind="multiview", max_length=99, **changed | {"titles_per_query": 1}))
    }
    assert len(labels) == 3
    assert all(len(label) == 60 for label in labels)


def test_labels_know_files_by_what_they_hold(tmp_path: Path) -> None:
    def label(folder: str, text: str) -> str:
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "q.jsonl").write_text(text)
        return identifiers_label(MultiviewIdentifiers(kind="multiview", queries=str(tmp_path / folder / "q.jsonl")))

    first = label("a", "one")
    assert re.fullmatch(r"multiview-queriesq\.jsonl-[0-9a-f]{6}", first)
    assert label("b", "one") == first
    assert label("b", "another") != first


def test_per_document_counts_only_where_a_model_writes(folder: Path) -> None:
    def graph(queries: str, per_document: int) -> Graph:
        block = f"{{kind: pseudo_query, queries: '{queries}', per_document: {per_document}}}"
        return _graph(folder, f"identifiers={block}")

    def names(graph: Graph) -> list[str]:
        return [trial.trial for trial in graph.trials]

    (folder / "pseudo.jsonl").write_text("{}\n")
    for queries in ("train", "pseudo.jsonl"):
        assert graph(queries, 8).steps.keys() == graph(queries, 3).steps.keys()
        assert names(graph(queries, 8)) == names(graph(queries, 3))
    assert not {t.train for t in graph("model:a/b", 8).trials} & {t.train for t in graph("model:a/b", 3).trials}


def test_all_views_of_a_kind_are_the_same_as_none_named(folder: Path) -> None:
    def graph(views: str) -> Graph:
        return _graph(folder, f"inference={{beams: 4, views: {views}}}", "identifiers={kind: multiview}")

    assert graph("body+query+title").steps.keys() == graph("null").steps.keys()
    assert graph("body+query+title").trials == graph("null").trials
    assert graph("body").steps.keys() != graph("null").steps.keys()


def test_a_search_of_all_views_is_as_long_as_of_each(folder: Path) -> None:
    views = "inference={beams: 4, views: [null, body, body+title]}"
    graph = _graph(folder, views, "identifiers={kind: multiview}", "models={family: t5, size: 7k}", "seeds=0")
    cost = _seconds(graph)
    every, one, two = (cost[trial.search] for trial in graph.trials[:3])
    assert one < two < every
    assert every - two == pytest.approx(two - one)


def test_the_longest_chain_starts_first(folder: Path) -> None:
    graph = _graph(folder, "data.pairs=[10, 200]")
    cost = _seconds(graph)
    rank = ranks(graph, cost)
    for step in graph.steps.values():
        assert all(rank[needed] >= rank[step.key] + cost[needed] for _, needed in step.needs)
    trains = {
        (s.settings.model.label, s.settings.pairs): rank[s.key] for s in graph.steps.values() if s.kind == "train"
    }
    assert trains["t5-29k", 200] > trains["t5-29k", 10]
    assert trains["t5-29k", 200] > trains["t5-7k", 200]
