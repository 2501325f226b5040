"""Why a step failed, and whether trying again can help."""

import traceback

from workers.errors import BadInput, Diverged, Interrupted, out_of_memory, storage_trouble

BAD_INPUT = "bad_input"
DIVERGED = "diverged"
OUT_OF_MEMORY = "out_of_memory"
STORAGE = "storage"
WORKER_DIED = "worker_died"
NEEDED_STEP = "needed_step"
ERROR = "error"
INTERRUPTED = "interrupted"
"""No failure: the step was asked to stop and goes on later from where it was."""

FINAL = frozenset({BAD_INPUT, DIVERGED, NEEDED_STEP})
"""Kinds that end the same way however often they are tried."""


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


def may_retry(kind: str, attempts: int, max_attempts: int) -> bool:
    """Whether a step that has failed `attempts` times is tried again."""
    return kind not in FINAL and attempts < max_attempts


def one_line(error: BaseException) -> str:
    """`KeyError: 'x'`; the message alone where its type says no more than the kind does."""
    text = " ".join(str(error).split())
    if isinstance(error, BadInput | Diverged | Interrupted) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def trace(error: BaseException) -> str:
    """The traceback as text."""
    return "".join(traceback.format_exception(error))
