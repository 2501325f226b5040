"""Seconds that a step's work takes on a device, before anything was measured there.

    seconds = start + documents x read + items x item + passes x layer + FLOPs / (peak x share reached)
            + bytes sent / link + bytes through RAM / host link

Each kind of step has a row in `CPU` and in `GPU`. The CPU's figures are fits to sweeps on cores of an AMD EPYC of 2,000
and 21,000 documents; the GPU's are assumed, not measured, and `calibration` replaces both by what steps took.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.forecasting.work import Work
from orchestrator.nodes import Demand
from orchestrator.resources import GPUS

TERMS = ("start", "read", "item", "layer", "flops", "sent", "hosted")
"""What seconds are the sum of, in this order."""
Parts = tuple[float, ...]
"""Seconds by term."""

CPU_FLOPS = 1e11
"""Of a core at most: 32-bit floats, eight wide, two units."""
OTHER_GPU_FLOPS = 150e12
"""Of a GPU whose name says nothing."""
NODE_LINK, NETWORK_LINK = 300e9, 40e9
"""Bytes a second that a GPU sends to others of its node, and of other nodes, a third of them behind arithmetic."""
HOST_LINK = 10e9
"""Bytes a second of RAM, under a process of a few cores, and of PCIe."""
CPU_LINK = 2e9
"""Bytes a second between processes of a machine."""
GPUS_A_NODE = 8
"""Workers up to which they are taken to be on one node."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Of one kind of step on one kind of device."""

    start: float = 0.3
    """Seconds before and after the work: imports, loading, writing."""
    read: float = 0.0
    """Seconds a document of the corpus."""
    item: float = 0.0
    """Seconds an item."""
    layer: float = 0.0
    """Seconds a pass through a layer, whatever is in it."""
    reached: float = 0.1
    """Share of the device's peak."""


CPU: Mapping[str, Rates] = {
    "corpus": Rates(start=1.0, read=3.2e-4),
    "tokenizer": Rates(start=1.9, read=1.5e-3),
    "embeddings": Rates(start=0.7, read=3.6e-4),
    "identifiers": Rates(start=2.0, item=1.5e-4, reached=0.3),
    "baselines": Rates(start=1.5, read=7.6e-4),
    "tune": Rates(start=15.0, item=2e-4, layer=1.1e-3, reached=0.6),
    "train": Rates(start=0.5, item=2e-4, layer=1.1e-3, reached=0.6),
    "score": Rates(start=0.25, read=1e-4, item=3.5e-6, layer=3e-4, reached=0.55),
    "search": Rates(start=0.15, read=3e-5, item=7e-6, layer=3e-4, reached=0.8),
}

GPU: Mapping[str, Rates] = {
    "corpus": CPU["corpus"],
    "tokenizer": CPU["tokenizer"],
    "embeddings": CPU["embeddings"],
    "identifiers": Rates(start=10.0, item=1.5e-4, reached=0.1),
    "baselines": CPU["baselines"],
    "tune": Rates(start=60.0, item=2e-5, layer=4e-4, reached=0.4),
    "train": Rates(start=30.0, item=2e-5, layer=4e-4, reached=0.4),
    "score": Rates(start=10.0, read=1e-4, item=2e-7, layer=3e-4, reached=0.25),
    "search": Rates(start=10.0, read=3e-5, item=1e-6, layer=4e-4, reached=0.1),
}


def is_gpu(device: str) -> bool:
    """Of a node's `device`."""
    return device != "cpu"


def peak_flops(device: str) -> float:
    """Dense bf16 products a second of a GPU, whose name holds its type (`NVIDIA H100 80GB HBM3`); of a core."""
    if not is_gpu(device):
        return CPU_FLOPS
    words = device.upper().replace("-", " ").split()
    for name, gpu in GPUS.items():
        if name.upper().split("-")[0] in words:
            return gpu.flops
    return OTHER_GPU_FLOPS


def parts(kind: str, work: Work, demand: Demand, device: str) -> Parts:
    """Seconds by term (`TERMS`) of a step of that kind on that device, unmeasured."""
    rates = (GPU if is_gpu(device) else CPU)[kind]
    peak = peak_flops(device) * (min(demand.gpus, 1.0) * max(1.0, demand.gpus) if is_gpu(device) else demand.cpus)
    return (
        rates.start,
        work.documents * rates.read,
        work.items * rates.item / demand.workers,
        work.passes * rates.layer,
        work.flops / (peak * rates.reached * demand.workers),
        work.sent / link(demand, device),
        work.hosted / HOST_LINK,
    )


def link(demand: Demand, device: str) -> float:
    """Bytes a second from one worker to the next."""
    if not is_gpu(device):
        return CPU_LINK
    return NODE_LINK if demand.workers * max(1.0, demand.gpus) <= GPUS_A_NODE else NETWORK_LINK
