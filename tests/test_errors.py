"""Errors of memory and of storage are told from all others, in the words of each library that raises them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import Steps
from test_training import job

from orchestrator.running import failures
from workers.errors import BadInput, Diverged, Interrupted
from workers.settings import ModelSettings


def wrapped(error: BaseException) -> BaseException:
    outer = RuntimeError("while doing something")
    outer.__cause__ = error
    return outer


MEMORY = [
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:99] data. DefaultCPUAllocator: not enough memory: you tried to"),
    RuntimeError("unable to mmap 4096 bytes from file <x>: Cannot allocate memory (12)"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("std::bad_alloc"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    pa.ArrowMemoryError("malloc of size 8 failed"),
    OSError(12, "Cannot allocate memory"),
    wrapped(MemoryError()),
]

STORAGE = [
    OSError(28, "No space left on device"),
    OSError(122, "Disk quota exceeded"),
    OSError(5, "Input/output error"),
    OSError(116, "Stale file handle"),
    OSError("When reading information for key 'x' in bucket 'b': AWS Error NETWORK_CONNECTION during HeadObject: curl"),
    RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    wrapped(OSError(28, "No space left on device")),
]

NEITHER = [
    (RuntimeError("CUDA error: an illegal memory access was encountered"), failures.ERROR),
    (FileNotFoundError(2, "No such file or directory"), failures.ERROR),
    (PermissionError(13, "Permission denied"), failures.ERROR),
    (RuntimeError("Connection closed by peer [127.0.0.1]:4242"), failures.ERROR),
    (BadInput("corpus.path: no such file"), failures.BAD_INPUT),
    (Diverged("the loss is nan at step 1 of 2"), failures.DIVERGED),
    (Interrupted("stopped, as asked, after step 1 of 2"), failures.INTERRUPTED),
]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        *((error, failures.OUT_OF_MEMORY) for error in MEMORY),
        *((error, failures.STORAGE) for error in STORAGE),
        *NEITHER,
    ],
)
def test_the_kind_of_an_error(error: BaseException, kind: str) -> None:
    assert failures.classify(error) == kind


def raised(call) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011  of many types
        call()
    return caught.value


def test_what_libraries_really_raise_when_memory_ends() -> None:
    for call in (
        lambda: torch.empty(2**60, dtype=torch.uint8),
        lambda: np.ones(2**60, dtype=np.uint8),
        lambda: pa.allocate_buffer(2**60),
    ):
        assert failures.classify(raised(call)) == failures.OUT_OF_MEMORY


def test_what_libraries_really_raise_when_a_disk_is_full(tmp_path: Path) -> None:
    """/dev/full answers every write as a full disk does."""
    full = tmp_path / "full"
    full.symlink_to("/dev/full")

    def text() -> None:
        with full.open("w") as file:
            file.write("x" * 100)

    def numpy() -> None:
        with full.open("wb") as file:
            np.arange(10**6).tofile(file)

    def parquet() -> None:
        with pa.OSFile(str(full), "w") as file:
            file.write(b"x" * 100)

    for call in (text, numpy, parquet):
        assert failures.classify(raised(call)) == failures.STORAGE


TRAINING = """
import resource, sys
from pathlib import Path
from orchestrator.running import failures
from workers import training
from workers.settings import TrainJob

job, tokenizer, identifiers, out, room = sys.argv[1:]
original = training._optimizer_step

def step(*arguments):
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + int(room) * 2**20,) * 2)
    return original(*arguments)

training._optimizer_step = step
folders = {"tokenizer": Path(tokenizer), "identifiers": Path(identifiers), "out": Path(out)}
try:
    training.train(TrainJob.model_validate_json(job), **folders)
    print("done")
except Exception as error:
    print(failures.classify(error))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's limit to a process's memory")
def test_a_training_that_hits_the_limit_fits_in_smaller_passes(finished_steps: Steps, tmp_path: Path) -> None:
    """The machine's own limit: 512 pairs at once do not fit, 8 at a time do, and the global batch is the same."""
    said = []
    for micro in (None, 8):
        asked = job("llama", pairs=512, batch=512, epochs=1, micro_batch=micro)
        asked = asked.model_copy(update={"model": ModelSettings(family="llama", size="394k")})
        (tmp_path / str(micro)).mkdir()
        folders = [str(finished_steps.tokenizer), str(finished_steps.ngram), str(tmp_path / str(micro))]
        command = [sys.executable, "-W", "ignore", "-c", TRAINING, asked.model_dump_json(), *folders, "96"]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False)
        said.append(done.stdout.strip() or done.stderr)
    assert said == [failures.OUT_OF_MEMORY, "done"]
