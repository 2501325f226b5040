"""Why a step failed, and whether trying again can help."""

import traceback

from workers.errors import BadInput, Diverged, Interrupted, out_of_memory, storage_trouble

BAD_INPUT = "bad_input"
DIVERGED = "diverged"
OUT_OF_MEMORY = "out_of_memory"
WORKER_DIED = "worker_died"
NODE_LOST = "node_lost"
TIMEOUT = "timeout"
STORAGE = "storage"
INTERRUPTED = "interrupted"
"""Asked to stop: no failure, and the step goes on from where it was."""
NEEDED_STEP = "needed_step"
ERROR = "error"

FINAL = frozenset({BAD_INPUT, DIVERGED, NEEDED_STEP})
"""Kinds that end the same way however often they are tried."""
INTERRUPTED_SECONDS = 2.0
"""A machine that is being taken away asks what runs on it to stop; a moment later it is gone."""
STORAGE_ATTEMPTS = 12
"""A full disk, or a store that does not answer: with the pauses between them more than half an hour."""


class NoWorkers(RuntimeError):
    """Ray is there, but its workers do not start. One line."""


def classify(error: BaseException) -> str:
    """The kind of an exception that a worker function raised."""
    if isinstance(error, BadInput):
        return BAD_INPUT
    if isinstance(error, Diverged):
        return DIVERGED
    if isinstance(error, Interrupted):
        return INTERRUPTED
    if out_of_memory(error):
        return OUT_OF_MEMORY
    if storage_trouble(error):
        return STORAGE
    return ERROR


def may_retry(kind: str, times: int, max_attempts: int) -> bool:
    """Whether a step that has failed `times` times in this way is tried again. Every kind has a budget of its own."""
    if kind in FINAL:
        return False
    if kind == NODE_LOST:
        return True
    return times < (STORAGE_ATTEMPTS if kind == STORAGE else max_attempts)


def delay(kind: str, times: int) -> float:
    """Seconds to wait before the next try."""
    if kind == STORAGE:
        return min(300.0, 2.0**times)
    return INTERRUPTED_SECONDS if kind == INTERRUPTED else 0.0


def one_line(error: BaseException) -> str:
    """`KeyError: 'x'`; the message alone where its type says no more than the kind does."""
    text = " ".join(str(error).split())
    if isinstance(error, BadInput | Diverged | Interrupted) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def short(error: BaseException) -> str:
    """Ray's long messages, on one line and cut."""
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:297] + "..."


def trace(error: BaseException) -> str:
    """The traceback as text."""
    return "".join(traceback.format_exception(error))
