"""One line for what fits nowhere: what it would need, what there is, and what would do."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from orchestrator.grid import Loaded
from orchestrator.placing.cuts import Cut, Kind, best_cut, cuts, gigabytes, has_bf16, usable
from orchestrator.placing.sizes import Sizes
from orchestrator.resources import GIB, Resources
from orchestrator.source import Place
from orchestrator.steps import Step
from workers.errors import BadInput
from workers.search_memory import UNEVEN
from workers.settings import Auto, ModelSettings, TrainingSettings, TrainJob

LARGER = (24, 32, 40, 48, 80, 96, 141, 192)
"""GB of the GPUs that there are to be had."""
MORE = (2, 4, 8, 16, 32, 64)
"""Times as many GPUs as there are."""


def refuse_training(loaded: Loaded, step: Step, sizes: Sizes, kinds: Sequence[Kind]) -> BadInput:
    """Of a training that fits on no GPUs."""
    assert isinstance(step.settings, TrainJob)
    training, resources, model = step.settings.training, loaded.grid.resources, step.settings.model
    tried = [cut for kind in kinds for cut in cuts(sizes, training, resources, kind)]
    if not tried:
        there = f"{training.batch} pairs cannot be cut over the workers"
        return loaded.source.error(("training", "batch"), there)
    held = [cut for cut in tried if cut.fits_gpu]
    best = min(held or tried, key=lambda cut: (cut.gpu_need, cut.gpu_seconds))
    if held:
        best = min(held, key=lambda cut: cut.memory.beside_gpu() * cut.memory.workers)
    would = _what_would(sizes, training, resources, kinds)
    message = f"{model.label} {_need(best, bool(held))}; there are {there_is(kinds, ram=bool(held))}{would}"
    return loaded.source.error(place_of(loaded, model), message)


def _need(cut: Cut, by_ram: bool) -> str:
    memory = cut.memory
    stage = f" with ZeRO-{memory.stage}" if memory.stage else ""
    offload = {"none": "", "optimizer": " and its optimizer in RAM", "parameters": " and all of it in RAM"}
    where = f"on {memory.workers} GPU{'s' if memory.workers > 1 else ''}"
    pairs = f", {cut.micro_batch} pair{'s' if cut.micro_batch > 1 else ''} at a time"
    if by_ram:
        need = f"needs {gigabytes(memory.beside_gpu())} GB of RAM a worker"
    else:
        need = f"needs {gigabytes(cut.gpu_need)} GB a GPU"
    return f"{need}{stage}{offload[memory.offload]} {where}{pairs}"


def there_is(kinds: Sequence[Kind], ram: bool = False) -> str:
    """`8 x 80 GB (A100-80GB)`, with the nodes' RAM where that is what is short."""
    parts = []
    for kind in kinds:
        beside = f" in nodes of {gigabytes(max(node.memory for node in kind.nodes))} GB RAM" if ram else ""
        parts.append(f"{kind.gpus} x {gigabytes(kind.gpu_bytes)} GB ({kind.device}){beside}")
    return " and ".join(parts)


def _what_would(sizes: Sizes, training: TrainingSettings, resources: Resources, kinds: Sequence[Kind]) -> str:
    """What the machines or the grid would have to be; empty where nothing near would do."""
    found = []
    free = replace_settings(resources, workers=None)
    for kind in kinds:
        for times in MORE:
            if best_cut(sizes, training, free, [replace(kind, nodes=kind.nodes * times)]):
                found.append(f"{times} times as many, {times * kind.gpus} GPUs in {times * len(kind.nodes)} nodes,")
                break
        for size in LARGER:
            if size * GIB > kind.gpu_bytes and best_cut(
                sizes, training, resources, [replace(kind, gpu_bytes=size * GIB)]
            ):
                found.append(f"{kind.gpus} of {size} GB")
                break
    unset: dict[str, int | Auto | None] = {"micro_batch": None, "zero_stage": "auto", "offload": "auto"}
    for name, value in unset.items():
        if getattr(training, name) != value:
            other = training.model_copy(update={name: value})
            if best_cut(sizes, other, resources, kinds):
                found.append(f"training.{name}={'null' if value is None else value}")
    if resources.workers_per_training != "auto" and best_cut(
        sizes, training, replace_settings(resources, workers_per_training="auto"), kinds
    ):
        found.append("resources.workers_per_training=auto")
    return f"; {' or '.join(dict.fromkeys(found))} would do" if found else ""


def replace_settings(resources: Resources, **changes: object) -> Resources:
    """The same but for some settings."""
    return resources.model_copy(update=changes)


def refuse_evaluation(loaded: Loaded, train: Step, need: Callable[[bool], int], kinds: Sequence[Kind]) -> BadInput:
    """Of an evaluation that fits on no node. `need`: its bytes, in bf16 or not."""
    assert isinstance(train.settings, TrainJob)
    kind = max(kinds, key=lambda kind: usable(kind.gpu_bytes, max(node.gpus for node in kind.nodes)))
    size = need(train.settings.training.precision != "fp32" and has_bf16(kind.device))
    most = max(node.gpus for node in kind.nodes)
    holds = most * usable(kind.gpu_bytes, 1) / (UNEVEN if most > 1 else 1)
    message = (
        f"{train.settings.model.label} needs {gigabytes(size)} GB on the GPUs of one node to be searched, beams and "
        f"index included; there are {there_is(kinds)}, and the {most} of a node "
        f"hold {gigabytes(holds)} GB of it"
    )
    given = loaded.grid.resources.gpus_per_worker
    if given != "auto":
        message += f"; resources.gpus_per_worker={given:g} is what a worker has"
    elif loaded.grid.evaluation.batch is not None:
        message += f"; evaluation.batch below {loaded.grid.evaluation.batch}, or null, would take less"
    return loaded.source.error(place_of(loaded, train.settings.model), message)


def refuse_ram(loaded: Loaded, train: Step, need: int, most: int) -> BadInput:
    """Of a step that no node has the RAM for."""
    assert isinstance(train.settings, TrainJob)
    model, micro_batch = train.settings.model, train.settings.training.micro_batch
    message = f"{model.label} needs {gigabytes(need)} GB of RAM a worker; the largest node has {gigabytes(most)} GB"
    if micro_batch is not None and micro_batch > 1:
        message += "; training.micro_batch=1 would take less"
    return loaded.source.error(place_of(loaded, model), message)


def place_of(loaded: Loaded, model: ModelSettings) -> Place:
    """Where the grid names the model."""
    for position, entry in enumerate(loaded.grid.models):
        if (entry.family, entry.size, entry.pretrained) == (model.family, model.size, model.pretrained):
            return ("models", position, "size" if model.size is not None else "pretrained")
    return ("models",)
