"""How much memory a batch of a search may take, and how much a stretch of work did need at its peak."""

import ctypes
import resource
from pathlib import Path
from typing import Any

import torch

from workers.device import gpu_bytes, on_gpu
from workers.search_memory import SEARCH_SHARE, UNEVEN

CPU_LIMIT = 128 * 2**20
"""Bytes a batch may take on a CPU: one number everywhere, so that batches and results are the same to the bit. What
is larger than the caches gains nothing; searches of 1 to 64 beams were fastest at 64 to 128 MiB."""


def search_limit(megabytes: int | None = None) -> int:
    """Bytes that a batch of a search may take: as many as are given, else what this worker's device has left.

    Of several GPUs that a model is spread over, as much as the fullest leaves of each.
    """
    if megabytes is not None:
        return megabytes * 2**20
    if on_gpu():
        taken = [torch.cuda.memory_allocated(number) for number in range(torch.cuda.device_count())]
        spread = len(taken) / UNEVEN if min(taken) else 1.0  # a model on one of them leaves the others empty
        return int(SEARCH_SHARE * spread * max(0, gpu_bytes() - max(taken)))
    return CPU_LIMIT


_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)


def reuse_freed_memory() -> None:
    """Have this process keep what PyTorch frees on the CPU for its next tensors, instead of handing it back.

    glibc returns each table of logits to the system and asks for it again in the next step; a quarter of a small
    model's training went into those page faults. What is larger than 32 MiB goes back at once, as ever. Elsewhere
    than on glibc nothing happens.
    """
    allocator = _glibc()
    if allocator is not None:
        allocator.mallopt(_MMAP_THRESHOLD, 32 * 2**20)
        allocator.mallopt(_TRIM_THRESHOLD, 512 * 2**20)


def _glibc() -> Any:
    try:
        library = ctypes.CDLL("libc.so.6")
    except OSError:
        return None
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


def start_peak() -> None:
    """Forget earlier peaks, so that a warm worker does not report those of the step before."""
    if on_gpu():
        torch.cuda.reset_peak_memory_stats()
    elif _CLEAR.exists():
        allocator = _glibc()
        if allocator is not None:
            allocator.malloc_trim(0)  # what an earlier step has freed is none of this one's
        _CLEAR.write_text("5")  # Linux: reset the high-water mark of the resident set


def peak_bytes() -> int:
    """Bytes at the peak since `start_peak`; since the process began where the system cannot forget."""
    if on_gpu():
        return torch.cuda.max_memory_allocated()
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
