"""What steps are in numbers: FLOPs, seconds and bytes, from shapes, lengths and machines."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.forecasting.disk import Footprint, footprints, peak
from orchestrator.forecasting.estimates import Estimates, make_estimates
from orchestrator.forecasting.rates import TERMS, parts, peak_flops
from orchestrator.forecasting.work import Work, work_of
from orchestrator.grid import load
from orchestrator.nodes import ANY, Demand, Node
from orchestrator.placing.lengths import Lengths, assume_lengths, read_lengths, token_bytes
from orchestrator.placing.sizes import sizes_of
from orchestrator.running.simulation import Span
from orchestrator.steps import Graph, Step, expand
from workers.flops import inference_flops, training_flops

GRID = """
name: tiny
corpus: {source: jsonl, path: corpus.jsonl, dev: 10, test: 40}
identifiers: [{kind: ngram, length: 6}, {kind: codebook, levels: 3, codes: 8}]
models: [{family: t5, size: [7k, 115k]}, {family: llama, pretrained: meta-llama/Llama-2-7b-hf, learning_rate: 1e-4}]
data: {pairs: [1000, 4000]}
inference: {beams: [1, 8]}
training: {epochs: 1, batch: 100}
"""
LENGTHS = Lengths(documents=500, train_pairs=900, held_out={"test": 40}, query_bytes=40.0)


@pytest.fixture
def graph(tmp_path: Path) -> Graph:
    return _graph(tmp_path)


def _graph(folder: Path, *overrides: str) -> Graph:
    (folder / "corpus.jsonl").write_text('{"text": "a", "queries": ["b"]}\n')
    (folder / "grid.yaml").write_text(GRID)
    return expand(load(folder / "grid.yaml", overrides).grid)


def _find(graph: Graph, kind: str, model: str, identifiers: str = "ngram", pairs: int = 1000, beams: int = 1) -> Step:
    trial = next(
        one
        for one in graph.trials
        if one.model == model and one.identifiers.startswith(identifiers) and one.pairs == pairs
        if one.budget.beams == beams
    )
    return graph.steps[getattr(trial, kind)]


def _estimates(graph: Graph, demands: dict[str, Demand] | None = None, *nodes: Node) -> Estimates:
    return make_estimates(graph, LENGTHS, demands or {}, nodes)


# ---------------------------------------------------------------- lengths


def test_lengths_of_a_corpus_that_was_read(tmp_path: Path) -> None:
    queries = ["a query of thirty characters, " for _ in range(50)]
    pq.write_table(
        pa.table({"text": [f"{query}{n:04}" for n, query in enumerate(queries)]}), tmp_path / "queries.parquet"
    )
    summary = {"documents": 7, "train_pairs": 45, "queries": {"train": 45, "dev": 2, "test": 3}}
    lengths = read_lengths(summary, tmp_path)
    assert lengths.queries("test") == 3
    assert lengths.query_bytes == pytest.approx(34, rel=0.25)
    assert lengths.document_bytes == Lengths(documents=1, train_pairs=1).document_bytes  # no file tells
    assert not lengths.assumed


def test_what_is_assumed_of_a_corpus_that_was_not_read(tmp_path: Path) -> None:
    _graph(tmp_path)
    unsaid = assume_lengths(load(tmp_path / "grid.yaml").grid)
    assert unsaid.queries("test") == 40
    assert "the grid does not say" in unsaid.assumed[0]
    said = assume_lengths(load(tmp_path / "grid.yaml", ["corpus.documents=77"]).grid)
    assert (said.documents, said.assumed[0]) == (77, "77 documents")


def test_tokens_are_longer_under_larger_vocabularies() -> None:
    sizes = [token_bytes(vocabulary) for vocabulary in (300, 512, 4096, 32_000, 128_000)]
    assert sizes == sorted(sizes)
    assert sizes[2] == pytest.approx(3.83, abs=0.02)  # as measured


# ---------------------------------------------------------------- work


def test_flops_are_those_of_the_formulas(graph: Graph) -> None:
    train = _find(graph, "train", "t5-115k", pairs=4000)
    sizes = sizes_of(graph, train)
    assert sizes is not None
    query = np.array([LENGTHS.query_tokens(sizes.shape.vocabulary) + 1])
    assert work_of(graph, train, LENGTHS, ANY).flops == pytest.approx(
        4000 * training_flops(sizes.shape, query, np.array([6]))
    )
    search = _find(graph, "search", "t5-115k", pairs=4000, beams=8)
    rows = np.array([[1.0, 8, 8, 8, 8, 8]])
    assert work_of(graph, search, LENGTHS, ANY).flops == pytest.approx(
        40 * inference_flops(sizes.shape, query, rows)[0]
    )


def test_codes_are_learnt_from_spans_too(graph: Graph) -> None:
    """28 spans of 12 words a document: most of what is read is longer than a query of 40 bytes."""
    train = _find(graph, "train", "t5-115k", "codebook")
    sizes = sizes_of(graph, train)
    assert sizes is not None
    query = np.array([LENGTHS.query_tokens(sizes.shape.vocabulary) + 1])
    from_queries = 1000 * training_flops(sizes.shape, query, np.array([3]))
    assert 1.2 * from_queries < work_of(graph, train, LENGTHS, ANY).flops < 3 * from_queries


def test_zero_and_offload_move_more(graph: Graph) -> None:
    train = _find(graph, "train", "Llama-2-7b-hf")

    def of(**demand: object) -> Work:
        return work_of(graph, train, LENGTHS, Demand(**{"gpus": 1, **demand}))

    alone, together, spread = of(), of(workers=4), of(workers=4, zero_stage=3, micro_batch=5)
    assert alone.sent == 0
    assert alone.flops == together.flops == spread.flops
    assert together.sent < spread.sent
    assert together.passes == pytest.approx(alone.passes)
    assert spread.passes == pytest.approx(5 * together.passes)
    assert (
        of(workers=4, zero_stage=3, offload="parameters").hosted > of(zero_stage=2, offload="optimizer").hosted / 4 > 0
    )


def test_a_model_that_nothing_is_known_of_is_taken_for_one_that_is(tmp_path: Path) -> None:
    graph = _graph(tmp_path, "models={family: t5, pretrained: some/where, learning_rate: 1e-4}")
    train = _find(graph, "train", "where")
    assert sizes_of(graph, train) is None
    assert work_of(graph, train, LENGTHS, ANY).flops > 1e13


# ---------------------------------------------------------------- seconds


def test_more_of_anything_takes_longer(graph: Graph) -> None:
    seconds = _estimates(graph).seconds()
    assert all(value > 0 for value in seconds.values())

    def of(*which: object, **more: object) -> float:
        return seconds[_find(graph, *which, **more).key]  # type: ignore[arg-type]

    assert of("train", "t5-7k") < of("train", "t5-115k") < of("train", "t5-115k", pairs=4000)
    assert of("search", "t5-115k", beams=1) < of("search", "t5-115k", beams=8)


def test_devices(graph: Graph) -> None:
    assert peak_flops("NVIDIA H100 80GB HBM3") == peak_flops("H100") == peak_flops("H100-80GB") == 989e12
    assert peak_flops("A100-80G") == 312e12
    assert 0 < peak_flops("cpu") < peak_flops("something else")
    train = _find(graph, "train", "Llama-2-7b-hf", pairs=4000)
    nodes = [
        Node(id=str(n), name=str(n), cpus=8, memory=2**40, gpus=gpus, gpu_bytes=80 * 2**30, device=device)
        for n, (gpus, device) in enumerate([(1, "L4-24GB"), (8, "H100-80GB"), (0, "cpu")])
    ]
    estimates = _estimates(graph, {train.key: Demand(gpus=1)}, *nodes)
    assert estimates.device(train) == "H100-80GB"
    assert estimates.device(_find(graph, "score", "t5-7k")) == "cpu"
    least = estimates.works[train.key].flops / 989e12
    assert 2 * least < estimates.seconds_of(train) < 20 * least + 60


def test_seconds_are_shared_among_workers() -> None:
    work = Work(flops=1e18, items=1e6, passes=1e3, sent=1e12)
    alone, four = (parts("train", work, Demand(gpus=1, workers=n), "A100-80GB") for n in (1, 4))
    by_term = dict(zip(TERMS, zip(alone, four, strict=True), strict=True))
    assert by_term["flops"][1] == pytest.approx(by_term["flops"][0] / 4)
    assert by_term["item"][1] == pytest.approx(by_term["item"][0] / 4)
    for term in ("start", "layer", "sent"):
        assert by_term[term][1] == by_term[term][0]
    nine = parts("train", work, Demand(gpus=1, workers=9), "A100-80GB")
    assert nine[TERMS.index("sent")] > by_term["sent"][0]  # over the network
    half = parts("train", work, Demand(gpus=0.5), "A100-80GB")
    assert half[TERMS.index("flops")] == pytest.approx(2 * by_term["flops"][0])


# ---------------------------------------------------------------- disk


def test_trainings_take_their_optimizer_and_leave_their_weights(graph: Graph) -> None:
    train = _find(graph, "train", "Llama-2-7b-hf")
    n = 6_738_415_616
    kept, gone = (footprints(_estimates(graph), bf16=True, keep_weights=keep)[train.key] for keep in (True, False))
    assert kept.running == pytest.approx(2 * 14 * n, rel=0.01)
    assert kept.finished == pytest.approx(2 * n, rel=0.01)
    assert kept.dropped == 0
    assert gone.dropped == pytest.approx(2 * n, rel=0.01)
    whole = footprints(_estimates(graph), bf16=False, keep_weights=True)[train.key]
    assert whole.finished == pytest.approx(4 * n, rel=0.01)


def _span(key: str, start: float, end: float) -> Span:
    return Span(key=key, kind="train", node="a", devices=(), gpus=0, cpus=1, start=start, end=end)


def test_the_peak_is_where_most_is_there_at_once() -> None:
    """Two trainings of 100 while they run and 10 afterwards, one after the other, of which the first goes before the
    second begins, or not."""
    steps = {
        "one": SimpleNamespace(needs=()),
        "two": SimpleNamespace(needs=()),
        "search": SimpleNamespace(needs=(("train", "one"),)),
    }
    estimates = SimpleNamespace(graph=SimpleNamespace(steps=steps))
    size = Footprint(running=100, finished=10, dropped=9)
    sizes = {
        "one": size,
        "two": size,
        "search": Footprint(running=2, finished=2),
        "before": Footprint(running=5, finished=5),
    }

    def of(*spans: Span) -> float:
        return peak(estimates, sizes, spans, ["before"])  # type: ignore[arg-type]

    assert of() == 5
    assert of(_span("one", 0, 1), _span("two", 1, 2)) == 5 + 1 + 100
    assert of(_span("one", 0, 1), _span("search", 1, 2), _span("two", 1, 3)) == 5 + 10 + 2 + 100
    assert of(_span("one", 0, 1), _span("search", 1, 2), _span("two", 2, 3)) == 5 + 1 + 2 + 100
    assert of(_span("one", 0, 2), _span("two", 1, 3)) == 5 + 200
