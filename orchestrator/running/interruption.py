"""Ctrl-C and SIGTERM: the first asks the sweep to stop cleanly, the second ends it at once."""

import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Within the context, whether it was asked to stop. A second signal raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self._asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():  # the only one that may set handlers
            self._before = {each: signal.signal(each, self._handle) for each in SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        """Put back what was there."""
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def __call__(self) -> bool:
        """Whether it was asked to stop."""
        return self._asked

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True  # and no more: a handler may come in the middle of a line that is printed
