"""Parts of a GPU, and models that are spread over several devices. There need be no GPU: numbers are given, and the
`meta` device stands for a second one, where shapes are computed and values are not."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from workers import device, memory
from workers.memory import search_limit
from workers.models import build as building
from workers.models.any_decoder import AnyDecoder
from workers.models.attention import RowGroups
from workers.models.build import build, is_spread
from workers.models.llama import LlamaDecoder
from workers.models.prompts import PaddedPrompts
from workers.models.sessions import ModelSession, _decoder
from workers.models.t5 import T5Decoder
from workers.models.together import VALUES_TOGETHER
from workers.ragged import Ragged
from workers.search_memory import SEARCH_SHARE, UNEVEN
from workers.settings import ModelSettings
from workers.training_memory import CUDA

GIB = 2**30


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, float]]:
    """Two GPUs of 80 GiB, as far as their numbers go; on the first 10 GiB are taken."""
    fractions: dict[str, float] = {}
    fakes: dict[str, Any] = {
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "get_device_properties": lambda number: SimpleNamespace(total_memory=80 * GIB),
        "memory_allocated": lambda number: 10 * GIB * (1 - number),
        "set_per_process_memory_fraction": lambda fraction: fractions.update(cap=fraction),
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.delenv("DS_ACCELERATOR", raising=False)
    monkeypatch.delenv(device.GPU_SHARE, raising=False)
    device.keep_to_share.cache_clear()
    yield fractions
    device.keep_to_share.cache_clear()


def test_a_part_of_a_gpu_is_all_that_is_taken(two_gpus, monkeypatch) -> None:
    monkeypatch.setenv(device.GPU_SHARE, "0.25")
    assert device.device() == torch.device("cuda")
    assert two_gpus["cap"] == pytest.approx((20 * GIB - CUDA) / (80 * GIB))
    assert search_limit() == int(SEARCH_SHARE * (20 * GIB - CUDA - 10 * GIB)), "beside what is there already"


def test_a_model_on_two_gpus_has_the_room_of_both(two_gpus, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda number: (30 + 10 * number) * GIB)
    assert search_limit() == int(SEARCH_SHARE * 2 / UNEVEN * (80 * GIB - CUDA - 40 * GIB))


def test_a_whole_gpu_is_not_capped(two_gpus) -> None:
    assert device.gpu_share() == 1
    device.device()
    assert not two_gpus
    assert search_limit() == int(SEARCH_SHARE * (80 * GIB - CUDA - 10 * GIB))


def test_a_share_that_is_none(two_gpus, monkeypatch) -> None:
    monkeypatch.setenv(device.GPU_SHARE, "2")
    with pytest.raises(ValueError, match="GRIDLAW_GPU_SHARE=2 is no part of a GPU"):
        device.gpu_share()


def test_a_worker_without_a_gpu_has_the_cpus_limit(two_gpus, monkeypatch) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    assert device.device() == torch.device("cpu")
    assert search_limit() == memory.CPU_LIMIT
    assert not two_gpus


def test_only_large_models_are_spread(two_gpus, monkeypatch, tmp_path) -> None:
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(15 * GIB)
    assert not building._is_large(tmp_path)
    with (tmp_path / "model-2.safetensors").open("wb") as file:
        file.truncate(15 * GIB)
    assert building._is_large(tmp_path)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert not building._is_large(tmp_path)


# ---------------------------------------------------------------- several devices


class OneDevice(TorchDispatchMode):
    """Every operation has all its tensors on one device, but for what copies from one to another and for numbers."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        devices = {each.device for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor) and each.dim()}
        assert len(devices) < 2 or "copy" in str(function), f"{function} on {devices}"
        return function(*args, **(kwargs or {}))


def queries(lengths: tuple[int, ...] = (3, 6, 5)) -> Ragged:
    return Ragged.of([np.arange(2, 2 + length) for length in lengths])


def make(family: str, size: str) -> Any:
    return build(ModelSettings(family=family, size=size), 300, 0, 0).eval()


def to_meta(modules: list[Any]) -> None:
    for module in modules:
        module.to("meta")
        add_hook_to_module(module, AlignDevicesHook(execution_device="meta"), append=True)


@contextmanager
def watched() -> Iterator[None]:
    with torch.inference_mode(), OneDevice():
        yield


def rows_of(decoder: Any) -> torch.Tensor:
    """Two steps with rows of unlike numbers; the last states."""
    groups = RowGroups(np.array([0, 0, 1, 2, 2]), 3, torch.device("cpu"))
    first = decoder.step(torch.tensor([3, 4, 5, 6, 7]), torch.tensor([0, 0, 1, 2, 2]), groups)
    assert len(first) == 5
    groups = RowGroups(np.array([0, 1, 1, 2]), 3, torch.device("cpu"))
    return decoder.step(torch.tensor([3, 4, 5, 6]), torch.tensor([1, 2, 2, 4]), groups)


def test_a_t5_goes_from_device_to_device() -> None:
    model = make("t5", "919k")
    assert not is_spread(model)
    to_meta([*model.decoder.block[1:], model.decoder.final_layer_norm])
    assert is_spread(model)
    with watched():
        decoder = _decoder(model, queries())
        assert isinstance(decoder, T5Decoder)
        assert [prompt.keys.device.type for prompt in decoder.prompts] == ["cpu", "meta"]
        last = rows_of(decoder)
    assert (last.device.type, last.shape) == ("meta", (4, 128))


def test_a_decoder_goes_from_device_to_device() -> None:
    """Through its own forward pass: the loop over its layers is for one device."""
    model = make("llama", "787k")
    to_meta([*model.model.layers[2:], model.model.norm])
    with watched():
        decoder = _decoder(model, queries())
        assert isinstance(decoder, AnyDecoder)
        assert [prompt.keys.device.type for prompt in decoder.prompts] == ["cpu", "cpu", "meta", "meta"]
        last = rows_of(decoder)
    assert (last.device.type, last.shape) == ("meta", (4, 128))


def test_the_encoder_goes_from_device_to_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VALUES_TOGETHER, "meta", 2**19)
    model = make("t5", "919k")
    to_meta([*model.encoder.block[1:], model.encoder.final_layer_norm, *model.decoder.block])
    to_meta([model.decoder.final_layer_norm])
    with watched():
        decoder = _decoder(model, queries())
        assert {prompt.keys.device.type for prompt in decoder.prompts} == {"meta"}
        assert rows_of(decoder).shape == (4, 128)


def test_both_ways_through_a_decoder_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("llama", "787k")
    found = []
    for spread, kind in ((False, LlamaDecoder), (True, AnyDecoder)):
        monkeypatch.setattr("workers.models.sessions.is_spread", lambda model, spread=spread: spread)
        session = ModelSession(model, queries())
        assert isinstance(session.decoder, kind)
        parents, tokens = torch.tensor([0, 0, 1, 2]), torch.tensor([3, 4, 5, 6])
        found.append((session.first.clone(), session.advance(parents, tokens).clone()))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_padding_is_where_it_is_needed() -> None:
    groups = RowGroups(np.array([0, 0, 1]), 2, torch.device("cpu"))
    assert groups.at(torch.device("cpu")) is groups
    there = groups.at(torch.device("meta"))
    assert there.query_of_row.device.type == "meta"
    assert there.pack(torch.empty(3, 2, 1, 4, device="meta")).shape == (2, 2, 2, 4)
    assert groups.query_of_row.device.type == "cpu"
    assert PaddedPrompts(queries((2, 2)), left=True, device=torch.device("cpu")).padding is None
