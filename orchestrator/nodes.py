"""Machines and what steps take of them. Plain arithmetic: nothing here knows Ray."""

from collections.abc import Iterable
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
    gpu_bytes: int = 0
    """What each GPU that it takes, or takes a part of, must have in all: a node with smaller ones cannot do it."""
    zero_stage: int = 0
    offload: Offload = "none"
    micro_batch: int | None = None
    """Pairs a forward pass of one worker; None: as the grid says, else the whole share."""


def describe_demand(demand: Demand) -> str:
    """`2 x (1 CPUs, 0.5 GPUs, 3.1 GiB)`."""
    return f"{demand.workers} x ({demand.cpus:g} CPUs, {demand.gpus:g} GPUs, {demand.memory / 2**30:.1f} GiB)"


def describe_nodes(nodes: Iterable[Node]) -> str:
    """`a: 4 CPUs, 1 GPUs, 15.5 GiB`, joined by commas."""
    each = [f"{n.name}: {n.cpus:g} CPUs, {n.gpus} GPUs, {n.memory / 2**30:.1f} GiB" for n in nodes]
    return "; ".join(each) or "none"


ANY = Demand()
"""One worker with one core."""
