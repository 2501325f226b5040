"""What each step takes of the machines, chosen from the memory that it will need; what fits nowhere is refused here.

On GPUs a training is cut as `orchestrator/cuts.py` says. Evaluations of one training are given the same, so that one
worker does them with the model loaded once: the smallest of an eighth, a quarter, a half and a whole GPU, or of 2, 4,
8 ... whole ones of one node over which the model is spread, in which its weights, the index and the beams of
`TOGETHER` queries (or of one, where a whole GPU does not hold more) find room. Where nodes have GPUs, steps that run
no model take none. Nothing that is chosen here is part of a key.

On CPUs a training has one worker unless the grid says otherwise, and the whole share of its batch in a pass; only
where RAM does not hold that is it cut, which changes sums in their last bits. A demand's RAM keeps those apart that
do not fit side by side.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.grid import Loaded
from orchestrator.nodes import Demand, Node
from orchestrator.placing.cuts import Cut, Kind, best_cut, has_bf16, kinds_of, micro_batches, usable
from orchestrator.placing.lengths import UNKNOWN_DOCUMENTS
from orchestrator.placing.refusals import refuse_evaluation, refuse_ram, refuse_training
from orchestrator.placing.sizes import Sizes, sizes_of
from orchestrator.resources import SHARES, Resources
from orchestrator.steps import Graph, Step
from orchestrator.tuning_settings import TuneJob
from workers.models.shapes import count_parameters
from workers.search_memory import SEARCH_SHARE, UNEVEN, SearchMemory
from workers.settings import IdentifiersJob, ScoreJob, SearchJob, TrainingSettings, TrainJob, VectorIdentifiers
from workers.training_memory import CUDA, PROCESS, TrainingMemory

TOGETHER = 32
"""Queries of a batch for which an evaluation is given room, where the grid does not say how many."""
CPU_SEARCH = 256 * 2**20
"""Bytes of RAM of a search on a CPU: twice the batch's limit there."""
DOCUMENT = 2_000
"""Bytes of RAM of a document, its tokens and its place in an index."""
DOCUMENT_ON_GPU = 1_600
"""Bytes of a document's tokens in an index on a GPU: 16 a token, a hundred tokens."""


def demands(
    graph: Graph, loaded: Loaded, nodes: Sequence[Node], summary: Mapping[str, Any] | None = None
) -> dict[str, Demand]:
    """Step key -> what it takes, for every step of the graph.

    `nodes`: the machines that there are, or those that the grid describes (`resources.nodes_of`). `summary`: of the
    corpus, where it has been read. A pretrained model whose shape is not known is given a whole GPU (or none, on
    CPUs) and no memory.

    Raises:
        BadInput: a step fits on no node; one line that names the model and says what would do.
    """
    documents = int(summary["documents"]) if summary else UNKNOWN_DOCUMENTS
    chooser = _Chooser(graph=graph, loaded=loaded, nodes=tuple(nodes), corpus=documents)
    evaluations = {key: step for key, step in graph.steps.items() if isinstance(step.settings, ScoreJob | SearchJob)}
    found = {key: chooser.of(step) for key, step in graph.steps.items() if key not in evaluations}
    by_training: dict[str, list[Step]] = {}
    for step in evaluations.values():
        by_training.setdefault(dict(step.needs)["train"], []).append(step)
    for train, steps in by_training.items():
        demand = chooser.evaluations(graph.steps[train], steps)
        found |= {step.key: demand for step in steps}
    return {key: found[key] for key in graph.steps}


@dataclass(kw_only=True)
class _Chooser:
    graph: Graph
    loaded: Loaded
    nodes: tuple[Node, ...]
    corpus: int
    """Documents."""
    trainings: dict[tuple[Sizes, TrainingSettings], Demand] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wanted = self.resources.gpus_per_worker
        self.kinds: list[Kind] = [] if wanted == 0 else kinds_of(self.nodes)
        self.most_ram = max((node.memory for node in self.nodes), default=0)

    @property
    def resources(self) -> Resources:
        return self.loaded.grid.resources

    @property
    def _texts(self) -> int:
        return PROCESS + DOCUMENT * self.corpus

    def of(self, step: Step) -> Demand:
        """Of a step that is no evaluation."""
        if isinstance(step.settings, TrainJob | TuneJob):  # of a study, what one of its trials takes
            return self._training(step, step.settings.training)
        gpus = 1.0 if self.kinds and _runs_a_model(step) else 0.0
        return Demand(cpus=self.resources.cpus_per_worker, gpus=gpus, memory=self._texts)

    def _training(self, step: Step, training: TrainingSettings) -> Demand:
        sizes = sizes_of(self.graph, step)
        if sizes is None:
            return self._unknown(training)
        key = (sizes, training.model_copy(update={"learning_rate": None}))
        if key not in self.trainings:
            choose = self._training_on_gpus if self.kinds else self._training_on_cpus
            self.trainings[key] = choose(step, sizes, training)
        return self.trainings[key]

    def _unknown(self, training: TrainingSettings) -> Demand:
        return Demand(
            workers=self.resources.together,
            cpus=self.resources.cpus_per_worker,
            gpus=self._given_gpus(1.0) if self.kinds else 0.0,
            zero_stage=training.stage,
            offload=training.offloaded,
            micro_batch=training.micro_batch,
        )

    def _given_gpus(self, otherwise: float) -> float:
        given = self.resources.gpus_per_worker
        return otherwise if given == "auto" else given

    def _training_on_gpus(self, step: Step, sizes: Sizes, training: TrainingSettings) -> Demand:
        cut = best_cut(sizes, training, self.resources, self.kinds)
        if cut is None:
            raise refuse_training(self.loaded, step, sizes, self.kinds)
        return _demand(cut, self.resources.cpus_per_worker)

    def _training_on_cpus(self, step: Step, sizes: Sizes, training: TrainingSettings) -> Demand:
        workers = self.resources.together
        memory = TrainingMemory(
            shape=sizes.shape,
            query=sizes.query,
            target=sizes.target,
            bf16=training.precision == "bf16",
            dropout=sizes.dropout,
            workers=workers,
            stage=training.stage,
        )
        need, chosen = 0, training.micro_batch
        for number, micro_batch in enumerate(micro_batches(training, workers)):
            need = PROCESS + memory.on_cpu(micro_batch)
            chosen = micro_batch if number else training.micro_batch
            if need <= self.most_ram:
                break
        else:
            raise refuse_ram(self.loaded, step, need, self.most_ram)
        return Demand(
            workers=workers,
            cpus=self.resources.cpus_per_worker,
            memory=need,
            zero_stage=training.stage,
            offload=training.offloaded,
            micro_batch=chosen,
        )

    # ------------------------------------------------------------ evaluations

    def evaluations(self, train: Step, steps: Sequence[Step]) -> Demand:
        """What each of a training's evaluations takes."""
        sizes = sizes_of(self.graph, train)
        assert isinstance(train.settings, TrainJob)
        if sizes is None:
            return replace(self._unknown(train.settings.training), workers=1, zero_stage=0, micro_batch=None)
        if not self.kinds:
            ram = self._texts + 4 * count_parameters(sizes.shape).n_total + CPU_SEARCH
            if ram > self.most_ram:
                raise refuse_ram(self.loaded, train, ram, self.most_ram)
            return Demand(cpus=self.resources.cpus_per_worker, memory=ram)
        for queries in (TOGETHER, 1):
            for kind in self.kinds:
                demand = self._evaluation_on(kind, sizes, train, steps, queries)
                if demand is not None and (queries == 1 or demand.gpus <= 1):
                    return demand
        raise refuse_evaluation(self.loaded, train, self._least(sizes, train, steps), self.kinds)

    def _evaluation_on(
        self, kind: Kind, sizes: Sizes, train: Step, steps: Sequence[Step], queries: int
    ) -> Demand | None:
        assert isinstance(train.settings, TrainJob)
        precision = train.settings.training.precision
        bf16 = precision == "bf16" or (precision == "auto" and has_bf16(kind.device))
        weights = (2 if bf16 else 4) * count_parameters(sizes.shape).n_total
        need, index = weights + self._beams(sizes, steps, bf16, queries), DOCUMENT_ON_GPU * self.corpus
        ram = self._texts + weights
        for gpus in self._parts(kind):
            room = kind.room(gpus, self.resources.cpus_per_worker, ram)
            own = need if gpus <= 1 else UNEVEN * need / gpus
            if own + index <= usable(kind.gpu_bytes, min(1.0, gpus)) and room and room[0]:
                return Demand(cpus=self.resources.cpus_per_worker, gpus=gpus, memory=ram, gpu_bytes=kind.gpu_bytes)
        return None

    def _parts(self, kind: Kind) -> Sequence[float]:
        """GPUs of one worker that are possible, few first."""
        if self.resources.gpus_per_worker != "auto":
            return (self.resources.gpus_per_worker,)
        most = max(node.gpus for node in kind.nodes)
        return (*SHARES, *(float(2**power) for power in range(most.bit_length())))

    def _beams(self, sizes: Sizes, steps: Sequence[Step], bf16: bool, queries: int) -> int:
        """Bytes of the batch of the evaluation that needs most, as a part of what it may take."""
        need = 0
        for step in steps:
            job = step.settings
            assert isinstance(job, ScoreJob | SearchJob)
            budget = job.budget if isinstance(job, SearchJob) else None
            memory = SearchMemory(
                shape=sizes.shape,
                prompt=sizes.query,
                new_tokens=min(sizes.target, (budget and budget.max_new_tokens) or sizes.target),
                value_bytes=2 if bf16 else 4,
                device="cuda",
                kept_values=None if budget else 0,
            )
            rows = max(budget.beams or 0, budget.samples or 0, budget.rerank or 0) if budget else 1
            together = job.evaluation.batch or queries
            need = max(need, memory.total(together, together * rows))
        return int(need / SEARCH_SHARE)

    def _least(self, sizes: Sizes, train: Step, steps: Sequence[Step]) -> Callable[[bool], int]:
        """Bytes that the evaluations need at least, in bf16 or not."""

        def need(bf16: bool) -> int:
            weights = (2 if bf16 else 4) * count_parameters(sizes.shape).n_total
            return weights + DOCUMENT_ON_GPU * self.corpus + self._beams(sizes, steps, bf16, 1) + CUDA

        return need


def _runs_a_model(step: Step) -> bool:
    """Whether making identifiers goes through an encoder, or a model that writes queries."""
    if not isinstance(step.settings, IdentifiersJob):
        return False
    identifiers = step.settings.identifiers
    encodes = isinstance(identifiers, VectorIdentifiers) and identifiers.embedding != "lsa"
    return encodes or getattr(identifiers, "queries", "").startswith("model:")


def _demand(cut: Cut, cpus: float) -> Demand:
    return Demand(
        workers=cut.memory.workers,
        cpus=cpus,
        gpus=cut.gpus,
        memory=cut.memory.beside_gpu(),
        gpu_bytes=cut.kind.gpu_bytes,
        zero_stage=cut.memory.stage,
        offload=cut.memory.offload,
        micro_batch=cut.micro_batch,
    )
