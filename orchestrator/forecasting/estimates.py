"""How long every step of a plan will take on the machines at hand, and what has to run first."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from orchestrator.forecasting.calibration import Calibration
from orchestrator.forecasting.rates import Parts, parts
from orchestrator.forecasting.work import Work, work_of
from orchestrator.nodes import ANY, Demand, Node
from orchestrator.placing.lengths import Lengths
from orchestrator.steps import Graph, Step


@dataclass(frozen=True, kw_only=True)
class Estimates:
    """Of every step of a graph."""

    graph: Graph
    lengths: Lengths
    demands: Mapping[str, Demand]
    """Step key -> what it takes; one worker where it is left out."""
    works: Mapping[str, Work]
    gpu: str = "gpu"
    """The device of steps that take a GPU."""
    calibration: Calibration = field(default_factory=Calibration)

    def device(self, step: Step) -> str:
        """Where the step will compute."""
        return self.gpu if self.demands.get(step.key, ANY).gpus else "cpu"

    def parts(self, step: Step, device: str) -> Parts:
        """Its seconds on a device as foretold without any measurement."""
        return parts(step.kind, self.works[step.key], self.demands.get(step.key, ANY), device)

    def parts_of(self, step: Step, device: str, demand: Demand) -> Parts:
        """The same where it takes something else."""
        return parts(step.kind, work_of(self.graph, step, self.lengths, demand), demand, device)

    def seconds_of(self, step: Step) -> float:
        """From the step's beginning to its end."""
        device = self.device(step)
        return self.calibration.seconds(step.kind, device, self.parts(step, device))

    def seconds(self) -> dict[str, float]:
        """Step key -> seconds."""
        return {key: self.seconds_of(step) for key, step in self.graph.steps.items()}

    def calibrated(self, calibration: Calibration) -> "Estimates":
        """The same under another calibration."""
        return replace(self, calibration=calibration)


def make_estimates(graph: Graph, lengths: Lengths, demands: Mapping[str, Demand], nodes: Sequence[Node]) -> Estimates:
    """Without any measurement. Where machines have GPUs of several types, steps are taken to run on the commonest."""
    gpus = Counter[str]()
    for node in nodes:
        if node.gpus:
            gpus[node.device] += node.gpus
    return Estimates(
        graph=graph,
        lengths=lengths,
        demands=demands,
        works={key: work_of(graph, step, lengths, demands.get(key, ANY)) for key, step in graph.steps.items()},
        gpu=gpus.most_common(1)[0][0] if gpus else "gpu",
    )


def ranks(graph: Graph, cost: Mapping[str, float]) -> dict[str, float]:
    """Step key -> work of the longest chain that starts with it: what to start first (as in HEFT)."""
    dependents: dict[str, list[str]] = defaultdict(list)
    for step in graph.steps.values():
        for _, needed in step.needs:
            dependents[needed].append(step.key)
    found: dict[str, float] = {}
    for key in reversed(graph.steps):
        found[key] = cost[key] + max((found[dependent] for dependent in dependents[key]), default=0.0)
    return found
