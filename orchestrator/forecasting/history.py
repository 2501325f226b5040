"""What finished steps took, read from the results folder."""

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import Any

from orchestrator.forecasting.calibration import Measured
from orchestrator.forecasting.estimates import Estimates
from orchestrator.keys import RECIPES
from orchestrator.nodes import ANY
from orchestrator.running import attempts
from orchestrator.running.attempts import Attempt
from orchestrator.steps import Step
from results.store import Store

MOST_OF_A_KIND = 64
"""Steps of a kind that are read: the last in the grid's order."""
CUT = ("workers", "zero_stage", "offload", "micro_batch")
READERS = 16
"""Files that are read at a time: an object store answers each after some tens of milliseconds."""


def measured(store: Store, estimates: Estimates, finished: Iterable[str]) -> list[Measured]:
    """Seconds of the graph's finished steps, at most `MOST_OF_A_KIND` of each kind.

    A step is taken to have run on what it would run on now, cut as its record says.
    """
    graph, done = estimates.graph, set(finished)
    chosen: list[Step] = []
    for kind in RECIPES:
        mine = (step for key, step in reversed(graph.steps.items()) if step.kind == kind and key in done)
        chosen += islice(mine, MOST_OF_A_KIND)
    with ThreadPoolExecutor(READERS) as readers:
        found = readers.map(lambda step: _measured(store, estimates, step), chosen)
        return [one for one in found if one is not None]


def _measured(store: Store, estimates: Estimates, step: Step) -> Measured | None:
    tried = attempts.read(store, step.kind, step.key)
    took = seconds_of(store, step, tried)
    if took is None:
        return None
    device = estimates.device(step)
    demand = replace(estimates.demands.get(step.key, ANY), **_cut(tried[-1]))
    return Measured(kind=step.kind, device=device, parts=estimates.parts_of(step, device, demand), seconds=took)


def _cut(attempt: Attempt) -> dict[str, Any]:
    """How a training was cut, where its record tells."""
    return {name: attempt.placement[name] for name in CUT if name in attempt.placement}


def seconds_of(store: Store, step: Step, tried: Sequence[Attempt]) -> float | None:
    """What the step took from its beginning to its end; None where its record is not whole.

    A training that was interrupted took what all of its attempts did: it says so itself.
    """
    if not tried or tried[-1].finished is None:
        return None
    last = tried[-1]
    took = (datetime.fromisoformat(str(last.finished)) - datetime.fromisoformat(last.started)).total_seconds()
    if step.kind == "train" and len(tried) > 1:
        content = store.peek(step.kind, step.key, "metrics.json")
        return max(took, float(json.loads(content).get("train_seconds", 0.0))) if content else took
    return took
