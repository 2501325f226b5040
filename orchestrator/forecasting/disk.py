"""What a sweep needs on disk at its peak: every step's files while it runs and when it is finished.

Bytes of a training with P parameters: while it runs two checkpoints of 12 P (weights and AdamW's two moments in
float32; 14 P in bf16, with the weights that it trains), because the old one goes when the new one is whole; afterwards
4 P (2 P) of weights, until the last of its evaluations has ended unless the grid keeps them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from orchestrator.forecasting.estimates import Estimates
from orchestrator.forecasting.work import shape_of
from orchestrator.running.simulation import Span
from orchestrator.steps import Step
from workers.models.shapes import count_parameters
from workers.settings import (
    BaselinesJob,
    EmbeddingsJob,
    IdentifiersJob,
    MultiviewIdentifiers,
    NgramIdentifiers,
    ScoreJob,
    SearchJob,
    SpanIdentifiers,
    TokenizerJob,
    TrainJob,
)

OTHER_BYTES = 50_000
"""Of any step: its log, attempts, metrics, curve."""
TOKEN_BYTES = 5.0
"""Of a token of the tokenised corpus: its id and whether a word begins there."""
INDEX_BYTES = 7.3
"""Of a token under a suffix array."""
PAIR_BYTES = 17.0
"""Of a training pair beside its tokens: query, document, view."""
RUN_BYTES = 60.0
"""Of a document in a run file; it is there twice, in the step and in the grid's folder."""
QUERY_ROW_BYTES = 120.0
PRETRAINED_VOCABULARY = 32_000


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Bytes of one step's files."""

    running: float
    """At their most while it runs, with what stays."""
    finished: float
    dropped: float = 0.0
    """What goes of the finished ones when the last step that needs this one has ended."""


def footprints(estimates: Estimates, *, bf16: bool, keep_weights: bool) -> dict[str, Footprint]:
    """Step key -> its files."""
    return {key: _footprint(estimates, step, bf16, keep_weights) for key, step in estimates.graph.steps.items()}


def _footprint(estimates: Estimates, step: Step, bf16: bool, keep_weights: bool) -> Footprint:
    lengths, job = estimates.lengths, step.settings
    stays = float(OTHER_BYTES)
    match job:
        case TrainJob():
            parameters = count_parameters(shape_of(estimates.graph, step)).n_total
            weights = (2.0 if bf16 else 4.0) * parameters
            checkpoint = (14.0 if bf16 else 12.0) * parameters
            dropped = 0.0 if keep_weights else weights
            return Footprint(running=2 * checkpoint + stays, finished=weights + stays, dropped=dropped)
        case TokenizerJob():
            vocabulary = job.tokenizer.vocabulary if job.tokenizer else PRETRAINED_VOCABULARY
            stays += TOKEN_BYTES * _tokens(estimates, vocabulary)
        case EmbeddingsJob():
            vocabulary = _vocabulary(estimates, step)
            stays += 4.0 * vocabulary * job.rank
        case IdentifiersJob():
            stays += _identifiers(estimates, job, _vocabulary(estimates, step))
        case ScoreJob():
            stays += QUERY_ROW_BYTES * lengths.queries(job.evaluation.split)
        case SearchJob():
            queries = lengths.queries(job.evaluation.split)
            stays += queries * (QUERY_ROW_BYTES + 2 * RUN_BYTES * job.evaluation.depth)
        case BaselinesJob():
            pass
        case _:  # the corpus
            stays += lengths.documents * lengths.document_bytes + lengths.train_pairs * lengths.query_bytes
    return Footprint(running=stays, finished=stays)


def _tokens(estimates: Estimates, vocabulary: int) -> float:
    lengths = estimates.lengths
    queries = lengths.train_pairs * lengths.query_tokens(vocabulary)
    return lengths.documents * lengths.document_tokens(vocabulary) + queries


def _vocabulary(estimates: Estimates, step: Step) -> int:
    tokenizer = estimates.graph.steps[dict(step.needs)["tokenizer"]].settings
    assert isinstance(tokenizer, TokenizerJob)
    return tokenizer.tokenizer.vocabulary if tokenizer.tokenizer else PRETRAINED_VOCABULARY


def _identifiers(estimates: Estimates, job: IdentifiersJob, vocabulary: int) -> float:
    lengths, kind = estimates.lengths, job.identifiers
    query = lengths.query_tokens(vocabulary)
    if isinstance(kind, NgramIdentifiers | MultiviewIdentifiers):
        pairs = lengths.train_pairs * kind.per_query
        index = INDEX_BYTES * lengths.documents * lengths.document_tokens(vocabulary)
        return index + pairs * (PAIR_BYTES + 4.0 * kind.length) + 4.0 * query * lengths.train_pairs
    spans = lengths.documents * kind.spans_per_document if isinstance(kind, SpanIdentifiers) else 0
    pairs = lengths.train_pairs + spans
    return pairs * (PAIR_BYTES + 4.0 * (query + 8.0)) + 40.0 * lengths.documents


def peak(estimates: Estimates, sizes: Mapping[str, Footprint], spans: Iterable[Span], finished: Iterable[str]) -> float:
    """Bytes at the fullest moment: what is finished already, and what the spans leave and take meanwhile.

    Of a finished step that would have been dropped by now all is counted: a new evaluation may need it.
    """
    begins = {span.key: span.start for span in spans}
    ends = {span.key: span.end for span in spans}
    wanted: dict[str, float] = {}
    for key, end in ends.items():
        for _, needed in estimates.graph.steps[key].needs:
            wanted[needed] = max(wanted.get(needed, 0.0), end)
    changes: list[tuple[float, float]] = []
    for key, end in ends.items():
        size = sizes[key]
        changes += [(begins[key], size.running), (end, size.finished - size.running)]
        changes.append((max(end, wanted.get(key, end)), -size.dropped))
    now = most = sum(sizes[key].finished for key in finished)
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most
