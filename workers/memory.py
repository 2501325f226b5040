"""Peak memory of a stretch of work: the GPU's where there is one, else this process's."""

import resource
from pathlib import Path

import torch

from workers.device import on_gpu

_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


def start_peak() -> None:
    """Forget earlier peaks, so that a warm worker does not report those of the step before."""
    if on_gpu():
        torch.cuda.reset_peak_memory_stats()
    elif _CLEAR.exists():
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
