"""Worker functions that run into trouble."""

import os
import resource
from pathlib import Path
from typing import Any

LIMIT = "GRIDLAW_TEST_MEMORY_LIMIT"
ENOUGH = 4
"""The micro-batch from which on memory suffices."""


def train(settings: Any, *, out: Path, **more: Any) -> None:
    """`workers.training.train` under a limit of memory that the operating system enforces."""
    from workers import training

    micro_batch = settings.training.micro_batch or settings.training.batch
    if micro_batch <= ENOUGH:
        training.train(settings, out=out, **more)
        return
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + int(os.environ[LIMIT]) * 2**20, before[1]))
    try:
        training.train(settings, out=out, **more)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
