"""DeepSpeed's checkpoint files without pickle: tensors in safetensors, all else as JSON in the file's header.

DeepSpeed would write with `torch.save` and read with a full unpickler, which runs whatever a file tells it to. Here
reading a file can give nothing but plain values, tensors, and objects of the two harmless kinds listed below. Files
keep the names that DeepSpeed gives them (`.pt`), because it looks for them by name.
"""

import json
import os
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from workers import accelerator  # noqa: F401  decides what DeepSpeed is imported for

# isort: split
import torch
from deepspeed.runtime.checkpoint_engine.checkpoint_engine import CheckpointCommitInfo, CheckpointEngine
from deepspeed.runtime.fp16.loss_scaler import LossScaler
from deepspeed.utils.tensor_fragment import fragment_address
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

_OBJECTS: Mapping[str, tuple[type, Mapping[str, str]]] = {
    "LossScaler": (LossScaler, {"scale": "cur_scale"}),
    "fragment_address": (fragment_address, {"numel": "numel", "start": "start"}),
}
"""The objects that ZeRO's optimizers keep: type, and parameter -> attribute."""

_NOTE = "state"


class Unreadable(ValueError):
    """A file is no state that was written here, or no longer."""


class StateFiles(CheckpointEngine):
    """What DeepSpeed saves and loads its checkpoints through."""

    def __init__(self) -> None:
        super().__init__()
        self.name = "StateFiles"

    def create(self, info: CheckpointCommitInfo) -> None:
        """Nothing to prepare."""

    def save(self, state_dict: Any, path: str) -> None:
        """Write one file and have it on disk; each rank does so with its own."""
        write_state(Path(path), state_dict)

    def load(self, path: str, map_location: Any = None) -> Any:
        """Read one file, onto the CPU: from there each rank takes what it needs."""
        return read_state(Path(path))

    def commit(self, info: CheckpointCommitInfo) -> bool:
        """Nothing to do: the marker is written by who asked for the checkpoint."""
        return True

    def preserves_storage_sharing(self) -> bool:
        """No: a view into a large buffer is written as itself, so DeepSpeed need not clone it."""
        return False


def write_state(path: Path, state: Any) -> None:
    """Write nested dicts, lists and tuples of tensors and plain values. Raises TypeError for anything else."""
    tensors: dict[str, torch.Tensor] = {}
    names: dict[tuple[object, ...], str] = {}
    note = json.dumps(_plain(state, tensors, names))
    save_file(tensors, path, metadata={_NOTE: note})
    with path.open("rb") as file:
        os.fsync(file.fileno())


def read_state(path: Path) -> Any:
    """What `write_state` wrote, on the CPU; tuples and dicts for their subclasses. Raises Unreadable."""
    try:
        with safe_open(path, framework="pt") as file:
            note = json.loads((file.metadata() or {})[_NOTE])
            # Copies, because a tensor that was only mapped would stay tied to the file.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        return _restored(note, tensors)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise Unreadable(f"{path.name} is no state of a training: {type(error).__name__}: {error}") from error


def _plain(value: Any, tensors: dict[str, torch.Tensor], names: dict[tuple[object, ...], str]) -> Any:
    """`value` as JSON; tensors go into `tensors`, tied ones once."""
    if isinstance(value, torch.Tensor):
        return {"tensor": _named(value.detach(), tensors, names)}
    if isinstance(value, Enum):
        return _plain(value.value, tensors, names)
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, list):
        return [_plain(one, tensors, names) for one in value]
    if isinstance(value, tuple | set):
        kind = "tuple" if isinstance(value, tuple) else "set"
        return {kind: [_plain(one, tensors, names) for one in value]}
    if isinstance(value, dict):
        return {"dict": [[_plain(each, tensors, names) for each in pair] for pair in value.items()]}
    for name, (kind_of, attributes) in _OBJECTS.items():
        if type(value) is kind_of:
            return {name: {key: _plain(getattr(value, of), tensors, names) for key, of in attributes.items()}}
    raise TypeError(f"a checkpoint cannot hold {type(value).__module__}.{type(value).__qualname__}")


def _named(tensor: torch.Tensor, tensors: dict[str, torch.Tensor], names: dict[tuple[object, ...], str]) -> str:
    """The name of a tensor in the file; that of an equal view of the same memory where there is one."""
    same = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()) if tensor.numel() else (len(names),)
    if same not in names:
        names[same] = str(len(names))
        tensors[names[same]] = tensor.contiguous()
    return names[same]


def _restored(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """What `_plain` made JSON of."""
    if isinstance(value, list):
        return [_restored(one, tensors) for one in value]
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "tensor":
        return tensors[inner]
    if kind == "dict":
        return {_restored(key, tensors): _restored(one, tensors) for key, one in inner}
    if kind in ("tuple", "set"):
        made = [_restored(one, tensors) for one in inner]
        return tuple(made) if kind == "tuple" else set(made)
    return _OBJECTS[kind][0](**{key: _restored(one, tensors) for key, one in inner.items()})
