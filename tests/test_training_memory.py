"""The formula of a training's memory against what real trainings take, and against itself."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Steps

from workers import training
from workers.models.shapes import PRETRAINED, count_parameters
from workers.settings import ModelSettings, Offload, TrainingSettings, TrainJob
from workers.training_memory import TrainingMemory

MEASURE = """
import gc, json, sys
import torch
from workers import engine
from workers.memory import peak_bytes, reuse_freed_memory, start_peak
from workers.models.build import build, shape_of
from workers.models.loss import PairLoss
from workers.settings import ModelSettings, ProcessGroup, TrainingSettings
from workers.training_memory import TrainingMemory

def train(family, size, vocabulary, pairs, query, target):
    module = PairLoss(build(ModelSettings(family=family, size=size), vocabulary, 0, 0).train())
    settings = TrainingSettings(learning_rate=1e-3, batch=pairs, precision="fp32")
    made = engine.make_engine(module, settings, ProcessGroup(), pairs, 10)
    for _ in range(3):
        queries, targets = (torch.randint(2, vocabulary, (pairs, length)) for length in (query, target))
        made.backward(made(queries, torch.full((pairs,), query), targets))
        engine.clip_gradient(made, 1.0)
        made.step()
    return shape_of(module.model)

family, size, *numbers = sys.argv[1:]
numbers = [int(number) for number in numbers]
reuse_freed_memory()
engine.join(ProcessGroup())
train(family, {"t5": "7k", "llama": "6k"}[family], 300, 2, 4, 2)  # what is imported and compiled at first use
gc.collect()
start_peak()
before = peak_bytes()
shape = train(family, size, *numbers)
vocabulary, pairs, query, target = numbers
memory = TrainingMemory(shape=shape, query=query, target=target)
print(json.dumps({"measured": peak_bytes() - before, "formula": memory.on_cpu(pairs)}))
"""


@pytest.mark.parametrize(
    ("family", "size", "vocabulary", "pairs", "query", "target"),
    [
        ("t5", "115k", 4096, 512, 65, 10),
        ("t5", "7m", 4096, 32, 65, 10),
        ("t5", "17m", 4096, 8, 65, 10),
        ("llama", "98k", 4096, 512, 65, 10),
        ("llama", "787k", 16_000, 64, 30, 20),
        ("llama", "14m", 4096, 8, 65, 10),
    ],
)
def test_the_formula_is_near_the_peak_of_a_training(family, size, vocabulary, pairs, query, target) -> None:
    """Within a quarter, whatever it is that dominates: activations, logits, or weights and optimizer. Below 300 MB
    what the process grows by itself, tens of MB, is as much as the quarter."""
    command = [sys.executable, "-c", MEASURE, family, size, *map(str, (vocabulary, pairs, query, target))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert 0.75 < found["formula"] / found["measured"] < 1.25, found


def memory(name: str = "google-t5/t5-3b", **changes) -> TrainingMemory:
    return replace(TrainingMemory(shape=PRETRAINED[name], query=65, target=32, bf16=True), **changes)


def test_every_stage_spreads_more() -> None:
    alone = [memory(workers=8, stage=stage).on_gpu(1) for stage in range(4)]
    assert alone == sorted(alone, reverse=True)
    assert all(
        memory(workers=2 * n, stage=stage).on_gpu(1) < memory(workers=n, stage=stage).on_gpu(1)
        for n in (1, 2, 4)
        for stage in (1, 2, 3)
    )
    assert memory(workers=8).on_gpu(1) == memory().on_gpu(1), "stage 0 spreads nothing"


def test_what_is_offloaded_is_in_ram() -> None:
    """A parameter's 16 bytes and more leave the GPU, and RAM takes them."""
    for stage, offload in ((2, "optimizer"), (3, "optimizer"), (3, "parameters")):
        here, there = memory(workers=4, stage=stage), memory(workers=4, stage=stage, offload=offload)
        own = here.parameters / 4
        assert here.on_gpu(1) - there.on_gpu(1) > 12 * own
        assert there.offloaded >= 20 * own > here.offloaded == 0
        assert there.beside_gpu() > there.offloaded
    weights = memory(workers=4, stage=3, offload="parameters")
    assert weights.on_gpu(1) < memory(workers=4, stage=3, offload="optimizer").on_gpu(1)


@pytest.mark.parametrize("workers", [1, 8])
def test_ram_holds_the_whole_model_at_first(workers: int) -> None:
    """Every worker builds it in 32-bit floats."""
    parameters = count_parameters(PRETRAINED["google-t5/t5-3b"]).n_total
    assert memory(workers=workers, stage=3).beside_gpu() > 4 * parameters


def test_known_models_take_what_is_known_of_them() -> None:
    """Mixed precision with Adam takes 16 bytes a parameter and its copies; LLaMA-2 7B does not fit 80 GB so."""
    llama = memory("meta-llama/Llama-2-7b-hf")
    assert 16 <= llama.states / llama.parameters < 24
    assert llama.on_gpu(1) > 80e9 > replace(llama, workers=8, stage=2).on_gpu(1)


def test_pairs_and_lengths_cost() -> None:
    one = memory()
    assert one.activations(8) == 8 * one.activations(1)
    assert replace(one, query=130).activations(1) > 1.7 * one.activations(1)
    assert replace(one, dropout=True).activations(1) > one.activations(1)
    assert replace(one, bf16=False).activations(1) > 1.25 * one.activations(1)


def test_offloaded_trainings_learn_the_same(finished_steps: Steps, tmp_path: Path) -> None:
    """To the rounding of their sums; and what was used stands in the metrics."""
    ways: list[tuple[int, Offload]] = [
        (0, "none"),
        (1, "optimizer"),
        (2, "optimizer"),
        (3, "optimizer"),
        (3, "parameters"),
    ]
    curves = []
    for stage, offload in ways:
        out = tmp_path / f"{stage}-{offload}"
        out.mkdir()
        settings = TrainingSettings(
            batch=16, epochs=1, learning_rate=1e-2, log_every=1, micro_batch=8, zero_stage=stage, offload=offload
        )
        job = TrainJob(model=ModelSettings(family="t5", size="7k"), training=settings, pairs=80, seed=0)
        training.train(
            job,
            tokenizer=finished_steps.tokenizer,
            identifiers=finished_steps.ngram,
            embeddings=finished_steps.embeddings,
            out=out,
        )
        curves.append([json.loads(line)["loss"] for line in (out / "curve.jsonl").read_text().splitlines()])
        metrics = json.loads((out / "metrics.json").read_text())
        names = ("zero_stage", "offload", "workers", "micro_batch", "accumulation")
        assert [metrics[name] for name in names] == [stage, offload, 1, 8, 2]
        assert (out / "weights" / "model.safetensors").exists()
    for curve in curves[1:]:
        np.testing.assert_allclose(curve, curves[0], rtol=1e-3)
    assert curves[0][-1] < curves[0][0]
