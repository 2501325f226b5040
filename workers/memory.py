"""How much memory a search will need, by a formula, and how much a stretch of work did need at its peak.

Bytes of a search in a batch of q queries with r rows in all, prompts of p tokens, t new tokens, b bytes a value:

    prompt     q (p L 2k b + [T5] p d b + 4V)      its keys and values, the encoder's states, `first`
    opening    q p b (3 d + max(m f, 4 h w + h p)) a layer's activations in encoding or prefill, freed after it
    rows       r ((L + 1) t 2k b + 4V)             the written keys and values (reordered a layer at a time), log-probs
               + r b 3 d                           a layer's activations in a step: the stream and either
               + r max(b m f, 4 b h w + 12 h (p + t))   the feed-forward layer's or the attention's with its scores
    head       H b                                 logits that are not yet normalised
    total      prompt + max(opening, rows) + head

L layers, d width, h heads of width w, k key width, f feed-forward width, m its matrices, V vocabulary. Scores are
there three times in float32: on the prompt, joined with those on what is written, and as weights. The model's own
weights are not counted. Scoring given tokens keeps no row's log-probabilities: 0 for the V of the rows' 4V.
"""

import ctypes
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from workers.device import on_gpu
from workers.models.attention import VALUES_TOGETHER
from workers.models.shapes import Shape

CPU_LIMIT = 128 * 2**20
"""Bytes a batch may take on a CPU: one number everywhere, so that batches and results are the same to the bit. What
is larger than the caches gains nothing; searches of 1 to 64 beams were fastest at 64 to 128 MiB."""

GPU_SHARE = 0.5
"""Of the GPU's memory; weights and the allocator's slack have the rest."""


@dataclass(frozen=True, kw_only=True)
class SearchMemory:
    """The formula for one model and one length of prompts."""

    shape: Shape
    prompt: int
    """Tokens of the longest prompt of the batch."""
    new_tokens: int
    value_bytes: int = 4
    """Of the model's precision."""
    kept_values: int | None = None
    """Log-probabilities kept a row: those of the vocabulary in a search (None), 0 where given tokens are scored."""

    def total(self, queries: int, rows: int) -> int:
        """Bytes of a batch with `rows` rows in all."""
        return self._head + queries * self._prompt + max(queries * self._opening, rows * self._row)

    def queries(self, rows: int, limit: int) -> int:
        """The most queries of `rows` rows each that fit into `limit` bytes; at least 1."""
        return max(1, (limit - self._head) // (self._prompt + max(self._opening, rows * self._row)))

    def rows(self, limit: int) -> int:
        """The most rows that one query can have within `limit` bytes; at least 1."""
        return max(1, (limit - self._head - self._prompt) // self._row)

    @property
    def _head(self) -> int:
        return VALUES_TOGETHER["cuda" if on_gpu() else "cpu"] * self.value_bytes

    @property
    def _key_value(self) -> int:
        shape = self.shape
        return 2 * (shape.kv_heads or shape.heads) * shape.head_width * self.value_bytes

    def _activations(self, scores: int) -> int:
        """Bytes of one token in one layer, whose attention holds `scores` bytes of scores."""
        shape, b = self.shape, self.value_bytes
        matrices = 3 if shape.gated or shape.family == "llama" else 2
        attention = 4 * shape.heads * shape.head_width * b + scores
        return 3 * shape.width * b + max(matrices * shape.feed_forward * b, attention)

    @property
    def _prompt(self) -> int:
        states = self.prompt * self.shape.width * self.value_bytes if self.shape.family == "t5" else 0
        return self.prompt * self.shape.layers * self._key_value + states + 4 * self.shape.vocabulary

    @property
    def _opening(self) -> int:
        return self.prompt * self._activations(self.shape.heads * self.prompt * self.value_bytes)

    @property
    def _row(self) -> int:
        written = (self.shape.layers + 1) * self.new_tokens * self._key_value
        scores = 3 * 4 * self.shape.heads * (self.prompt + self.new_tokens)
        kept = self.shape.vocabulary if self.kept_values is None else self.kept_values
        return written + 4 * kept + self._activations(scores)


def search_limit(megabytes: int | None = None) -> int:
    """Bytes that a batch of a search may take: as many as are given, else by this worker's device."""
    if megabytes is not None:
        return megabytes * 2**20
    if on_gpu():
        return int(GPU_SHARE * torch.cuda.get_device_properties(0).total_memory)
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
