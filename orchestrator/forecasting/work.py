"""How much work a step is, before it runs: FLOPs, items, passes and bytes, from shapes and lengths alone.

Every assumption that stands in for something unread is a constant here. Seconds are made of this elsewhere.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from orchestrator.nodes import Demand
from orchestrator.placing.lengths import Lengths
from orchestrator.placing.sizes import sizes_of
from orchestrator.steps import Graph, Step
from orchestrator.tuning_settings import TuneJob
from workers.flops import inference_flops, training_flops
from workers.models.shapes import PRETRAINED, Shape, count_parameters
from workers.settings import (
    AnyIdentifiers,
    Budget,
    CodebookIdentifiers,
    EvaluationSettings,
    HierarchicalIdentifiers,
    IdentifiersJob,
    MultiviewIdentifiers,
    NgramIdentifiers,
    PseudoQueryIdentifiers,
    ScoreJob,
    SearchJob,
    SpanIdentifiers,
    TrainJob,
    VectorIdentifiers,
    split_model,
)

UNKNOWN_SHAPE = PRETRAINED["google-t5/t5-large"]
"""A pretrained model whose shape only the hub knows is taken for this one."""
TITLE_TOKENS = 6
"""Of a title or a name."""
ENCODER_PARAMETERS = 22_000_000
"""Of a sentence encoder that codes are made with: all-MiniLM-L6's."""
WRITER_PARAMETERS = 223_000_000
"""Of a model that writes pseudo-queries: T5-base's."""
TOGETHER_BYTES = 128 * 2**20
"""What queries that are decoded together may take, by `workers/memory.py`, where the grid sets no `batch`."""
ROW_BYTES_A_TOKEN_OF_VOCABULARY = 8
ADAM_BYTES = 34.0
"""Of an optimizer step in RAM, a parameter."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """Of one step, over all its workers. Amounts that a kind has none of are 0."""

    flops: float = 0.0
    """Of models, by the formulas of `workers/flops.py`."""
    items: float = 0.0
    """What else grows with the data: pairs (train, identifiers), rows decoded or scored."""
    documents: float = 0.0
    """Of the corpus, loaded or gone through."""
    passes: float = 0.0
    """Layers gone through, one after the other, on one worker: each costs the same however little is in it."""
    sent: float = 0.0
    """Bytes that each worker sends to others."""
    hosted: float = 0.0
    """Bytes that go through the RAM beside each worker's GPU, where something is offloaded to it."""

    def __add__(self, other: "Work") -> "Work":
        return Work(
            flops=self.flops + other.flops,
            items=self.items + other.items,
            documents=self.documents + other.documents,
            passes=self.passes + other.passes,
            sent=self.sent + other.sent,
            hosted=self.hosted + other.hosted,
        )

    def times(self, factor: float) -> "Work":
        """So many times as much, one after the other."""
        return Work(**{name: factor * amount for name, amount in vars(self).items()})


def work_of(graph: Graph, step: Step, lengths: Lengths, demand: Demand) -> Work:
    """Of a step that is cut as `demand` says."""
    job = step.settings
    if isinstance(job, TrainJob):
        return _training(job, *_pair(graph, step, lengths), demand)
    if isinstance(job, TuneJob):
        one = TrainJob(model=job.model, training=job.training, pairs=job.pairs, seed=job.seed)
        return _training(one, *_pair(graph, step, lengths), demand).times(job.trainings)
    if isinstance(job, ScoreJob | SearchJob):
        training = graph.steps[dict(step.needs)["train"]]
        shape, query, target = _pair(graph, training, lengths)
        query = float(lengths.query_tokens(shape.vocabulary) + 1)
        identifiers = identifiers_of(graph, training)
        passes = list(_decoded(job, identifiers, target))
        decoded = _decoding(job.evaluation, shape, query, passes, lengths.queries(job.evaluation.split))
        return replace(decoded, documents=float(lengths.documents))
    if isinstance(job, IdentifiersJob):
        return _preparing(job.identifiers, lengths)
    return Work(documents=float(lengths.documents))


# ---------------------------------------------------------------- shapes and lengths


def identifiers_of(graph: Graph, training: Step) -> AnyIdentifiers:
    """The identifiers that a training learns to write."""
    job = graph.steps[dict(training.needs)["identifiers"]].settings
    assert isinstance(job, IdentifiersJob)
    return job.identifiers


def shape_of(graph: Graph, training: Step) -> Shape:
    """The model's shape, over the vocabulary that it will have; `UNKNOWN_SHAPE` where nothing is known of it."""
    sizes = sizes_of(graph, training)
    return sizes.shape if sizes else UNKNOWN_SHAPE


def _pair(graph: Graph, training: Step, lengths: Lengths) -> tuple[Shape, float, float]:
    """The model's shape, and tokens of a training pair's query (with its end) and identifier, on average."""
    job = training.settings
    assert isinstance(job, TrainJob | TuneJob)
    identifiers, shape = identifiers_of(graph, training), shape_of(graph, training)
    query = lengths.query_tokens(shape.vocabulary)
    if isinstance(identifiers, SpanIdentifiers):
        spans = lengths.documents * identifiers.spans_per_document
        share = spans / max(1.0, spans + lengths.train_pairs)
        query += share * (lengths.tokens_of_words(identifiers.span_length, shape.vocabulary) - query)
    return shape, min(query, job.training.query_length) + 1.0, _written(identifiers, lengths, shape.vocabulary)


def _written(identifiers: AnyIdentifiers, lengths: Lengths, vocabulary: int) -> float:
    """Tokens of an identifier, on average."""
    query = lengths.query_tokens(vocabulary)
    match identifiers:
        case NgramIdentifiers():
            return identifiers.length
        case CodebookIdentifiers():
            return identifiers.levels
        case HierarchicalIdentifiers():
            clusters = max(2.0, lengths.documents / identifiers.leaf)
            return 1 + math.ceil(math.log(clusters, identifiers.branching))
        case PseudoQueryIdentifiers():
            return min(identifiers.max_length, query) + 1
        case MultiviewIdentifiers():
            parts = {
                identifiers.length: identifiers.per_query,
                TITLE_TOKENS: identifiers.titles_per_query,
                min(identifiers.max_length, query): identifiers.pseudo_per_query,
            }
            return sum(length * count for length, count in parts.items()) / sum(parts.values())
    return min(identifiers.max_length, TITLE_TOKENS) + 1


# ---------------------------------------------------------------- the kinds


def _training(job: TrainJob, shape: Shape, query: float, target: float, demand: Demand) -> Work:
    settings = job.training
    steps = settings.epochs * math.ceil(job.pairs / settings.batch)
    pairs = float(steps * settings.batch)
    share = max(1, settings.batch // demand.workers)
    micro = demand.micro_batch or settings.micro_batch or share
    rounds = steps * max(1, share // micro)
    flops = training_flops(shape, np.array([query]), np.array([target])) * pairs
    stacks = 2 if shape.family == "t5" else 1
    parameters = count_parameters(shape).n_total
    return Work(
        flops=flops,
        items=pairs,
        passes=3.0 * rounds * shape.layers * stacks,
        sent=_sent(demand, parameters, steps, rounds),
        hosted=_hosted(demand, parameters, steps, rounds),
    )


def _sent(demand: Demand, parameters: int, steps: int, rounds: int) -> float:
    """In bf16. Gradients are summed once a step; stage 3 gathers the weights twice a round as well, and sums each."""
    others = (demand.workers - 1) / demand.workers
    return 2.0 * parameters * others * (3 * rounds if demand.zero_stage == 3 else 2 * steps)


def _hosted(demand: Demand, parameters: int, steps: int, rounds: int) -> float:
    """Adam's reading and writing of its own part once a step; the weights' way to the GPU twice a round."""
    own = parameters / demand.workers
    adam = ADAM_BYTES * own * steps if demand.offload != "none" else 0.0
    return adam + (4.0 * own * rounds if demand.offload == "parameters" else 0.0)


def _decoded(job: ScoreJob | SearchJob, identifiers: AnyIdentifiers, target: float) -> Iterator[list[float]]:
    """Rows of one query that go through the model in each pass; a list for each time that it is read anew."""
    longest = max(2, round(target))
    if isinstance(job, ScoreJob):
        right = identifiers.per_query if isinstance(identifiers, NgramIdentifiers) else 1
        yield [1.0] + [float(job.evaluation.negatives + right)] * (longest - 1)
        return
    budget = job.budget
    length = min(budget.max_new_tokens or longest, longest)
    for _ in range(len(budget.views or identifiers.VIEWS) or 1):
        yield [1.0] + [float(width(budget))] * (length - 1) + [float(budget.rerank or 0)] * bool(budget.rerank)


def width(budget: Budget) -> int:
    """Rows of a query that are decoded side by side."""
    return budget.beams or budget.samples or 1


def _decoding(
    evaluation: EvaluationSettings, shape: Shape, query: float, read: list[list[float]], queries: int
) -> Work:
    """Of all queries. `read`: rows a pass, for each time that a query is read."""
    total = Work()
    for rows in read:
        most = max(rows)
        fits = TOGETHER_BYTES // (ROW_BYTES_A_TOKEN_OF_VOCABULARY * shape.vocabulary * max(1, round(most)))
        batches = math.ceil(queries / (evaluation.batch or max(1, fits)))
        flops = float(inference_flops(shape, np.array([query]), np.array([rows])).sum())
        total += Work(flops=queries * flops, items=queries * sum(rows), passes=batches * len(rows) * shape.layers)
    return total


def _preparing(identifiers: AnyIdentifiers, lengths: Lengths) -> Work:
    """Of the identifiers step: documents gone through, and an encoder or a writer where the kind has one."""
    made = lengths.documents + lengths.train_pairs
    if isinstance(identifiers, SpanIdentifiers):
        made += lengths.documents * identifiers.spans_per_document
    flops = 0.0
    if isinstance(identifiers, VectorIdentifiers) and identifiers.embedding != "lsa":
        flops += 2.0 * ENCODER_PARAMETERS * lengths.documents * lengths.document_tokens(32_000)
    if isinstance(identifiers, PseudoQueryIdentifiers | MultiviewIdentifiers) and split_model(identifiers.queries)[0]:
        tokens = lengths.document_tokens(32_000) + identifiers.per_document * lengths.query_tokens(32_000)
        flops += 2.0 * WRITER_PARAMETERS * lengths.documents * tokens
    return Work(flops=flops, items=float(made))
