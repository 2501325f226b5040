"""Likelihoods of whole identifiers against one forward pass a pair, and what they cost."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from workers import cgl
from workers.flops import inference_flops
from workers.identifiers.sets import Pairs
from workers.models.build import build, shape_of
from workers.models.likelihood import first_alike, identifier_log_probs
from workers.models.loss import PairLoss, pair_tensors
from workers.models.sessions import open_session
from workers.ragged import Ragged
from workers.settings import ModelSettings

VOCABULARY = 40
QUERIES = Ragged.of([[5, 6, 7], [8], [], [9, 10, 11, 12, 13, 14]])
TARGETS = Ragged.of([[20, 21, 22], [20, 21], [20, 21, 22], [20, 30, 31, 32], [3], [20], [20, 21, 22]])
OWNER = np.array([3, 0, 0, 0, 1, 3, 0])


def make(family: str):
    return build(ModelSettings(family=family, size={"t5": "7k", "llama": "6k"}[family]), VOCABULARY, 0, 3).eval()


def pair_log_prob(model, sources: Ragged, query: int, targets: Ragged, target: int) -> float:
    """The oracle."""
    inputs = pair_tensors(sources, np.array([query]), targets, np.array([target]), np.array([1]), 64)
    with torch.inference_mode():
        return -float(PairLoss(model)(*inputs)) * len(targets[target])


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_equals_one_forward_pass_a_pair(family: str) -> None:
    model = make(family)
    session = open_session(model, QUERIES, np.arange(4), np.ones(4), 64)
    found = identifier_log_probs(session, OWNER, TARGETS)
    expected = [pair_log_prob(model, QUERIES, q, TARGETS, t) for t, q in enumerate(OWNER)]
    assert found.log_probs.dtype == np.float64
    np.testing.assert_allclose(found.log_probs, expected, atol=1e-5)
    assert found.log_probs[2] == found.log_probs[6]
    session.restart()
    again = identifier_log_probs(session, OWNER, TARGETS)
    assert (again.log_probs == found.log_probs).all()


def test_only_prefixes_that_go_on_are_rows() -> None:
    session = open_session(make("t5"), QUERIES, np.arange(4), np.ones(4), 64)
    rows = identifier_log_probs(session, OWNER, TARGETS).rows
    # Query 0: [20], then [20, 21] and [20, 30], then [20, 30, 31]. Query 1's one token needs no further pass.
    assert rows.tolist() == [[1, 1, 2, 1], [1, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]]


@pytest.mark.parametrize(("family", "size"), [("t5", "115k"), ("llama", "98k")])
def test_the_rows_give_the_flops(family: str, size: str) -> None:
    model = build(ModelSettings(family=family, size=size), 600, 0, 0).eval()
    model.set_attn_implementation("eager")  # the counter knows no fused attention on CPU
    queries = Ragged.of([list(range(10, 30))])
    targets = Ragged.of(np.random.default_rng(0).integers(3, 7, size=(30, 6)))
    with FlopCounterMode(display=False) as counter:
        session = open_session(model, queries, np.array([0]), np.ones(1), 64)
        rows = identifier_log_probs(session, np.zeros(30, int), targets).rows
    formula = inference_flops(shape_of(model), np.array([21]), rows)[0]
    assert formula == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_nothing_to_score_and_empty_targets() -> None:
    session = open_session(make("llama"), QUERIES, np.arange(4), np.ones(4), 64)
    none = identifier_log_probs(session, np.empty(0, dtype=np.int64), Ragged.of([]))
    assert none.log_probs.shape == (0,)
    assert none.rows.tolist() == [[1]] * 4
    assert identifier_log_probs(session, np.array([2]), Ragged.of([[]])).log_probs.tolist() == [0.0]


def test_alike_targets_are_found() -> None:
    assert first_alike(TARGETS).tolist() == [0, 1, 0, 3, 4, 5, 0]
    assert first_alike(Ragged.of([[], [0], [], [0, 0], [0]])).tolist() == [0, 1, 0, 3, 1]
    assert first_alike(Ragged.of([])).tolist() == []


@pytest.mark.parametrize("family", ["t5", "llama"])
@pytest.mark.parametrize("limit", [0, 2**22, 2**29])
def test_packing_and_cutting_change_nothing(family: str, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Down to one row at a time: what memory holds decides only which candidates go through together."""
    model = make(family)
    rng = np.random.default_rng(0)
    targets = Ragged.of([rng.integers(3, 8, size=n) for n in rng.integers(1, 6, size=60)])
    view = np.zeros(60, dtype=np.int8)
    held_out = Pairs(sources=QUERIES, source=np.zeros(60, int), document=np.arange(60), target=targets, view=view)
    queries = np.array([3, 0, 2, 1])
    candidates = [np.sort(rng.choice(60, size=n, replace=False)) for n in (10, 30, 1, 5)]
    monkeypatch.setattr(cgl, "search_limit", lambda given: limit)
    found = cgl.candidate_log_probs(model, held_out, queries, candidates, np.ones(60, int), 64)
    for query, rows, log_probs in zip(queries, candidates, found, strict=True):
        expected = [pair_log_prob(model, QUERIES, query, targets, row) for row in rows]
        np.testing.assert_allclose(log_probs, expected, atol=1e-5)


def test_a_query_is_cut_between_identifiers_that_begin_alike_only_where_it_must_be() -> None:
    """Sorted by their tokens, a shorter one before what continues it; a view's packs are its own."""
    target = Ragged.of([[2, 1], [1, 5], [2], [1, 4], [9, 9], [1, 4, 0]])
    rows, ends = np.array([0, 1, 2, 3, 5]), np.array([7, 7, 7, 7, 8])
    packs = cgl._packs(3, ends, target, rows, 2)
    assert [(pack.query, pack.end, pack.places.tolist()) for pack in packs] == [
        (3, 7, [3, 1]),
        (3, 7, [2, 0]),
        (3, 8, [4]),
    ]
    assert [pack.places.tolist() for pack in cgl._packs(3, ends, target, rows, 4)] == [[0, 1, 2, 3], [4]]
