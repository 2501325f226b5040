"""Machines and what steps take of them. Plain arithmetic: nothing here knows Ray."""

from dataclasses import dataclass

from workers.settings import Offload


@dataclass(frozen=True, kw_only=True)
class Node:
    """One machine."""

    id: str
    name: str
    """For people."""
    cpus: float
    memory: int
    """Bytes of RAM for workers."""
    gpus: int = 0
    gpu_bytes: int = 0
    """Of each GPU."""
    device: str = "cpu"
    """What computes: `cpu`, or the GPU's type as its maker calls it."""


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What one step takes, and how it is cut to fit."""

    workers: int = 1
    """Processes that do it together."""
    cpus: float = 1
    """Of each worker."""
    gpus: float = 0
    """Of each worker: a half, a quarter or an eighth of one, or a whole number."""
    memory: int = 0
    """Bytes of RAM of each worker."""
    zero_stage: int = 0
    offload: Offload = "none"
    micro_batch: int | None = None
    """Pairs a forward pass of one worker; None: as the grid says, else the whole share."""


ANY = Demand()
"""One worker with one core."""
