"""How one training is cut to fit: how many GPUs, which ZeRO stage, what is offloaded, how many pairs at a time.

Of all cuts that fit within `NEAR` of the fewest GPU-seconds the one on the fewest (and smallest) GPUs is taken, then
the one of the lowest ZeRO stage. GPU-seconds count in units of the arithmetic alone, times the share of a GPU:

    1 + 200 / t                     weights are read once a pass, however few tokens it has
      + 200 c / T      stage 0, 1   gradients are summed once a step
      + 200 c / t      stage 2      once a pass
      + 400 c / t      stage 3      and weights are gathered three times
      + 70,000 / (n T)              where the optimizer is offloaded: Adam on few cores
      + 7,000 / (n t)               where the weights are too: over PCIe, twice a pass

t: tokens a worker has in a pass, T: in an optimizer step, n: workers; c: 0 for one worker, 1 within a node, 8 across
nodes. From 40% of an A100's peak, 2 bytes a value, 200 GB/s within a node and 25 GB/s a GPU between them, half of
what is sent hidden behind arithmetic, 12 GB/s of PCIe and 10 GB/s of RAM for Adam. These put cuts in order, and
foretell no time. Models of at most `SHARING` parameters may have a part of a GPU: they leave most of it idle.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from orchestrator.nodes import Node
from orchestrator.placing.sizes import Sizes
from orchestrator.resources import GIB, SHARES, Resources
from workers.settings import Offload, TrainingSettings
from workers.training_memory import CUDA, TrainingMemory

READ, SENT_A_STEP, SENT_A_PASS, GATHERED, ADAM, FETCHED = 200, 200, 200, 400, 70_000, 7_000
"""Tokens whose arithmetic takes as long; see above."""
ACROSS_NODES = 8
NEAR = 1.1
SHARING = 100_000_000
OFFLOADS: tuple[Offload, ...] = ("none", "optimizer", "parameters")
LEAST_STAGE: dict[Offload, int] = {"none": 0, "optimizer": 1, "parameters": 3}

SLACK = 0.92
"""Of a GPU's memory, what is not lost between the allocator's blocks."""
NO_BF16 = ("V100", "T4", "P100", "P4", "K80")


def usable(gpu_bytes: int, gpus: float) -> int:
    """Bytes that one process can count on, of a part of a GPU or of several."""
    return int(gpus * gpu_bytes * SLACK - CUDA * max(1, gpus))


def has_bf16(device: str) -> bool:
    """Whether a GPU of that name computes in bf16."""
    return not any(name in device.upper().replace("-", " ").split() for name in NO_BF16)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """The nodes whose GPUs are of one kind."""

    gpu_bytes: int
    device: str
    nodes: tuple[Node, ...]

    @property
    def gpus(self) -> int:
        """In all nodes."""
        return sum(node.gpus for node in self.nodes)

    def room(self, gpus: float, cpus: float, ram: int) -> list[int]:
        """How many such workers fit on each node, the roomiest first."""
        fits = [
            min(int(node.gpus / gpus + 1e-9), int(node.cpus / cpus + 1e-9), node.memory // max(1, ram))
            for node in self.nodes
        ]
        return sorted(fits, reverse=True)


def kinds_of(nodes: Sequence[Node]) -> list[Kind]:
    """Nodes with GPUs, by kind, small GPUs first."""
    found: dict[tuple[int, str], list[Node]] = {}
    for node in nodes:
        if node.gpus:
            found.setdefault((node.gpu_bytes, node.device), []).append(node)
    return [Kind(gpu_bytes=size, device=device, nodes=tuple(own)) for (size, device), own in sorted(found.items())]


@dataclass(frozen=True, kw_only=True)
class Cut:
    """One way to do a training on GPUs of one kind."""

    kind: Kind
    memory: TrainingMemory
    gpus: float
    """Of each worker."""
    micro_batch: int
    passes: int
    """An optimizer step."""
    nodes: int = 1
    """Over which the workers are spread at least."""

    @property
    def gpu_seconds(self) -> float:
        """In units of the arithmetic, to be put beside other cuts of the same training."""
        memory = self.memory
        workers, in_pass = memory.workers, self.micro_batch * (memory.query + memory.target)
        in_step = in_pass * self.passes
        sent = (SENT_A_STEP / in_step, SENT_A_STEP / in_step, SENT_A_PASS / in_pass, GATHERED / in_pass)[memory.stage]
        far = 0 if workers == 1 else ACROSS_NODES if self.nodes > 1 else 1
        time = 1 + READ / in_pass + far * sent
        if memory.offload != "none":
            time += ADAM / (workers * in_step)
        if memory.offload == "parameters":
            time += FETCHED / (workers * in_pass)
        return self.gpus * time

    @property
    def gpu_need(self) -> int:
        """Bytes on the GPU of each worker, CUDA's own among them."""
        return self.memory.on_gpu(self.micro_batch) + CUDA

    @property
    def fits_gpu(self) -> bool:
        """Whether the GPUs hold it."""
        return self.memory.on_gpu(self.micro_batch) <= usable(self.kind.gpu_bytes, min(1.0, self.gpus))


def micro_batches(training: TrainingSettings, workers: int) -> list[int]:
    """Pairs a pass that are possible, the most first: the grid's, else the share of a worker halved while it can be."""
    share, left = divmod(training.batch, workers)
    if left or not share:
        return []
    if training.micro_batch is not None:
        return [training.micro_batch] if share % training.micro_batch == 0 else []
    found = [share]
    while found[-1] % 2 == 0:
        found.append(found[-1] // 2)
    return found if found[-1] == 1 else [*found, 1]


def cuts(sizes: Sizes, training: TrainingSettings, resources: Resources, kind: Kind) -> Iterator[Cut]:
    """Every cut that the grid's settings allow, with the smallest micro-batch, whether it fits or not."""
    bf16 = training.precision == "bf16" or (training.precision == "auto" and has_bf16(kind.device))
    base = TrainingMemory(shape=sizes.shape, query=sizes.query, target=sizes.target, bf16=bf16, dropout=sizes.dropout)
    for workers in _workers(resources, kind):
        possible = micro_batches(training, workers)
        if not possible:
            continue
        for stage in range(4) if training.zero_stage == "auto" else (training.zero_stage,):
            for offload in OFFLOADS if training.offload == "auto" else (training.offloaded,):
                if stage < LEAST_STAGE[offload]:
                    continue
                memory = replace(base, workers=workers, stage=stage, offload=offload)
                for gpus in _shares(resources, base, memory):
                    passes = training.batch // (workers * possible[-1])
                    yield Cut(kind=kind, memory=memory, gpus=gpus, micro_batch=possible[-1], passes=passes)


def _workers(resources: Resources, kind: Kind) -> Sequence[int]:
    if resources.workers_per_training != "auto":
        return (resources.workers_per_training,)
    most = min(kind.gpus, resources.workers or kind.gpus)
    return [2**power for power in range(max(1, most).bit_length())]


def _shares(resources: Resources, base: TrainingMemory, memory: TrainingMemory) -> Sequence[float]:
    if resources.gpus_per_worker != "auto":
        return (resources.gpus_per_worker,)
    alone = memory.workers == 1 and memory.stage == 0
    return (*SHARES, 1.0) if alone and base.parameters <= SHARING else (1.0,)


def best_cut(sizes: Sizes, training: TrainingSettings, resources: Resources, kinds: Sequence[Kind]) -> Cut | None:
    """The one on the fewest GPUs of those that fit in next to the fewest GPU-seconds; None where none fits."""
    fitting = [
        placed
        for kind in kinds
        for cut in cuts(sizes, training, resources, kind)
        if (placed := placed_cut(cut, training, resources)) is not None
    ]
    least = min((cut.gpu_seconds for cut in fitting), default=0.0)
    cheap = [cut for cut in fitting if cut.gpu_seconds <= NEAR * least]
    order = [(cut.memory.workers * cut.gpus * cut.kind.gpu_bytes, cut.memory.stage, cut.gpu_seconds) for cut in cheap]
    return cheap[order.index(min(order))] if cheap else None


def placed_cut(cut: Cut, training: TrainingSettings, resources: Resources) -> Cut | None:
    """The cut with the most pairs a pass that fit, and over how many nodes it goes; None where it does not fit."""
    if not cut.fits_gpu:
        return None
    nodes = nodes_needed(cut, resources)
    if nodes is None:
        return None
    for micro_batch in micro_batches(training, cut.memory.workers):
        passes = training.batch // (cut.memory.workers * micro_batch)
        larger = replace(cut, micro_batch=micro_batch, passes=passes, nodes=nodes)
        if larger.fits_gpu:
            return larger
    return None


def nodes_needed(cut: Cut, resources: Resources) -> int | None:
    """Over how many nodes the workers are spread, the roomiest first; None where there is no room for all."""
    left = cut.memory.workers
    for number, fit in enumerate(cut.kind.room(cut.gpus, resources.cpus_per_worker, cut.memory.beside_gpu()), start=1):
        left -= fit
        if left <= 0:
            return number
    return None


def gigabytes(size: float) -> str:
    """`38`, or `0.4` where it is small."""
    return f"{size / GIB:.0f}" if size >= 10 * GIB else f"{size / GIB:.1f}"
