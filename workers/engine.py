"""DeepSpeed, as far as Gridlaw uses it: one process group, one engine, whole checkpoints, weights out.

Pitfalls that are handled here so that nothing else needs to know them: on CPU neither DeepSpeed's Adam nor its
shared-memory collectives are used, because both compile C++ at run time; every rank saves to the same path;
a checkpoint counts only once a marker written after it names it.
"""

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from results.files import read_json, sync, write_json
from workers.device import on_gpu
from workers.errors import Diverged
from workers.settings import ProcessGroup, TrainingSettings
from workers.training_memory import BUCKET, LIVE, SUB_GROUP, even

_ON_GPU = on_gpu()
if not _ON_GPU:
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # read when DeepSpeed is imported

import deepspeed  # noqa: E402
import deepspeed.ops  # noqa: E402
import torch.distributed as distributed  # noqa: E402
from deepspeed.accelerator import get_accelerator  # noqa: E402

deepspeed.utils.logger.setLevel(logging.ERROR)

MARKER = "checkpoint.json"


def join(group: ProcessGroup) -> None:
    """Join the process group: gloo on CPU, NCCL on GPU. A warm worker keeps its own group of one for its life."""
    os.environ.update(RANK=str(group.rank), WORLD_SIZE=str(group.size), LOCAL_RANK="0")
    if distributed.is_initialized():
        return
    if not _ON_GPU:
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    backend = "nccl" if _ON_GPU else "gloo"
    if group.size == 1:
        distributed.init_process_group(backend, store=distributed.HashStore(), rank=0, world_size=1)
    else:
        address = f"tcp://{group.address}"
        distributed.init_process_group(backend, init_method=address, rank=group.rank, world_size=group.size)
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)


def wait_for_all() -> None:
    """Return only when every rank has come here."""
    distributed.barrier()


def mean_over_group(value: torch.Tensor) -> float:
    """The mean of a scalar over all ranks, the same number on each."""
    total = value.detach().float()
    if distributed.get_world_size() > 1:
        total = total.clone()
        distributed.all_reduce(total)
        total /= distributed.get_world_size()
    return float(total)


def make_engine(
    module: nn.Module, settings: TrainingSettings, group: ProcessGroup, micro_batch: int, steps: int
) -> deepspeed.DeepSpeedEngine:
    """AdamW with warm-up and linear decay to zero over `steps`, under the settings' ZeRO stage and precision."""
    assert settings.learning_rate is not None
    decayed = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        decayed, lr=settings.learning_rate, betas=(0.9, settings.beta2), weight_decay=settings.weight_decay, fused=True
    )
    warm = max(1, round(settings.warmup * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, max(0.0, (steps - step) / max(1, steps - warm)))
    )
    config: dict[str, Any] = {
        "train_batch_size": settings.batch,
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_clipping": settings.clip if knows_norm(settings) else 0.0,
        "zero_optimization": _zero(settings, sum(parameter.numel() for parameter in decayed)),
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": uses_bf16(settings)},
        "steps_per_print": 10**9,
    }
    if settings.stage == 3:
        _spread(module, settings, config)
    engine, *_ = deepspeed.initialize(
        model=module, optimizer=optimizer, lr_scheduler=schedule, config=config, dist_init_required=False
    )
    return engine


def _zero(settings: TrainingSettings, parameters: int) -> dict[str, Any]:
    """DeepSpeed's block of that name. Buffers are no larger than the model: small trainings share a GPU."""
    block: dict[str, Any] = {
        "stage": settings.stage,
        "reduce_bucket_size": even(min(BUCKET, parameters)),
        "allgather_bucket_size": even(min(BUCKET, parameters)),
        "sub_group_size": SUB_GROUP,
        "stage3_max_live_parameters": LIVE,
        "stage3_max_reuse_distance": LIVE,
        "stage3_gather_16bit_weights_on_model_save": True,
    }
    in_ram = {"device": "cpu"}  # not pinned: that rounds what is allocated up to powers of two
    if settings.offloaded != "none":
        block["offload_optimizer"] = in_ram
    if settings.offloaded == "parameters":
        block["offload_param"] = in_ram
    return block


def _spread(module: nn.Module, settings: TrainingSettings, config: dict[str, Any]) -> None:
    """Spread the weights over the ranks one by one, where DeepSpeed would first put the whole model on each GPU."""
    if uses_bf16(settings):
        for parameter in module.parameters():
            parameter.data = parameter.data.bfloat16()
    here = get_accelerator().current_device_name()
    for buffer in module.buffers():
        buffer.data = buffer.data.to(here)
    deepspeed.zero.Init(
        module=module,
        config_dict_or_path=config,
        dtype=torch.bfloat16 if uses_bf16(settings) else torch.float32,
        remote_device="cpu" if settings.offloaded == "parameters" else None,
    )


def uses_bf16(settings: TrainingSettings) -> bool:
    """bf16 where it is asked for, or where `auto` finds a GPU that has it."""
    if settings.precision == "auto":
        return _ON_GPU and torch.cuda.is_bf16_supported(including_emulation=False)
    return settings.precision == "bf16"


def knows_norm(settings: TrainingSettings) -> bool:
    """Whether the engine clips the gradient itself and knows its norm after a step: all but ZeRO stage 0 in fp32."""
    return settings.stage > 0 or uses_bf16(settings)


def clip_gradient(engine: deepspeed.DeepSpeedEngine, largest: float) -> float:
    """Clip the gradient between the last `backward` and the `step` of an engine that does not; its norm before.

    Such an engine could clip, but keeps the norm to itself, and it would be computed twice.
    """
    parameters = [parameter for parameter in engine.module.parameters() if parameter.grad is not None]
    return float(torch.nn.utils.clip_grad_norm_(parameters, largest))


def save_checkpoint(
    engine: deepspeed.DeepSpeedEngine, folder: Path, group: ProcessGroup, state: dict[str, Any]
) -> None:
    """Save weights, optimizer and `state` (which has `step`), then name it in the marker and drop older ones."""
    tag = f"step-{state['step']}"
    engine.save_checkpoint(str(folder), tag=tag, client_state=state, save_latest=False)
    wait_for_all()
    if group.rank == 0:
        sync(folder / tag)
        write_json(folder / MARKER, {"tag": tag, "sizes": _sizes(folder / tag), **state})
        for old in folder.glob("step-*"):
            if old.name != tag:
                shutil.rmtree(old)
    wait_for_all()


def load_checkpoint(engine: deepspeed.DeepSpeedEngine, folder: Path) -> dict[str, Any] | None:
    """Restore the newest whole checkpoint and return its state; None where there is none or a file of it is torn."""
    if not (folder / MARKER).exists():
        return None
    state: dict[str, Any] = read_json(folder / MARKER)
    if _sizes(folder / state["tag"]) != state["sizes"]:
        return None
    path, _ = engine.load_checkpoint(str(folder), tag=state["tag"])
    if path is None:
        raise RuntimeError(f"the checkpoint {state['tag']} is whole, but DeepSpeed does not load it")
    return state


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file below a folder; empty where it is gone."""
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def save_weights(engine: deepspeed.DeepSpeedEngine, model: Any, folder: Path, group: ProcessGroup) -> None:
    """Weights in the Hugging Face format, gathered from all ranks where ZeRO stage 3 has spread them.

    Raises Diverged where the last update has left one that is not finite.
    """
    gathered: dict[str, Any] = {}
    if engine.zero_optimization_stage() == 3:
        gathered = engine._zero3_consolidated_16bit_state_dict() or {}
    if group.rank == 0:
        state = {name.removeprefix("model."): value for name, value in gathered.items()} or model.state_dict()
        if not all(bool(value.isfinite().all()) for value in state.values()):
            raise Diverged("a weight is not finite after the last update")
        model.save_pretrained(folder, state_dict=state)


def remove_checkpoints(folder: Path) -> None:
    """Drop the optimizer's state once the weights are out."""
    (folder / MARKER).unlink(missing_ok=True)
    for checkpoint in folder.glob("step-*"):
        shutil.rmtree(checkpoint)
