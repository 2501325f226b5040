"""DeepSpeed, as far as Gridlaw uses it: one process group, one engine, weights out. Checkpoints: `checkpoints.py`.

Pitfalls that are handled here so that nothing else needs to know them: on CPU neither DeepSpeed's Adam nor its
shared-memory collectives are used, because both compile C++ at run time; its checkpoints are written and read without
pickle.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as distributed
from torch import nn

from workers.accelerator import ON_GPU, deepspeed, get_accelerator
from workers.device import device, keep_to_share
from workers.settings import ProcessGroup, TrainingSettings
from workers.states import StateFiles
from workers.training_memory import BUCKET, LIVE, SUB_GROUP, even

Layout = dict[str, int | str]


def join(group: ProcessGroup) -> None:
    """Join the process group: gloo on CPU, NCCL on GPU. A warm worker keeps its own group of one for its life."""
    os.environ.update(RANK=str(group.rank), WORLD_SIZE=str(group.size), LOCAL_RANK="0")
    if distributed.is_initialized():
        return
    if ON_GPU:
        keep_to_share()
    else:
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    backend = "nccl" if ON_GPU else "gloo"
    if group.size == 1:
        distributed.init_process_group(backend, store=distributed.HashStore(), rank=0, world_size=1)
    else:
        address = f"tcp://{group.address}"
        distributed.init_process_group(backend, init_method=address, rank=group.rank, world_size=group.size)
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)


def wait_for_all() -> None:
    """Return only when every rank has come here."""
    distributed.barrier()


def sum_over_group(values: torch.Tensor) -> torch.Tensor:
    """Tensors of one shape, one a rank, added up: the same on each."""
    if distributed.get_world_size() == 1:
        return values
    total = values.detach().to(device(), copy=True)
    distributed.all_reduce(total)
    return total


def all_agree(mine: bool) -> bool:
    """Whether every rank says yes."""
    return int(sum_over_group(torch.tensor(int(mine)))) == distributed.get_world_size()


def told_by_first(number: int) -> int:
    """The number that rank 0 gives; what the others give is not looked at."""
    return int(sum_over_group(torch.tensor(number if distributed.get_rank() == 0 else 0)))


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
    engine.checkpoint_engine = StateFiles()
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
        return ON_GPU and torch.cuda.is_bf16_supported(including_emulation=False)
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


def layout(settings: TrainingSettings, group: ProcessGroup) -> Layout:
    """How the state is cut and placed: only an engine with the same layout can load its checkpoints."""
    return {
        "workers": group.size,
        "zero_stage": settings.stage,
        "offload": settings.offloaded,
        "precision": "bf16" if uses_bf16(settings) else "fp32",
    }


def weights_are_finite(engine: deepspeed.DeepSpeedEngine) -> bool:
    """Whether no rank holds a weight, or its part of one under ZeRO stage 3, that is not finite."""
    parts = (getattr(parameter, "ds_tensor", parameter) for parameter in engine.module.parameters())
    return all_agree(all(bool(part.detach().isfinite().all()) for part in parts))


@contextmanager
def whole_model(engine: deepspeed.DeepSpeedEngine) -> Iterator[Any]:
    """The model as every rank can read it within the block; every rank enters it. Under ZeRO stage 3 it is a copy,
    because a spread one is whole only where its own forward pass is."""
    model = engine.module.model
    if engine.zero_optimization_stage() < 3:
        yield model
        return
    with deepspeed.zero.GatheredParameters(list(model.parameters())):
        state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    copy = type(model)(model.config).to(engine.device, model.dtype).eval()
    copy.load_state_dict(state)
    yield copy


def save_weights(engine: deepspeed.DeepSpeedEngine, model: Any, folder: Path, group: ProcessGroup) -> None:
    """Weights in the Hugging Face format, gathered from all ranks where ZeRO stage 3 has spread them."""
    gathered: dict[str, Any] = {}
    if engine.zero_optimization_stage() == 3:
        gathered = engine._zero3_consolidated_16bit_state_dict() or {}
    if group.rank == 0:
        state = {name.removeprefix("model."): value for name, value in gathered.items()} or model.state_dict()
        model.save_pretrained(folder, state_dict=state)
