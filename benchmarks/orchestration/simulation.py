"""Sweeps on 64 pretended GPUs: the scheduler that runs sweeps on a virtual clock, durations from the estimates.

How busy the GPUs are is compared with what no schedule can beat: the longest chain of steps that wait for each other,
or all work over all GPUs, whichever is longer. In `grids/full.yaml` the chain of the largest model decides; with five
seeds of all but that model the GPUs do, which is where a scheduler can do badly. Timelines are drawn as PNG into
`--figures`, where that is given.
"""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.orchestration.drawing import draw
from benchmarks.rows import Options, Row, Skipped, at_least
from orchestrator.forecasting.forecast import Forecast, forecast, nodes_for
from orchestrator.grid import load
from orchestrator.plan import Plan, make_plan
from orchestrator.running.jobs import Desk
from orchestrator.running.simulation import lower_bound
from results.opening import open_store

GRID = Path(__file__).resolve().parents[2] / "grids" / "full.yaml"
SIMULATED = {
    "grids/full.yaml": (),
    "grids/full.yaml, five seeds, all but Llama-2-70b": (
        "seeds=[0, 1, 2, 3, 4]",
        "models.1.pretrained=[meta-llama/Llama-2-7b-hf, meta-llama/Llama-2-13b-hf]",
    ),
}
GOAL = 0.95


def measure(options: Options) -> Iterator[Row | Skipped]:
    """A row each."""
    for number, (name, overrides) in enumerate(SIMULATED.items()):
        plan, found = _simulated(overrides)
        least = lower_bound(
            {step.key: step for step in plan.foreseen},
            seconds=found.estimates.seconds(),
            demands=found.estimates.demands,
            gpus=sum(node.gpus for node in found.nodes),
        )
        assert not found.timeline.stuck
        yield at_least(f"64 GPUs, {name}: of what no schedule can beat", least / found.timeline.seconds, "", GOAL)
        gpus = sum(node.gpus for node in found.nodes)
        busy = found.timeline.gpu_seconds() / gpus / found.timeline.seconds
        yield Row(name=f"64 GPUs, {name}: GPUs busy from beginning to end", value=busy, unit="")
        yield Row(name=f"64 GPUs, {name}: simulated", value=found.timeline.seconds / 3600, unit="hours")
        if options.figures is not None:
            draw(found.timeline, found.nodes, f"{name} on 64 GPUs", options.figures / f"timeline-{number + 1}.png")


def _simulated(overrides: tuple[str, ...]) -> tuple[Plan, Forecast]:
    nowhere = Desk(store=open_store(Path("/nonexistent-results")))
    loaded = load(GRID, overrides)
    plan = make_plan(loaded, nowhere, fetch=False)
    return plan, forecast(plan, nodes_for(plan))
