"""The memory formula against what PyTorch says it had allocated at its peak."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from workers.memory import CPU_LIMIT, peak_bytes, reuse_freed_memory, search_limit, start_peak
from workers.models.build import build, shape_of
from workers.models.sessions import open_session
from workers.ragged import Ragged
from workers.search_memory import SearchMemory
from workers.settings import ModelSettings


def allocated_peak(run: Callable[[], None]) -> int:
    """Bytes above what was allocated before, at the highest point."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    recorded = profiler.profiler.kineto_results.events()  # the public list leaves out what operators allocate
    changes = sorted((event.start_ns(), event.nbytes()) for event in recorded if event.name() == "[memory]")
    return int(np.cumsum([nbytes for _, nbytes in changes]).max())


@pytest.mark.parametrize(
    ("family", "size", "vocabulary", "queries", "beams", "prompt", "tokens"),
    [
        ("t5", "115k", 4096, 16, 32, 30, 6),
        ("llama", "98k", 4096, 16, 32, 30, 6),
        ("t5", "919k", 300, 8, 100, 64, 12),
        ("llama", "787k", 300, 8, 100, 64, 12),
        ("t5", "460k", 300, 64, 1, 200, 3),
        ("llama", "394k", 300, 64, 1, 200, 3),
    ],
)
def test_the_formula_is_near_the_peak(family, size, vocabulary, queries, beams, prompt, tokens) -> None:
    """Within a factor of 0.7 to 1.5, whatever it is that dominates: log-probabilities, what is written, the prompts."""
    model = build(ModelSettings(family=family, size=size), vocabulary, 0, 0).eval()
    rng = np.random.default_rng(0)
    lengths = np.append(rng.integers(prompt // 2, prompt, size=queries - 1), prompt - 1)
    texts = Ragged.of([rng.integers(2, vocabulary, size=length) for length in lengths])

    def search() -> None:
        session = open_session(model, texts, np.arange(queries), np.ones(queries), longest=prompt)
        parents = np.repeat(np.arange(queries), beams)
        for _ in range(tokens):
            session.advance(torch.from_numpy(parents), torch.from_numpy(rng.integers(2, vocabulary, len(parents))))
            parents = rng.permuted(np.arange(queries * beams).reshape(queries, beams), axis=1).ravel()

    formula = SearchMemory(shape=shape_of(model), prompt=prompt, new_tokens=tokens).total(queries, queries * beams)
    assert 0.7 < formula / allocated_peak(search) < 1.5


@pytest.mark.parametrize(
    ("family", "size", "vocabulary", "queries", "beams", "prompt", "tokens"),
    [
        ("t5", "115k", 50_000, 16, 257, 30, 6),
        ("llama", "98k", 50_000, 16, 257, 30, 6),
        ("t5", "919k", 300, 8, 100, 64, 12),
        ("llama", "787k", 300, 8, 100, 64, 12),
    ],
)
def test_scoring_needs_no_table_of_rows(family, size, vocabulary, queries, beams, prompt, tokens) -> None:
    """The formula without kept log-probabilities is as near to the peak; a search's would be far above it."""
    model = build(ModelSettings(family=family, size=size), vocabulary, 0, 0).eval()
    rng = np.random.default_rng(0)
    texts = Ragged.of([rng.integers(2, vocabulary, size=prompt - 1) for _ in range(queries)])

    def score() -> None:
        session = open_session(model, texts, np.arange(queries), np.ones(queries), longest=prompt)
        parents = np.repeat(np.arange(queries), beams)
        rows = np.arange(len(parents))
        for _ in range(tokens):
            written, wanted = rng.integers(2, vocabulary, size=(2, len(rows)))
            session.score(torch.from_numpy(parents), torch.from_numpy(written), rows, wanted)
            parents = rows

    memory = SearchMemory(shape=shape_of(model), prompt=prompt, new_tokens=tokens, kept_values=0)
    peak = allocated_peak(score)
    assert 0.7 < memory.total(queries, queries * beams) / peak < 1.5
    if vocabulary == 50_000:
        assert replace(memory, kept_values=None).total(queries, queries * beams) > 4 * peak


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_the_largest_batch_fits_and_the_next_does_not(family: str) -> None:
    shape = shape_of(build(ModelSettings(family=family, size={"t5": "7k", "llama": "6k"}[family]), 500, 0, 0))
    memory = SearchMemory(shape=shape, prompt=30, new_tokens=8)
    limit = 50 * 2**20
    for rows in (1, 10, 64):
        most = memory.queries(rows, limit)
        assert memory.total(most, most * rows) <= limit < memory.total(most + 1, (most + 1) * rows)
    most = memory.rows(limit)
    assert memory.total(1, most) <= limit < memory.total(1, most + 1)
    assert memory.queries(10, 0) == memory.rows(0) == 1


def test_the_limit_on_a_cpu_is_one_number() -> None:
    if not torch.cuda.is_available():
        assert search_limit() == CPU_LIMIT == 128 * 2**20


def test_freed_memory_is_reused_and_not_counted_as_the_next_peak() -> None:
    reuse_freed_memory()
    held = [torch.ones(2**20) for _ in range(32)]  # 128 MiB in pieces that stay in the heap
    del held
    start_peak()
    before = peak_bytes()
    held = [torch.ones(2**20) for _ in range(8)]
    assert 24 * 2**20 < peak_bytes() - before < 48 * 2**20
    del held
