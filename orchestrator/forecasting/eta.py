"""How long the rest of a sweep will take: what has run says how fast it goes, a simulation when it will be over."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.forecasting.calibration import Calibration, Measured
from orchestrator.forecasting.estimates import Estimates, ranks
from orchestrator.nodes import Node
from orchestrator.running.simulation import simulate
from orchestrator.steps import Step

FADING = 0.25
"""A measurement counts half as much when it is as old as this share of the sweep: machines get busy, and idle."""
LEAST_LEFT = 0.05
"""Share of its estimate that a running step has left at least, however long it runs already."""
TRUSTED = 0.5
"""Share of the work left that must be of kinds that were measured."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A step that was done in this sweep."""

    step: Step
    device: str
    seconds: float
    at: float
    """When it ended, in seconds since the sweep began."""


@dataclass(frozen=True, kw_only=True)
class Running:
    """A step that runs now."""

    step: Step
    device: str
    seconds: float
    """For how long."""
    left: float | None = None
    """Seconds, where the step itself says how far it is."""


def calibrated(estimates: Estimates, ended: Sequence[Ended], running: Sequence[Running], now: float) -> Calibration:
    """The estimates' calibration after what this sweep has seen in `now` seconds."""
    measured = [_measured(estimates, one.step, one.device, one.seconds, _weight(one, now)) for one in ended]
    for one in running:
        if one.left is not None:
            measured.append(_measured(estimates, one.step, one.device, one.seconds + one.left, 1.0))
    return estimates.calibration.after(measured)


def _weight(one: Ended, now: float) -> float:
    return float(0.5 ** ((now - one.at) / (FADING * max(now, 1e-3))))


def _measured(estimates: Estimates, step: Step, device: str, seconds: float, weight: float) -> Measured:
    parts = estimates.parts(step, device)
    return Measured(kind=step.kind, device=device, parts=parts, seconds=seconds, weight=weight)


def is_trusted(estimates: Estimates, calibration: Calibration, left: Collection[Step]) -> bool:
    """Whether most of what is left is of kinds that were measured."""
    total = known = 0.0
    for step in left:
        device = estimates.device(step)
        seconds = calibration.seconds(step.kind, device, estimates.parts(step, device))
        total += seconds
        known += seconds if (step.kind, device) in calibration.counts else 0.0
    return known >= TRUSTED * total


def seconds_left(
    estimates: Estimates, left: Mapping[str, Step], running: Sequence[Running], nodes: Sequence[Node], limit: int | None
) -> float:
    """Until the last of the steps `left` (the running ones among them) has ended on the machines `nodes`.

    Args:
        limit: workers that may work at once.
    """
    seconds = {key: estimates.seconds_of(step) for key, step in left.items()}
    for one in running:
        expected = seconds[one.step.key]
        seconds[one.step.key] = max(LEAST_LEFT * expected, expected - one.seconds) if one.left is None else one.left
    everything = dict.fromkeys(estimates.graph.steps, 0.0) | seconds
    timeline = simulate(
        left,
        seconds=seconds,
        priority=ranks(estimates.graph, everything),
        nodes=nodes,
        demands=estimates.demands,
        limit=limit,
    )
    return timeline.seconds
