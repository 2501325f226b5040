"""The Ray that a sweep runs on: the cluster that RAY_ADDRESS names, else one of its own on this machine."""

import logging
import math
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray

from orchestrator.grid import Resources
from orchestrator.running import failures
from workers.errors import BadInput

OBJECT_STORE_BYTES = 100 * 2**20
"""Of a Ray started here. Steps pass through the results folder, so next to nothing goes through Ray's."""
KNOCK_SECONDS = 10.0
"""How long the cluster that RAY_ADDRESS names may take to answer."""


@contextmanager
def connected(resources: Resources) -> Iterator[None]:
    """Within the block Ray can be used.

    Raises:
        BadInput: nobody answers at RAY_ADDRESS.
        failures.NoWorkers: no Ray starts here.
    """
    _connect(resources)
    try:
        yield
    finally:
        ray.shutdown()


def is_own() -> bool:
    """Whether Ray is started here and ends with the sweep."""
    return not os.environ.get("RAY_ADDRESS")


def _connect(resources: Resources) -> None:
    own: dict[str, Any] = {}
    if is_own():
        cores = len(os.sched_getaffinity(0))  # Ray counts the machine's
        wanted = math.ceil((resources.workers or 0) * resources.cpus_per_worker)
        own = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES, "num_cpus": max(cores, wanted)}
    else:
        _knock(os.environ["RAY_ADDRESS"])
    try:
        ray.init(
            address="local" if is_own() else os.environ["RAY_ADDRESS"],
            namespace="gridlaw",
            log_to_driver=False,
            logging_level=logging.ERROR,
            **own,
        )
    except (ConnectionError, ValueError, RuntimeError, SystemExit) as error:  # Ray exits where it gives up
        if is_own():
            raise failures.NoWorkers(f"Ray does not start: {failures.short(error)}") from error
        raise BadInput(f"RAY_ADDRESS={os.environ['RAY_ADDRESS']}: {failures.short(error)}") from None


def _knock(address: str) -> None:
    """Raises BadInput where nobody answers at `host:port`: Ray itself would try for two minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        return  # `auto`, or a form that Ray judges at once
    hosts = [host, ray.util.get_node_ip_address()] if host in ("localhost", "127.0.0.1") else [host]
    for one in hosts:
        try:
            socket.create_connection((one, int(port)), timeout=KNOCK_SECONDS).close()
            return
        except (OSError, OverflowError) as error:
            reason = str(error)
    raise BadInput(f"RAY_ADDRESS={address}: no Ray answers there: {reason}")


def environment(cpus: float, gpus: float) -> dict[str, str]:
    """Of a worker. More threads than cores slow a training down by an order of magnitude."""
    variables = {
        "OMP_NUM_THREADS": str(max(1, int(cpus))),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    if not gpus:
        return variables | {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    return variables | ({"GRIDLAW_GPU_SHARE": str(gpus)} if gpus < 1 else {})
