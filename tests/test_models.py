"""Shapes, counts and FLOPs against the models themselves; sessions against plain forward passes."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from workers.flops import forward_flops, inference_flops
from workers.models.build import build, count_built, rotate_into, shape_of, start_embeddings
from workers.models.ladder import RUNGS, rung_shape
from workers.models.loss import PairLoss, pair_tensors
from workers.models.sessions import open_session
from workers.models.shapes import PRETRAINED, count_parameters
from workers.ragged import Ragged
from workers.settings import ModelSettings

VOCABULARY = 97
QUERIES = Ragged.of([[5, 6, 7], [8], [], [9, 10, 11, 12, 13, 14]])
TARGETS = Ragged.of([[20, 21, 22, 23], [24, 25], [26, 27, 28], [29]])
FAMILIES = {"t5": "7k", "llama": "6k"}


def tiny(family: str, size: str | None = None, vocabulary: int = VOCABULARY):
    return build(ModelSettings(family=family, size=size or FAMILIES[family]), vocabulary, pad=0, seed=3).eval()


@pytest.mark.parametrize(("family", "size"), [(f, s) for f in RUNGS for s in list(RUNGS[f])[:7]])
def test_counts_equal_the_built_model(family: str, size: str) -> None:
    model = tiny(family, size)
    counts = count_parameters(rung_shape(family, size, VOCABULARY))
    assert count_built(model) == (counts.n_total, counts.embedding)
    assert count_parameters(shape_of(model)) == counts


def test_sizes_are_named_by_their_n() -> None:
    for family, rungs in RUNGS.items():
        for name in rungs:
            unit = {"k": 1e3, "m": 1e6}[name[-1]]
            n = count_parameters(rung_shape(family, name, 4096)).n_params
            assert n / unit == pytest.approx(int(name[:-1]), rel=0.15), (family, name, n)


def test_published_parameter_counts() -> None:
    """The N of Cai et al. (SIGIR 2025): every parameter but the input embedding."""
    published = {
        "google-t5/t5-small": 44_057_088,
        "google-t5/t5-base": 198_229_248,
        "google-t5/t5-large": 704_769_024,
        "google-t5/t5-3b": 2_818_699_264,
        "google-t5/t5-11b": 11_274_422_272,
        "meta-llama/Llama-2-7b-hf": 6_607_343_616,
        "meta-llama/Llama-2-13b-hf": 12_852_024_320,
        "meta-llama/Llama-2-70b-hf": 68_714_504_192,
    }
    assert {name: count_parameters(PRETRAINED[name]).n_params for name in published} == published


@pytest.mark.parametrize("family", FAMILIES)
def test_same_seed_same_weights(family: str) -> None:
    settings = ModelSettings(family=family, size=FAMILIES[family])
    one, two, other = (build(settings, VOCABULARY, 0, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def target_log_probs(model, query: np.ndarray, target: np.ndarray, end: int) -> np.ndarray:
    """Log-probability of each target token by one plain forward pass of one pair: the oracle."""
    with torch.inference_mode():
        if model.config.is_encoder_decoder:
            inputs = torch.tensor([[*query, end]])
            decoder = torch.tensor([[0, *target[:-1]]])
            logits = model(input_ids=inputs, decoder_input_ids=decoder).logits[0]
        else:
            logits = model(input_ids=torch.tensor([[*query, end, *target[:-1]]])).logits[0, len(query) :]
    return torch.log_softmax(logits, -1).gather(1, torch.tensor(target, dtype=torch.long)[:, None]).squeeze(1).numpy()


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_equals_plain_forward(family: str) -> None:
    model = tiny(family)
    rows = np.arange(len(QUERIES))
    inputs = pair_tensors(QUERIES, rows, TARGETS, rows, ends=np.ones(len(rows)), longest=64)
    with torch.inference_mode():
        loss = float(PairLoss(model)(*inputs))
    expected = np.concatenate([target_log_probs(model, QUERIES[row], TARGETS[row], 1) for row in rows])
    assert loss == pytest.approx(-expected.mean(), abs=1e-5)


def counted(run) -> float:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize(("family", "size"), [("t5", "115k"), ("llama", "98k"), ("t5", "919k"), ("llama", "787k")])
def test_training_flops_within_two_percent(family: str, size: str) -> None:
    model = build(ModelSettings(family=family, size=size), 600, 0, 0)
    model.set_attn_implementation("eager")  # the counter knows no fused attention on CPU
    rows = np.zeros(4, dtype=np.int64)
    queries, targets = Ragged.of([list(range(10, 30))]), Ragged.of([list(range(30, 38))])
    inputs = pair_tensors(queries, rows, targets, rows, ends=np.ones(4), longest=64)
    measured = counted(lambda: PairLoss(model)(*inputs).backward())
    formula = 3 * forward_flops(shape_of(model), np.full(4, 21), np.full(4, 8)).sum()
    assert formula == pytest.approx(measured, rel=0.02)


@pytest.mark.parametrize(("family", "size"), [("t5", "115k"), ("llama", "98k"), ("t5", "919k"), ("llama", "787k")])
def test_inference_flops_within_two_percent(family: str, size: str) -> None:
    model = tiny(family, size, 600)
    model.set_attn_implementation("eager")
    queries = Ragged.of([list(range(10, 30)), list(range(40, 60))])

    def run() -> None:
        session = open_session(model, queries, np.arange(2), np.ones(2), longest=64)
        parents = torch.tensor([0] * 5 + [1] * 5)
        for _ in range(3):
            session.advance(parents, torch.arange(10) + 2)
            parents = torch.arange(10)

    formula = inference_flops(shape_of(model), np.full(2, 21), np.array([[1, 5, 5, 5]] * 2)).sum()
    assert formula == pytest.approx(counted(run), rel=0.02)


def test_embeddings_keep_their_rank() -> None:
    table = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    wide = rotate_into(table, 16, seed=1)
    assert np.linalg.matrix_rank(wide, tol=1e-4) == 4
    np.testing.assert_allclose((wide**2).mean(axis=1), 1, rtol=1e-5)
    cosine = (table @ table.T) / np.outer(*[np.linalg.norm(table, axis=1)] * 2)
    np.testing.assert_allclose(wide @ wide.T / 16, cosine, atol=1e-4)


def test_starting_embeddings_are_tied_and_scaled() -> None:
    for family, scale in (("t5", 1.0), ("llama", 0.2)):
        model = tiny(family)
        start_embeddings(model, family, np.random.default_rng(0).standard_normal((90, 16)), seed=0)
        weight = model.get_input_embeddings().weight[:90]
        torch.testing.assert_close(weight.pow(2).mean(1).sqrt(), torch.full((90,), scale), rtol=1e-4, atol=1e-4)
        assert model.get_output_embeddings().weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
