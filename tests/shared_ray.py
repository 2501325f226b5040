"""A small Ray that the sweeps of a test file share, and sweeps on it with the stand-ins of `sweep_jobs`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sweep_jobs
from ray.cluster_utils import Cluster

from orchestrator.sweep import Request, carry_out


@contextmanager
def small_cluster() -> Iterator[str]:
    """Its address. Workers take their environment from this process as it is now."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # where workers find the stand-ins
        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 2, "include_dashboard": False, "object_store_memory": 10**8},
        )
        yield cluster.address
        cluster.shutdown()


def run(
    grid: Path, *overrides: str, results: Path | str | None = None, mode: str = "run", retrain: bool = False
) -> int:
    """The exit code of a sweep with the stand-ins; results beside the grid where nothing else is said."""
    place = results or grid.parent / "results"
    request = Request(grid=grid, overrides=overrides, results=place, mode=mode, json=mode != "run", retrain=retrain)
    return carry_out(request, table=sweep_jobs.JOBS)
