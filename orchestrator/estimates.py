"""How much work a step is, roughly: enough to start the longest first and to foretell what is left.

Unit: FLOPs of the model, plus a fixed amount an item for what is not the model. Only ratios are used.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from orchestrator.steps import Graph, Step, n_params
from orchestrator.tuning_settings import TuneJob
from workers.settings import EvaluationSettings, IdentifiersJob, ScoreJob, SearchJob, TrainJob

TOKENS_AN_ITEM = 40
"""Query and identifier together."""
ITEM = 2e6
"""What a query or a pair costs beside the model."""
DOCUMENT = 1e6
"""What a document costs where a step goes through the corpus."""
UNKNOWN_N = 1_000_000_000
UNKNOWN_DOCUMENTS = 100_000


def costs(graph: Graph, summary: Mapping[str, Any] | None) -> dict[str, float]:
    """Step key -> estimated work."""
    documents = summary["documents"] if summary else UNKNOWN_DOCUMENTS
    queries: Mapping[str, int] = summary["queries"] if summary else {}
    return {key: _cost(graph, step, documents, queries) for key, step in graph.steps.items()}


def _cost(graph: Graph, step: Step, documents: int, queries: Mapping[str, int]) -> float:
    job = step.settings
    if isinstance(job, TrainJob):
        n = n_params(job.model) or UNKNOWN_N
        items = job.pairs * job.training.epochs
        return items * (6.0 * n * TOKENS_AN_ITEM + ITEM) / step.workers
    if isinstance(job, TuneJob):
        n = n_params(job.model) or UNKNOWN_N
        passes = job.training.epochs * job.trials * (job.grace + (1 - job.grace) / job.reduction)
        return job.pairs * passes * (6.0 * n * TOKENS_AN_ITEM + ITEM) / step.workers
    if isinstance(job, ScoreJob | SearchJob):
        training = graph.steps[dict(step.needs)["train"]].settings
        assert isinstance(training, TrainJob)
        n = n_params(training.model) or UNKNOWN_N
        built = graph.steps[dict(step.needs)["identifiers"]].settings
        assert isinstance(built, IdentifiersJob)
        return _queries(job.evaluation, queries) * _per_query(job, n, views=len(built.identifiers.VIEWS) or 1)
    return documents * DOCUMENT


def _queries(evaluation: EvaluationSettings, queries: Mapping[str, int]) -> int:
    return queries.get(evaluation.split) or 1_000


def _per_query(job: ScoreJob | SearchJob, n: int, views: int) -> float:
    """`views`: all that the identifiers have, each searched where the budget names none."""
    if isinstance(job, ScoreJob):
        return 2.0 * n * job.evaluation.negatives * 10 + ITEM
    length = job.budget.max_new_tokens or 10
    budget = job.budget
    width = (budget.beams or budget.samples or 1) * (len(budget.views) if budget.views else views)
    reranked = (budget.rerank or 0) * TOKENS_AN_ITEM
    return 2.0 * n * (width * length + TOKENS_AN_ITEM + reranked) + ITEM * width


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
