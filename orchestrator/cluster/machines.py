"""Ray's nodes as `Node`s: cores, memory, GPUs and what kind they are."""

import subprocess
import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.nodes import Node

LOOK_SECONDS = 1.0
PROBE_SECONDS = 60.0
ACCELERATOR = "accelerator_type:"
"""Ray names a node's kind of GPU by a resource of this name."""


@ray.remote(num_cpus=0)
def _gpu_bytes() -> list[int]:
    """Memory of each GPU of the node that this runs on."""
    said = subprocess.run(
        ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"],
        capture_output=True,
        text=True,
        check=True,
        timeout=PROBE_SECONDS,
    )
    return [int(line) * 2**20 for line in said.stdout.split()]


class Machines:
    """What Ray says of its nodes, asked at most once a second; the memory of GPUs is asked of each node once."""

    def __init__(self) -> None:
        self._raw: list[dict[str, Any]] = []
        self._looked = float("-inf")
        self._gpu_bytes: dict[str, int] = {}

    def there(self) -> Sequence[Node]:
        """Nodes that are alive."""
        return [self._node(raw) for raw in self._alive()]

    def is_alive(self, node: str) -> bool:
        """Whether Ray still counts the node among the living. Asked anew."""
        self._looked = float("-inf")
        return any(raw["NodeID"] == node for raw in self._alive())

    def name(self, node: str) -> str:
        """Its host name."""
        return next((raw["NodeManagerHostname"] for raw in self._raw if raw["NodeID"] == node), node[:8])

    def _alive(self) -> list[dict[str, Any]]:
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._raw, self._looked = ray.nodes(), time.monotonic()
        return [raw for raw in self._raw if raw["Alive"]]

    def _node(self, raw: dict[str, Any]) -> Node:
        resources = raw["Resources"]
        gpus = int(resources.get("GPU", 0))
        kinds = [name.removeprefix(ACCELERATOR) for name in resources if name.startswith(ACCELERATOR)]
        return Node(
            id=raw["NodeID"],
            name=raw["NodeManagerHostname"],
            cpus=resources.get("CPU", 0.0),
            memory=int(resources.get("memory", 0)),
            gpus=gpus,
            gpu_bytes=self._bytes_of(raw["NodeID"]) if gpus else 0,
            device=(kinds[0] if kinds else "GPU") if gpus else "cpu",
        )

    def _bytes_of(self, node: str) -> int:
        """Of the smallest GPU of the node; 0 where it does not say."""
        if node not in self._gpu_bytes:
            try:
                where = NodeAffinitySchedulingStrategy(node, soft=False)
                found = ray.get(_gpu_bytes.options(scheduling_strategy=where).remote(), timeout=PROBE_SECONDS)
                self._gpu_bytes[node] = min(found, default=0)
            except Exception:  # whatever the driver's tool says; placement then takes the grid's word
                self._gpu_bytes[node] = 0
        return self._gpu_bytes[node]
