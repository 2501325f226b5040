"""How a step is cut to the machine it runs on: what the grid left open is filled in, batches are made smaller.

None of this is part of a key: results differ by rounding at most, and what was used is recorded.
"""

from typing import Any

from orchestrator.nodes import Demand
from workers.settings import ScoreJob, SearchJob, Settings, TrainJob

EVALUATION_HALVINGS = 6
"""How often the memory of an evaluation's batches may be halved."""


def micro_batch(job: TrainJob, demand: Demand, ranks: int, halvings: int) -> int:
    """Pairs a forward pass of one rank: what was chosen for the step, halved, or as near as divides it evenly."""
    share = job.training.batch // ranks
    size = job.training.micro_batch or demand.micro_batch or share
    for _ in range(halvings):
        size = size // 2 if size % 2 == 0 else 1
    return max(1, size)


def may_halve(settings: Settings, demand: Demand, halvings: int) -> bool:
    """Whether a step whose batches were halved so often can do with smaller ones."""
    if isinstance(settings, TrainJob):
        return micro_batch(settings, demand, demand.workers, halvings) > 1
    return isinstance(settings, ScoreJob | SearchJob) and halvings < EVALUATION_HALVINGS


def fitted(settings: Settings, demand: Demand, ranks: int, halvings: int) -> Settings:
    """The settings that reach the worker: nothing in them is left open."""
    if isinstance(settings, TrainJob):
        chosen: dict[str, Any] = {"zero_stage": demand.zero_stage, "offload": demand.offload}
        if settings.training.zero_stage != "auto":
            chosen["zero_stage"] = settings.training.zero_stage
        if settings.training.offload != "auto":
            chosen["offload"] = settings.training.offload
        if demand.micro_batch or halvings:
            chosen["micro_batch"] = micro_batch(settings, demand, ranks, halvings)
        return settings.model_copy(update={"training": settings.training.model_copy(update=chosen)})
    if isinstance(settings, ScoreJob | SearchJob) and halvings:
        return settings.model_copy(update={"evaluation": _smaller(settings, halvings)})
    return settings


def _smaller(settings: ScoreJob | SearchJob, halvings: int) -> Any:
    """The evaluation with so much less memory for a batch."""
    from workers.memory import search_limit  # torch, which only a worker has

    allowed = settings.evaluation.memory_mb or search_limit() // 2**20
    return settings.evaluation.model_copy(update={"memory_mb": max(1, allowed >> halvings)})


def placement(settings: Settings, ranks: int) -> dict[str, Any]:
    """How a training was cut, for the record of its attempt; nothing of other steps."""
    if not isinstance(settings, TrainJob):
        return {}
    training = settings.training
    return {
        "workers": ranks,
        "zero_stage": training.stage,
        "offload": training.offloaded,
        "micro_batch": training.micro_batch or training.batch // ranks,
    }
