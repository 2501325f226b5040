"""Where this worker computes: the GPUs it was given, or a part of one, else the CPU."""

import os
from functools import cache

import torch

from workers.training_memory import CUDA

GPU_SHARE = "GRIDLAW_GPU_SHARE"
"""The environment variable that says which part of its GPU this worker may use, 0 < x <= 1; all where it is not set."""


def on_gpu() -> bool:
    """False also where a GPU is there but `DS_ACCELERATOR=cpu` says that this worker was given none."""
    return torch.cuda.is_available() and os.environ.get("DS_ACCELERATOR") != "cpu"


def device() -> torch.device:
    """The device that models are put on; the first of several."""
    if not on_gpu():
        return torch.device("cpu")
    keep_to_share()
    return torch.device("cuda")


def gpu_share() -> float:
    """The part of its GPU that this worker may use."""
    share = float(os.environ.get(GPU_SHARE) or 1)
    if not 0 < share <= 1:
        raise ValueError(f"{GPU_SHARE}={share:g} is no part of a GPU")
    return share


def gpu_bytes() -> int:
    """Bytes of its GPU that this worker's tensors may take: its share without what CUDA takes in every process."""
    total = torch.cuda.get_device_properties(0).total_memory
    return max(0, int(gpu_share() * total) - CUDA)


@cache
def keep_to_share() -> None:
    """Have PyTorch refuse what goes beyond this worker's part of a GPU, where others have the rest."""
    if gpu_share() < 1:
        torch.cuda.set_per_process_memory_fraction(gpu_bytes() / torch.cuda.get_device_properties(0).total_memory)
