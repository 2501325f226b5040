"""The errors that have a meaning beyond 'something broke', and how those of memory and storage are known."""

import errno
import re
from collections.abc import Iterator


class BadInput(ValueError):
    """What the user gave cannot be used. One line that names the file and the key; never retried."""


class Diverged(RuntimeError):
    """A loss, a gradient or a weight stopped being finite. Never retried: the same seed would do it again."""


class Interrupted(RuntimeError):
    """The step stopped because it was asked to, and what it had done is kept. No failure."""


_OUT_OF_MEMORY = re.compile(
    r"DefaultCPUAllocator: (can't allocate|not enough) memory|Cannot allocate memory|std::bad_alloc"
    r"|CUDA out of memory|CUDA error: out of memory|Cuda failure 2\b|_STATUS_ALLOC_FAILED",
    re.IGNORECASE,
)
"""What PyTorch's allocators, the system, C++, CUDA, NCCL and cuBLAS say; most of them in a bare RuntimeError."""

_STORAGE = re.compile(
    r"No space left on device|Disk quota exceeded|Stale (NFS )?file handle|Input/output error|File too large"
    r"|\d+ requested and \d+ written|AWS Error|google::cloud::Status|curlCode: \d+",
    re.IGNORECASE,
)
"""What the system says, in the errors of Rust and C++ libraries too (safetensors, tokenizers, Arrow); NumPy's words
for a write that ended early; and those of object stores."""

_STORAGE_NUMBERS = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EIO,
        errno.ESTALE,
        errno.EROFS,
        errno.EREMOTEIO,
        errno.ETIMEDOUT,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
    }
)


def out_of_memory(error: BaseException) -> bool:
    """Whether memory, of the machine or of its GPU, was too small; Arrow's and NumPy's errors are MemoryErrors."""
    return any(
        isinstance(one, MemoryError)
        or type(one).__name__ == "OutOfMemoryError"  # torch's, without importing it
        or (isinstance(one, OSError) and one.errno == errno.ENOMEM)
        or bool(_OUT_OF_MEMORY.search(str(one)))
        for one in _causes(error)
    )


def storage_trouble(error: BaseException) -> bool:
    """Whether a disk was full or a file system or object store out of reach: what may pass by itself."""
    return any(
        (isinstance(one, OSError) and one.errno in _STORAGE_NUMBERS) or bool(_STORAGE.search(str(one)))
        for one in _causes(error)
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and those that it was explicitly raised from."""
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__
