"""Training: it learns, repeats bit for bit across interruptions, and says when it cannot go on."""

import gc
import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Steps
from safetensors.torch import load_file

from workers import training, warm
from workers.errors import BadInput, Diverged
from workers.identifiers import prepare
from workers.identifiers.sets import IdentifierSet
from workers.models.loss import PairLoss
from workers.settings import IdentifiersJob, ModelSettings, PseudoQueryIdentifiers, TrainingSettings, TrainJob

SETTINGS = TrainingSettings(batch=16, epochs=2, learning_rate=1e-2, checkpoint_every=5, log_every=1, precision="fp32")


def job(family: str = "t5", pairs: int = 200, **changes) -> TrainJob:
    size = {"t5": "7k", "llama": "6k"}[family]
    return TrainJob(
        model=ModelSettings(family=family, size=size),
        training=SETTINGS.model_copy(update=changes),
        pairs=pairs,
        seed=0,
    )


def run(steps: Steps, out: Path, the_job: TrainJob, identifiers: str = "ngram") -> dict:
    out.mkdir(exist_ok=True)
    training.train(
        the_job,
        tokenizer=steps.tokenizer,
        identifiers=getattr(steps, identifiers),
        embeddings=steps.embeddings,
        out=out,
    )
    return json.loads((out / "metrics.json").read_text())


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "weights" / "model.safetensors")


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "curve.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("family", ["t5", "llama"])
@pytest.mark.parametrize("identifiers", ["ngram", "codebook"])
def test_loss_falls_and_metrics_are_complete(finished_steps: Steps, tmp_path: Path, family, identifiers) -> None:
    metrics = run(finished_steps, tmp_path / "out", job(family), identifiers)
    curve = losses(tmp_path / "out")
    assert len(curve) == metrics["steps"] == 2 * 13
    assert np.mean(curve[-5:]) < np.mean(curve[:5]) - 0.2
    assert metrics["n_total"] == metrics["n_params"] + metrics["n_embedding"]
    assert metrics["d_pairs"] == 200
    assert metrics["train_flops"] > 6 * metrics["n_params"] * metrics["d_tokens"]
    assert not list((tmp_path / "out").glob("step-*")), "the optimizer's state is gone"


@pytest.mark.parametrize(("family", "stage"), [("t5", 0), ("llama", 1), ("t5", 2), ("llama", 3)])
def test_interrupted_equals_uninterrupted(finished_steps, tmp_path, monkeypatch, family, stage) -> None:
    whole = tmp_path / "whole"
    run(finished_steps, whole, job(family, zero_stage=stage))
    broken = tmp_path / "broken"
    original, calls = training._optimizer_step, []

    def dies(*arguments):
        calls.append(1)
        if len(calls) == 13:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(training, "_optimizer_step", dies)
    with pytest.raises(KeyboardInterrupt):
        run(finished_steps, broken, job(family, zero_stage=stage))
    with (broken / "curve.jsonl").open("a") as file:
        file.write('{"step": 99, "lo')  # torn by the kill
    monkeypatch.setattr(training, "_optimizer_step", original)
    run(finished_steps, broken, job(family, zero_stage=stage))
    assert losses(whole) == losses(broken)
    one, two = weights(whole), weights(broken)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_zero_stages_agree(finished_steps: Steps, tmp_path: Path) -> None:
    curves = []
    for stage in (0, 1, 2, 3):
        run(finished_steps, tmp_path / str(stage), job(pairs=80, zero_stage=stage))
        curves.append(losses(tmp_path / str(stage)))
        assert set(weights(tmp_path / str(stage))) == set(weights(tmp_path / "0"))
        sizes = [json.loads((tmp_path / str(each) / "metrics.json").read_text())["n_total"] for each in (0, stage)]
        assert sizes[0] == sizes[1] > 0
    for curve in curves[1:]:
        np.testing.assert_allclose(curve, curves[0], rtol=1e-5)


def test_bf16_learns_where_it_is_asked_for(finished_steps: Steps, tmp_path: Path) -> None:
    run(finished_steps, tmp_path / "out", job(precision="bf16"))
    curve = losses(tmp_path / "out")
    assert np.mean(curve[-5:]) < np.mean(curve[:5]) - 0.2


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_a_batch_may_be_cut_in_any_way(finished_steps: Steps, tmp_path: Path, family: str) -> None:
    """Identifiers are of 2 to 17 tokens here, so a mean over the means of micro-batches would be another loss."""
    identifiers = tmp_path / "identifiers"
    identifiers.mkdir()
    asked = IdentifiersJob(identifiers=PseudoQueryIdentifiers(kind="pseudo_query", max_length=17), seed=0)
    prepare(asked, corpus=finished_steps.corpus, tokenizer=finished_steps.tokenizer, out=identifiers)
    lengths = IdentifierSet.load(identifiers).train.target.lengths[:64]
    assert lengths.max() > 1.5 * lengths.min()
    for micro in (32, 16, 8, 1):
        cut = job(family, pairs=64, batch=32, micro_batch=micro, learning_rate=1e-3)
        out = tmp_path / str(micro)
        out.mkdir()
        training.train(cut, tokenizer=finished_steps.tokenizer, identifiers=identifiers, out=out)
        metrics = json.loads((out / "metrics.json").read_text())
        assert (metrics["micro_batch"], metrics["accumulation"]) == (micro, 32 // micro)
        np.testing.assert_allclose(losses(out), losses(tmp_path / "32"), rtol=1e-5)
        for name, whole in weights(tmp_path / "32").items():
            np.testing.assert_allclose(weights(out)[name], whole, rtol=0, atol=2e-5, err_msg=name)


def test_divergence_stops_with_its_reason(finished_steps: Steps, tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"the (loss|gradient's norm) is (nan|inf) at step"):
        run(finished_steps, tmp_path / "out", job(learning_rate=1e30, clip=1e30, warmup=0.0))


@pytest.mark.parametrize("stage", [0, 1])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gradient_that_is_not_finite_is_seen(finished_steps, tmp_path, monkeypatch, stage, precision) -> None:
    original = training.PairLoss.forward
    calls = []

    def explodes(self, *inputs):
        calls.append(1)
        loss = original(self, *inputs)
        return loss if len(calls) < 4 else loss + 1e30 * (loss - loss.detach()) * 1e30

    monkeypatch.setattr(training.PairLoss, "forward", explodes)
    with pytest.raises(Diverged, match=r"the gradient's norm is (nan|inf) at step 4"):
        run(finished_steps, tmp_path / "out", job(zero_stage=stage, precision=precision))


def test_what_a_failed_training_leaves_is_cleared_away(finished_steps: Steps, tmp_path: Path) -> None:
    """A warm worker tries again in the same process, with smaller passes; the first model must not be there still."""

    def engines() -> int:
        return sum(type(each) is PairLoss for each in gc.get_objects())

    gc.collect()
    before = engines()
    gc.disable()  # as if Python had found no occasion
    try:
        with suppress(Diverged):
            run(finished_steps, tmp_path / "out", job(learning_rate=1e30, clip=1e30, warmup=0.0))
        assert engines() > before
        warm.forget()
        assert engines() == before
    finally:
        gc.enable()


def test_the_last_update_is_checked_too(finished_steps: Steps, tmp_path: Path, monkeypatch) -> None:
    original = training._optimizer_step

    def breaks_a_weight(engine_, *arguments):
        found = original(engine_, *arguments)
        with torch.no_grad():
            next(engine_.module.parameters()).view(-1)[0] = torch.nan
        return found

    monkeypatch.setattr(training, "_optimizer_step", breaks_a_weight)
    with pytest.raises(Diverged, match="a weight is not finite after step 1 of 1"):
        run(finished_steps, tmp_path / "out", job(pairs=16, epochs=1))
    assert not list((tmp_path / "out").glob("step-*")), "such a state is no checkpoint"


def test_the_curve_has_the_gradients_norm(finished_steps: Steps, tmp_path: Path) -> None:
    for stage in (0, 2):
        run(finished_steps, tmp_path / str(stage), job("llama", zero_stage=stage))
    curves = [
        [json.loads(line)["gradient_norm"] for line in (tmp_path / stage / "curve.jsonl").read_text().splitlines()]
        for stage in ("0", "2")
    ]
    np.testing.assert_allclose(curves[0], curves[1], rtol=1e-3)
    assert max(curves[0]) < 100, "no token starts at zero"


def test_what_cannot_be_trained(finished_steps: Steps, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"data\.pairs: 100000 training pairs were asked for, there are 576"):
        run(finished_steps, tmp_path / "a", job(pairs=100_000))
    with pytest.raises(BadInput, match=r"training\.batch: 16 pairs cannot be cut"):
        run(finished_steps, tmp_path / "b", job(micro_batch=5))


def test_an_epoch_has_every_pair_and_little_padding() -> None:
    lengths = np.random.default_rng(0).integers(3, 60, size=3205)
    batches = training.epoch_batches(lengths, 32, seed=1, epoch=0)
    assert batches.shape == (101, 32)
    assert set(batches.ravel().tolist()) == set(range(3205))
    padded = sum(lengths[batch].max() * 32 for batch in batches)
    assert padded < 1.1 * lengths[batches].sum()
    assert not (training.epoch_batches(lengths, 32, 1, 1) == batches).all()
    assert (training.epoch_batches(lengths, 32, 1, 0) == batches).all()
    assert training.epoch_batches(lengths[:3], 32, 0, 0).shape == (1, 32)
