"""The search on a device: equal to the one on the host, and nothing in it waits for the host."""

import numpy as np
import pytest
import torch
from test_beam import QUERIES, VOCABULARY, sequences
from torch.utils._python_dispatch import TorchDispatchMode

from workers.decoding import device_beam
from workers.decoding.beam import Search, beam_search
from workers.decoding.index import build_index
from workers.decoding.torch_step import DeviceIndex
from workers.models.build import build
from workers.models.sessions import open_session
from workers.ragged import Ragged
from workers.settings import ModelSettings

INDEX = build_index(
    Ragged.of(np.random.default_rng(0).integers(2, VOCABULARY, size=(40, 6)).tolist()), VOCABULARY, "suffixes"
)


def session(family: str):
    settings = ModelSettings(family=family, size={"t5": "7k", "llama": "6k"}[family])
    model = build(settings, VOCABULARY, 0, 1).eval()
    return open_session(model, QUERIES, np.arange(3), np.ones(3), 64)


@pytest.mark.parametrize("search", [Search(beams=5, max_new_tokens=4), Search(beams=3, max_new_tokens=6, wanted=3)])
@pytest.mark.parametrize("family", ["t5", "llama"])
def test_equals_the_search_on_the_host(family: str, search: Search) -> None:
    expected = beam_search(session(family), INDEX, search)
    index = DeviceIndex.of(INDEX, torch.device("cpu"))
    found = device_beam.beam_search_on_device(session(family), index, search)
    assert found.rows.tolist() == expected.rows.tolist()
    for query in range(3):
        for only_complete in (False, True):
            there = sequences(expected.candidates, INDEX, query, only_complete)
            assert sequences(found.candidates, INDEX, query, only_complete) == pytest.approx(there, abs=1e-4)


class NoReading(TorchDispatchMode):
    """Fails at whatever needs a tensor's values on the host: scalars, and shapes that depend on values."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name()
        assert not any(part in name for part in ("_local_scalar_dense", "nonzero", "unique", "masked_select")), name
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_no_step_waits_for_the_host(family: str) -> None:
    opened = session(family)
    index = DeviceIndex.of(INDEX, torch.device("cpu"))
    with NoReading():
        steps, rows, _, _ = device_beam._search(opened, index, Search(beams=5, max_new_tokens=4, wanted=5), 8)
    assert len(steps) == rows.shape[1] == 4


def test_no_step_reads_the_index_or_the_scores() -> None:
    """On the meta device there are no values, so a step that asked for one would fail."""

    class Session:
        first = torch.empty(3, VOCABULARY, device="meta")

        def advance(self, parents: torch.Tensor, tokens: torch.Tensor, each: int | None = None) -> torch.Tensor:
            return torch.empty(len(parents), VOCABULARY, device="meta")

    index = DeviceIndex.of(INDEX, torch.device("meta"))
    steps, _, certified, _ = device_beam._search(Session(), index, Search(beams=5, max_new_tokens=4, wanted=5), 8)
    assert len(steps) == 4
    assert certified.device.type == "meta"


def test_looks_up_more_where_the_best_are_not_allowed() -> None:
    """All of a query's likely tokens are forbidden: the certificate fails, and the search is done again."""
    vocabulary, allowed = 2000, [3, 1999]
    index = build_index(Ragged.of([[token, token] for token in allowed]), vocabulary, "rows")

    class Session:
        first = torch.log_softmax(torch.arange(vocabulary, 0, -1).float() / 100, 0).expand(2, -1).clone()
        restarts = 0

        def __init__(self) -> None:
            self.first[:, 3] = -50.0

        def restart(self) -> None:
            self.restarts += 1

        def advance(self, parents: torch.Tensor, tokens: torch.Tensor, each: int | None = None) -> torch.Tensor:
            return self.first[:1].expand(len(parents), -1)

    fake = Session()
    search = Search(beams=2, max_new_tokens=2)
    found = device_beam.beam_search_on_device(fake, DeviceIndex.of(index, torch.device("cpu")), search)
    expected = beam_search(Session(), index, search)
    for query in range(2):
        assert sequences(found.candidates, index, query) == sequences(expected.candidates, index, query)


def test_narrow_beams_need_no_second_search() -> None:
    """N-grams soon have fewer continuations than beams, and the model likes others: they are enumerated."""
    vocabulary = 2000
    rows = np.random.default_rng(0).integers(0, vocabulary, size=(60, 12)).tolist()
    index = build_index(Ragged.of(rows), vocabulary, "suffixes")

    class Session:
        first = torch.log_softmax(torch.randn(2, vocabulary, generator=torch.Generator().manual_seed(0)), -1)

        def restart(self) -> None:
            raise AssertionError("searched again")

        def advance(self, parents: torch.Tensor, tokens: torch.Tensor, each: int | None = None) -> torch.Tensor:
            return self.first[:1].expand(len(parents), -1)

    search = Search(beams=4, max_new_tokens=6)
    found = device_beam.beam_search_on_device(Session(), DeviceIndex.of(index, torch.device("cpu")), search)
    expected = beam_search(Session(), index, search)
    for query in range(2):
        assert sequences(found.candidates, index, query) == sequences(expected.candidates, index, query)
    assert found.rows.tolist() == expected.rows.tolist()
