"""What carrying out a plan will take: time, device-hours, disk and money on given machines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.forecasting.calibration import Calibration
from orchestrator.forecasting.disk import footprints, peak
from orchestrator.forecasting.estimates import Estimates, make_estimates, ranks
from orchestrator.forecasting.eta import is_trusted
from orchestrator.forecasting.history import measured
from orchestrator.forecasting.rates import peak_flops
from orchestrator.keys import RECIPES
from orchestrator.nodes import ANY, Demand, Node
from orchestrator.placing import placement
from orchestrator.placing.lengths import Lengths, assume_lengths, read_lengths
from orchestrator.placing.sizes import sizes_of
from orchestrator.plan import Plan
from orchestrator.resources import nodes_of, this_machine
from orchestrator.running.simulation import Span, Timeline, simulate
from orchestrator.steps import Step
from workers.settings import TrainJob

HOUR = 3600.0


@dataclass(frozen=True, kw_only=True)
class KindForecast:
    """All new steps of one kind."""

    new: int = 0
    flops: float = 0.0
    gpu_hours: float = 0.0
    cpu_hours: float = 0.0
    """Of cores, by steps that take no GPU."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Of all new steps of a plan."""

    nodes: tuple[Node, ...]
    estimates: Estimates
    timeline: Timeline
    kinds: Mapping[str, KindForecast]
    disk_peak_bytes: float
    """Of the grid's steps and rows, what is finished included."""
    cost: float | None
    """Of all machines for as long as the sweep runs, in the grid's currency; None where a price is missing."""
    cost_while_busy: float | None
    """Of the machines only while they work: what is paid where idle ones are given back."""
    basis: str
    """Where the seconds come from."""
    assumed: tuple[str, ...]

    @property
    def wall_seconds(self) -> float | None:
        """From beginning to end; None where there are steps that no machine has room for."""
        return None if self.timeline.stuck else self.timeline.seconds

    @property
    def gpu_hours(self) -> float:
        """Of all GPUs, busy."""
        return sum(kind.gpu_hours for kind in self.kinds.values())

    @property
    def cpu_hours(self) -> float:
        """Of all cores, busy with steps that take no GPU."""
        return sum(kind.cpu_hours for kind in self.kinds.values())


def estimates_of(plan: Plan, demands: Mapping[str, Demand], nodes: Sequence[Node]) -> Estimates:
    """Of all steps of a plan, calibrated from those that are finished."""
    fresh = make_estimates(plan.graph, lengths_of(plan), demands, nodes)
    return fresh.calibrated(Calibration().after(measured(plan.store, fresh, plan.finished)))


def lengths_of(plan: Plan) -> Lengths:
    """Read from the corpus where it has been read, else assumed."""
    if plan.summary is None:
        return assume_lengths(plan.loaded.grid)
    return read_lengths(plan.summary, plan.store.fetch("corpus", plan.graph.corpus))


def forecast(plan: Plan, nodes: Sequence[Node]) -> Forecast:
    """Run the plan on a virtual clock.

    Raises:
        BadInput: a step fits on none of the machines.
    """
    demands = placement.demands(plan.graph, plan.loaded, nodes, plan.summary)
    estimates = estimates_of(plan, demands, nodes)
    seconds = estimates.seconds()
    new = {step.key: step for step in plan.foreseen}
    timeline = simulate(
        new,
        seconds=seconds,
        priority=ranks(plan.graph, seconds),
        nodes=nodes,
        demands=demands,
        limit=plan.loaded.grid.resources.workers,
    )
    training = plan.loaded.grid.training
    sizes = footprints(estimates, bf16=_is_bf16(plan, nodes), keep_weights=training.keep_weights)
    cost, busy = _costs(plan, nodes, timeline)
    trusted = is_trusted(estimates, estimates.calibration, plan.new)
    return Forecast(
        nodes=tuple(nodes),
        estimates=estimates,
        timeline=timeline,
        kinds={kind: _of_kind(estimates, kind, seconds, plan.foreseen) for kind in RECIPES},
        disk_peak_bytes=peak(estimates, sizes, timeline.spans, plan.finished),
        cost=cost,
        cost_while_busy=busy,
        basis=estimates.calibration.behind() if trusted else "uncalibrated",
        assumed=_assumed(estimates, nodes, trusted),
    )


def _of_kind(estimates: Estimates, kind: str, seconds: Mapping[str, float], new: Sequence[Step]) -> KindForecast:
    mine = [step for step in new if step.kind == kind]
    gpu = cpu = 0.0
    for step in mine:
        demand = estimates.demands.get(step.key, ANY)
        hours = seconds[step.key] * demand.workers / HOUR
        gpu += hours * demand.gpus
        cpu += 0.0 if demand.gpus else hours * demand.cpus
    flops = sum(estimates.works[step.key].flops for step in mine)
    return KindForecast(new=len(mine), flops=flops, gpu_hours=gpu, cpu_hours=cpu)


def _costs(plan: Plan, nodes: Sequence[Node], timeline: Timeline) -> tuple[float | None, float | None]:
    """Of the machines for the whole time, and for the time that each works."""
    prices = {node.id: plan.loaded.grid.resources.price_of(node.name) for node in nodes}
    if not prices or None in prices.values():
        return None, None
    rented = busy = 0.0
    for node in nodes:
        price = prices[node.id] or 0.0
        rented += price * timeline.seconds / HOUR
        spans = [span for span in timeline.spans if span.node == node.id]
        busy += price * sum((span.end - span.start) * _share(span, node) for span in spans) / HOUR
    return rented, busy


def _share(span: Span, node: Node) -> float:
    """Of the node's GPUs, or of its cores where it has none, that the span takes."""
    return span.gpus / node.gpus if node.gpus else span.cpus / node.cpus


def _is_bf16(plan: Plan, nodes: Sequence[Node]) -> bool:
    precision = plan.loaded.grid.training.precision
    return precision == "bf16" or (precision == "auto" and any(node.gpus for node in nodes))


def _assumed(estimates: Estimates, nodes: Sequence[Node], trusted: bool) -> tuple[str, ...]:
    """What stands in for something that is not known."""
    said = list(estimates.lengths.assumed)
    unknown = {
        step.settings.model.label
        for step in estimates.graph.steps.values()
        if isinstance(step.settings, TrainJob) and sizes_of(estimates.graph, step) is None
    }
    if unknown:
        said.append(f"{', '.join(sorted(unknown))} of the shape of t5-large")
    if not trusted:
        peaks = {node.device: peak_flops(node.device) for node in nodes}
        said += [f"{flops / 1e12:g} TFLOP/s at most of {device}" for device, flops in sorted(peaks.items())]
    return tuple(said)


def nodes_for(plan: Plan) -> tuple[Node, ...]:
    """The machines that the grid describes, else this one."""
    return nodes_of(plan.loaded.grid.resources) or (this_machine(),)
