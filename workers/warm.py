"""What a warm worker keeps between steps: the newest loaded thing, and never two of them at once."""

import gc
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

_kept: dict[Hashable, Any] = {}
_broken_off = False


def keep(key: Hashable, load: Callable[[], Any]) -> Any:
    """What was kept under `key`, else what `load` gives; anything else is let go first, so that memory holds one."""
    if key not in _kept:
        forget()
        _kept[key] = load()
    return _kept[key]


def forget() -> None:
    """Let go of what is kept, and of what broken work has left: a training that begins needs the room."""
    global _broken_off
    _kept.clear()
    if _broken_off:
        gc.collect()
        torch.cuda.empty_cache()  # does nothing without a GPU
        _broken_off = False


@contextmanager
def clear_up_after() -> Iterator[None]:
    """Around work that leaves much memory behind in cycles when it ends by an error.

    The error's own frames hold that memory until it has been dealt with, so the next `forget` collects it.
    """
    global _broken_off
    _broken_off = True
    yield
    _broken_off = False
