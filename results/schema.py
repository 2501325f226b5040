"""Columns of the Parquet tables that a sweep writes. Others rely on these names.

`trials`: one row a trial. `queries`: one row a (trial, query). `curves`: one row a logged training step.
`baselines`: one row a baseline of a corpus. `tuning`: one row a trial of a study of learning rates.
"""

import pyarrow as pa

METRICS = ("hit@1", "hit@10", "hit@100", "rr@10", "ndcg@10")
"""Ranking metrics, higher is better, each with `_lo` and `_hi`: a 95% bootstrap interval over queries."""

LOSSES = ("cgl", "cgl_published", "nll")
"""Likelihood metrics, lower is better, with intervals likewise."""


def _with_interval(names: tuple[str, ...]) -> list[pa.Field]:
    return [pa.field(name + end, pa.float64()) for name in names for end in ("", "_lo", "_hi")]


TRIALS = pa.schema(
    [
        pa.field("trial", pa.string(), nullable=False),
        pa.field("train_key", pa.string()),
        pa.field("grid", pa.string()),
        pa.field("corpus", pa.string()),
        pa.field("corpus_hash", pa.string()),
        pa.field("n_documents", pa.int64()),
        pa.field("identifiers", pa.string()),
        pa.field("family", pa.string()),
        pa.field("model", pa.string()),
        pa.field("init", pa.string()),  # how token embeddings start: random, ppmi, ppmi-r16, pretrained
        pa.field("seed", pa.int64()),
        pa.field("n_params", pa.int64()),  # without the input embedding: the N of a law
        pa.field("n_total", pa.int64()),
        pa.field("n_embedding", pa.int64()),
        pa.field("d_pairs", pa.int64()),
        pa.field("d_tokens", pa.int64()),
        pa.field("epochs", pa.int64()),
        pa.field("learning_rate", pa.float64()),
        pa.field("zero_stage", pa.int64()),
        pa.field("workers", pa.int64()),
        pa.field("offload", pa.string()),  # what was kept in RAM in place of the GPU: none | optimizer | parameters
        pa.field("micro_batch", pa.int64()),  # pairs a forward pass of one worker
        pa.field("accumulation", pa.int64()),  # forward passes of one worker an optimizer step
        pa.field("recipe", pa.string()),  # hash of tokenizer and training settings but the learning rate
        pa.field("beams", pa.int64()),  # null where identifiers were sampled
        pa.field("max_new_tokens", pa.int64()),
        pa.field("views", pa.string()),  # names joined by +; null: all that the identifiers have
        pa.field("samples", pa.int64()),
        pa.field("temperature", pa.float64()),  # of the sampling
        pa.field("rerank", pa.int64()),  # best documents that were ranked again
        pa.field("split", pa.string()),  # of the queries that every metric is measured on
        pa.field("negatives", pa.int64()),
        pa.field(
            "batch", pa.int64()
        ),  # queries decoded together, as the search tells or the grid asked; null: by memory
        pa.field("train_flops", pa.float64()),
        pa.field("infer_flops_per_query", pa.float64()),
        *_with_interval(LOSSES),
        pa.field("cgl_chance", pa.float64()),
        pa.field("cgl_published_chance", pa.float64()),
        *_with_interval(METRICS),
        pa.field("n_queries", pa.int64()),
        pa.field("latency_ms", pa.float64()),  # wall time of a batch over its queries
        pa.field("queries_per_s", pa.float64()),
        pa.field("train_seconds", pa.float64()),
        pa.field("eval_seconds", pa.float64()),
        pa.field("peak_memory_bytes", pa.int64()),
        pa.field("status", pa.string(), nullable=False),  # done | failed
        pa.field("error", pa.string()),
        pa.field("attempts", pa.int64()),
        pa.field("started", pa.timestamp("us", tz="UTC")),
        pa.field("finished", pa.timestamp("us", tz="UTC")),
        pa.field("versions", pa.string()),  # JSON: package -> version
        pa.field("git_commit", pa.string()),
        pa.field("source", pa.string()),  # of a row that no sweep here measured: who published it; null: measured here
    ]
)

QUERIES = pa.schema(
    [
        pa.field("trial", pa.string(), nullable=False),
        pa.field("query", pa.string(), nullable=False),
        pa.field("rank", pa.int64()),  # of the first relevant document, from 1; null where none was reached
        pa.field("cgl", pa.float64()),
        pa.field("cgl_published_positive", pa.float64()),  # smallest mean NLL of a relevant identifier
        pa.field("cgl_published_negative", pa.float64()),  # mean NLL of the negatives, summed over them
        pa.field("nll", pa.float64()),
        pa.field("latency_ms", pa.float64()),
    ]
)

CURVES = pa.schema(
    [
        pa.field("train_key", pa.string(), nullable=False),
        pa.field("step", pa.int64(), nullable=False),
        pa.field("pairs", pa.int64()),
        pa.field("loss", pa.float64()),
        pa.field("learning_rate", pa.float64()),
        pa.field("gradient_norm", pa.float64()),
        pa.field("seconds", pa.float64()),
    ]
)

BASELINES = pa.schema(
    [
        pa.field("grid", pa.string(), nullable=False),
        pa.field("corpus", pa.string(), nullable=False),
        pa.field("corpus_hash", pa.string()),
        pa.field("baseline", pa.string(), nullable=False),  # random | bm25 | embeddings-r16 ...
        pa.field("n_documents", pa.int64()),
        pa.field("n_queries", pa.int64()),
        *_with_interval(METRICS),
    ]
)

STUDY = (
    *("grid", "study", "corpus", "corpus_hash", "identifiers", "family", "model", "n_params", "d_pairs", "epochs"),
    *("metric", "chance"),
)
"""Columns of `tuning` that all trials of a study share."""

TUNING = pa.schema(
    [
        pa.field("grid", pa.string()),
        pa.field("study", pa.string()),  # key of the study's step
        pa.field("corpus", pa.string()),
        pa.field("corpus_hash", pa.string()),
        pa.field("identifiers", pa.string()),
        pa.field("family", pa.string()),
        pa.field("model", pa.string()),
        pa.field("n_params", pa.int64()),
        pa.field("d_pairs", pa.int64()),
        pa.field("epochs", pa.int64()),
        pa.field("metric", pa.string()),  # dev_rr | dev_cgl | dev_nll
        pa.field("chance", pa.float64()),  # CGL of a model that ignores the query; null for the others
        pa.field("number", pa.int64(), nullable=False),  # of the trial in its study, from 0
        pa.field("learning_rate", pa.float64(), nullable=False),
        pa.field("batch", pa.int64()),
        pa.field("share", pa.float64()),  # of the training that was done when it was last looked at
        pa.field("dev_loss", pa.float64()),  # then; `metric` over the dev queries
        pa.field("shares", pa.list_(pa.float64())),  # whenever it was looked at
        pa.field("dev_losses", pa.list_(pa.float64())),
        pa.field("state", pa.string(), nullable=False),  # trained | stopped (early) | diverged | failed
        pa.field("seconds", pa.float64()),  # from the choice of the values to the end
        pa.field("is_own", pa.bool_()),  # the learning rate that the model has without a tuning
        pa.field("is_chosen", pa.bool_()),  # the values that the grid's trainings have
    ]
)
