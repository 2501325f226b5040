"""Metrics equal their textbook definitions, ties keep the run's order, run files come back as they were."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from results.schema import METRICS
from workers import ranking

DOCUMENTS = [f"d{n}" for n in range(120)] + ["with space", "a\tb", "100%", "é漢\x00", ""]


def by_hand(relevant: set[str], docids: list[str]) -> dict[str, float]:
    hits = [docid in relevant for docid in docids]
    values = {f"hit@{k}": float(any(hits[:k])) for k in (1, 10, 100)}
    values["rr@10"] = next((1 / rank for rank, hit in enumerate(hits[:10], start=1) if hit), 0.0)
    gain = sum(1 / math.log2(rank + 1) for rank, hit in enumerate(hits[:10], start=1) if hit)
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(10, len(relevant)) + 1))
    return values | {"ndcg@10": gain / ideal}


RUNS = st.lists(
    st.tuples(
        st.sets(st.sampled_from(DOCUMENTS), min_size=1, max_size=15), st.permutations(DOCUMENTS), st.integers(0, 125)
    ),
    min_size=1,
    max_size=4,
)


@settings(deadline=None, max_examples=60)
@given(RUNS, st.booleans())
def test_metrics_equal_their_definitions(cases: list[tuple[set[str], list[str], int]], tied: bool) -> None:
    qrels = {f"q {n}": case[0] for n, case in enumerate(cases)}
    run = {
        f"q {n}": [(docid, 0.0 if tied else 5.0 * rank) for rank, docid in enumerate(order[:depth])]
        for n, (_, order, depth) in enumerate(cases)
        if depth
    }
    values = ranking.measure(qrels, run)
    assert tuple(values) == METRICS
    for number, (relevant, order, depth) in enumerate(cases):
        for metric, expected in by_hand(relevant, list(order[:depth])).items():
            assert values[metric][number] == pytest.approx(expected, abs=1e-9), metric


def test_queries_that_the_run_lacks_count_as_nothing() -> None:
    values = ranking.measure({"a": {"x"}, "b": {"y"}}, {"b": [("y", 1.0)], "other": [("x", 1.0)]})
    assert values["hit@1"].tolist() == [0.0, 1.0]
    assert ranking.measure({"a": {"x"}}, {})["ndcg@10"].tolist() == [0.0]


def test_bootstrap_interval() -> None:
    values = (np.random.default_rng(1).random(400) < 0.3).astype(float)
    low, high = ranking.bootstrap_interval(values, 2000, seed=0)
    error = 1.96 * math.sqrt(values.mean() * (1 - values.mean()) / 400)
    assert low == pytest.approx(values.mean() - error, abs=0.01)
    assert high == pytest.approx(values.mean() + error, abs=0.01)
    assert (low, high) == ranking.bootstrap_interval(values, 2000, seed=0)
    assert ranking.bootstrap_interval(np.ones(5), 100, seed=0) == (1.0, 1.0)
    summary = ranking.summarise({"hit@1": values}, 100, 0)
    assert summary["hit@1_lo"] <= summary["hit@1"] <= summary["hit@1_hi"]


def test_first_relevant_rank() -> None:
    found = [("a", 3.0), ("b", 2.0), ("c", 1.0)]
    assert ranking.first_relevant_rank({"c", "b"}, found) == 2
    assert ranking.first_relevant_rank({"z"}, found) is None


def test_run_files_come_back(tmp_path: Path) -> None:
    run = {
        "q 1": [("with space", 2.5), ("a\tb\u2028c\x85\x1c", -1.0), ("100%", -2.0)],
        "é": [(f"d{n}", -float(n)) for n in range(12)],
    }
    ranking.write_trec(tmp_path / "a.trec", run, "my run")
    assert ranking.read_trec(tmp_path / "a.trec") == run
    lines = (tmp_path / "a.trec").read_text().split("\n")
    assert lines[0] == "q%201 Q0 with%20space 1 2.5 my%20run"
    assert all(len(line.split()) == 6 for line in lines[:-1])
