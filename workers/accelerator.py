"""DeepSpeed, imported for the device that this worker has. Everything else imports it from here."""

import logging
import os

from workers.device import on_gpu

ON_GPU = on_gpu()
if not ON_GPU:
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # read when DeepSpeed is imported

import deepspeed  # noqa: E402
import deepspeed.ops  # noqa: E402
from deepspeed.accelerator import get_accelerator  # noqa: E402

deepspeed.utils.logger.setLevel(logging.ERROR)

__all__ = ["ON_GPU", "deepspeed", "get_accelerator"]
