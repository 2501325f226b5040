"""What a warm worker keeps between steps: the newest loaded thing, and never two of them at once."""

from collections.abc import Callable, Hashable
from typing import Any

_kept: dict[Hashable, Any] = {}


def keep(key: Hashable, load: Callable[[], Any]) -> Any:
    """What was kept under `key`, else what `load` gives; anything else is let go first, so that memory holds one."""
    if key not in _kept:
        forget()
        _kept[key] = load()
    return _kept[key]


def forget() -> None:
    """Let go of what is kept: a training that begins needs the room."""
    _kept.clear()
