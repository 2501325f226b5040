"""What a sweep may use: workers, and the machines that a plan is made for."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from orchestrator.nodes import Node
from workers.settings import Count, Natural, Positive, Settings
from workers.words import Auto, auto_or

GIB = 2**30
MIB = 2**20

SHARES = (0.125, 0.25, 0.5)
"""Parts of a GPU that a worker may have."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """What is known of a type of GPU by its name."""

    memory: int
    """Bytes that a process sees, rounded down."""
    flops: float
    """Dense products a second at most, two for a multiply-add, in bf16 (fp16 where there is none), by its maker."""


GPUS = {
    "A100-40GB": Gpu(memory=40_300 * MIB, flops=312e12),
    "A100-80GB": Gpu(memory=81_000 * MIB, flops=312e12),
    "H100-80GB": Gpu(memory=81_000 * MIB, flops=989e12),
    "H200-141GB": Gpu(memory=143_000 * MIB, flops=989e12),
    "L4-24GB": Gpu(memory=22_400 * MIB, flops=121e12),
    "L40S-48GB": Gpu(memory=45_400 * MIB, flops=362e12),
    "A10-24GB": Gpu(memory=22_500 * MIB, flops=125e12),
    "V100-16GB": Gpu(memory=16_100 * MIB, flops=125e12),
    "V100-32GB": Gpu(memory=32_400 * MIB, flops=125e12),
    "T4-16GB": Gpu(memory=14_900 * MIB, flops=65e12),
}
"""By the name that a grid gives."""


class Machines(Settings):
    """Machines of one kind, for planning."""

    nodes: Count = 1
    """How many there are."""
    gpus: Natural = 0
    """Of each."""
    gpu: str | None = None
    """Their type; the memory of those in `GPUS` is known."""
    gpu_memory_gb: Positive | None = None
    """GiB of each GPU; needed where the type is not known."""
    cpus: Count
    """Cores of each."""
    memory_gb: Positive
    """GiB of RAM of each."""
    price_per_hour: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)] | None = None
    """Of one node with all that is in it, in any currency."""

    @model_validator(mode="after")
    def _memory_is_known(self) -> "Machines":
        if self.gpus and self.gpu_memory_gb is None and self.gpu not in GPUS:
            named = f"of {self.gpu!r} is not known" if self.gpu else "must be given"
            raise ValueError(f"the GPUs' memory {named}: give `gpu_memory_gb`, or one of {', '.join(GPUS)} as `gpu`")
        return self

    @property
    def gpu_bytes(self) -> int:
        """Of each GPU; 0 where there are none."""
        if not self.gpus:
            return 0
        return int(self.gpu_memory_gb * GIB) if self.gpu_memory_gb else GPUS[self.gpu or ""].memory


def _whole(value: Any) -> bool:
    return isinstance(value, int) and value >= 1


def _gpus(value: Any) -> bool:
    return isinstance(value, int | float) and (value in (0, *SHARES) or (value >= 1 and value == int(value)))


class Timeouts(Settings):
    """Seconds an attempt; no limit where left out. What is over it is ended and tried again from its checkpoint."""

    tokenizer: Positive | None = None
    embeddings: Positive | None = None
    identifiers: Positive | None = None
    baselines: Positive | None = None
    train: Positive | None = None
    score: Positive | None = None
    search: Positive | None = None

    def of(self, kind: str) -> float | None:
        """Of a kind of step."""
        limit: float | None = getattr(self, kind, None)
        return limit


class Resources(Settings):
    """What the sweep may use. Of `auto` nothing is part of a key: a key says nothing of the machine."""

    workers: Count | None = None
    """Worker processes at most; as many as there is room for, where left out."""
    cpus_per_worker: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)] = 1
    gpus_per_worker: Annotated[
        float | Auto, auto_or("0, an eighth, a quarter, a half or a whole number of GPUs", _gpus)
    ] = "auto"
    """GPUs of one worker, or a part of one; 0 keeps every step on CPUs. `auto`: what each step needs."""
    workers_per_training: Annotated[int | Auto, auto_or("a whole number from 1 on", _whole)] = "auto"
    """Workers that train one model together (data parallel, ZeRO). A number above 1 is part of a training's key.
    `auto`: the fewest GPUs that a model fits on; 1 on CPUs."""
    max_attempts: Count = 3
    """Of a step that fails for a reason that may pass, for each reason by itself."""
    timeout: Timeouts = Timeouts()
    """Seconds that one attempt at a step may take, by the kind of step."""
    cluster: tuple[Machines, ...] | None = None
    """The machines to plan for; those that are there where left out."""

    @field_validator("gpus_per_worker", mode="before")
    @classmethod
    def _nothing_is_auto(cls, value: Any) -> Any:
        return "auto" if value is None else value

    @field_validator("cluster")
    @classmethod
    def _not_empty(cls, value: tuple[Machines, ...] | None) -> tuple[Machines, ...] | None:
        if value is not None and not value:
            raise ValueError("holds no machine")
        return value

    @property
    def together(self) -> int:
        """Workers that train one model together, as far as the grid says so: 1 where it leaves that open."""
        return 1 if self.workers_per_training == "auto" else self.workers_per_training

    def price_of(self, name: str) -> float | None:
        """Of an hour of the node of that name, which `nodes_of` gave; None where the grid does not tell."""
        kind = name.partition("-")[0]
        if self.cluster is None or not kind.isdecimal() or int(kind) >= len(self.cluster):
            return None
        return self.cluster[int(kind)].price_per_hour


def nodes_of(resources: Resources) -> tuple[Node, ...]:
    """The machines that the grid describes, named `<position>-<number>`; none where it describes none."""
    return tuple(
        Node(
            id=f"{position}-{number}",
            name=f"{position}-{number}",
            cpus=machines.cpus,
            memory=int(machines.memory_gb * GIB),
            gpus=machines.gpus,
            gpu_bytes=machines.gpu_bytes,
            device=(machines.gpu or "gpu") if machines.gpus else "cpu",
        )
        for position, machines in enumerate(resources.cluster or ())
        for number in range(machines.nodes)
    )


_CGROUP = Path("/sys/fs/cgroup/memory.max")


def this_machine() -> Node:
    """The machine that this process is on, for a plan: its cores, its RAM, and the GPUs that `nvidia-smi` tells of."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _CGROUP.read_text(encoding="ascii").strip() if _CGROUP.exists() else "max"
    gpus = _gpus_here()
    return Node(
        id="here",
        name="here",
        cpus=len(os.sched_getaffinity(0)),
        memory=min(memory, int(limit)) if limit.isdecimal() else memory,
        gpus=len(gpus),
        gpu_bytes=min((size for _, size in gpus), default=0),
        device=gpus[0][0] if gpus else "cpu",
    )


def _gpus_here() -> list[tuple[str, int]]:
    """Name and bytes of each GPU; none where the driver does not answer."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    told = subprocess.run(query, capture_output=True, text=True, check=False)
    if told.returncode:
        return []
    lines = [line.rpartition(",") for line in told.stdout.splitlines() if "," in line]
    return [(name.strip(), int(size) * MIB) for name, _, size in lines if size.strip().isdecimal()]
