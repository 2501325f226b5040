"""Where this worker computes: the GPU it was given, else the CPU."""

import os

import torch


def on_gpu() -> bool:
    """False also where a GPU is there but `DS_ACCELERATOR=cpu` says that this worker was given none."""
    return torch.cuda.is_available() and os.environ.get("DS_ACCELERATOR") != "cpu"


def device() -> torch.device:
    """The device that models are put on."""
    return torch.device("cuda" if on_gpu() else "cpu")
