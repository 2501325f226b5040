"""Stopping between two pieces of work when asked to: a node is taken away, or the sweep is to end.

A request is kept for the whole process. Training looks at it once an optimizer step and saves a checkpoint first;
scoring and search look between batches.
"""

import signal

from workers.errors import Interrupted

_requested = False  # no lock: a signal's handler may come at any moment, even while another thread sets it


def request_stop() -> None:
    """Ask the work of this process to stop soon. May be called from any thread, and from a signal's handler."""
    global _requested
    _requested = True


def stop_requested() -> bool:
    """Whether this process was asked to stop."""
    return _requested


def forget_request() -> None:
    """Take the request back, for a process that goes on to other work."""
    global _requested
    _requested = False


def stop_on_sigterm() -> None:
    """Have SIGTERM ask for a stop instead of ending the process. For the main thread only, as with any signal."""
    signal.signal(signal.SIGTERM, lambda number, frame: request_stop())


def stop_here(doing: str) -> None:
    """Raise Interrupted where a stop was asked for; for work that keeps nothing of its own."""
    if _requested:
        raise Interrupted(f"stopped, as asked, while {doing}")
