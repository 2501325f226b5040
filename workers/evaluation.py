"""Evaluating a trained model: its CGL once, and its retrieval under each budget.

Steps of one training run back to back in one worker, which keeps the model and the index loaded between them.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from results.files import write_json
from workers import ranking
from workers.cgl import contest_losses, draw_contests
from workers.memory import peak_bytes, start_peak
from workers.retrieval import load_trained, new_tokens, retrieve, searched
from workers.settings import ScoreJob, SearchJob


def score(job: ScoreJob, *, corpus: Path, tokenizer: Path, identifiers: Path, train: Path, out: Path) -> None:
    """CGL in both forms and NLL, each with its interval; per query in `queries.parquet`."""
    loaded = load_trained(corpus, tokenizer, identifiers, train)
    began = time.perf_counter()
    settings = job.evaluation
    contests = draw_contests(
        loaded.ids.held_out, np.sort(loaded.queries(settings.split)), settings.negatives, settings.seed
    )
    losses = contest_losses(loaded.model, loaded.ids, contests, loaded.end, loaded.query_length, settings.memory_mb)
    metrics: dict[str, Any] = {
        "cgl_chance": float(np.log1p(settings.negatives)),
        "cgl_published_chance": float(np.log1p(1 / settings.negatives)),
        "n_queries": len(contests),
    }
    values = {"cgl": losses.cgl, "cgl_published": losses.published, "nll": losses.nll}
    metrics |= ranking.summarise(values, settings.bootstrap, settings.seed)
    columns = {
        "query": [loaded.corpus.queries[contest.query].qid for contest in contests],
        "cgl": losses.cgl,
        "cgl_published_positive": losses.published_positive,
        "cgl_published_negative": losses.published_negative,
        "nll": losses.nll,
    }
    pq.write_table(pa.table(columns), out / "queries.parquet")
    write_json(out / "metrics.json", metrics | {"eval_seconds": time.perf_counter() - began})


def search(job: SearchJob, *, corpus: Path, tokenizer: Path, identifiers: Path, train: Path, out: Path) -> None:
    """Rank documents for every held-out query under one budget: metrics, per-query ranks, a TREC run file."""
    loaded = load_trained(corpus, tokenizer, identifiers, train)
    start_peak()
    began = time.perf_counter()
    settings = job.evaluation
    answers = retrieve(loaded, settings, job.budget)
    seconds = time.perf_counter() - began
    queries = loaded.corpus.split(settings.split)
    qrels = {query.qid: set(query.docids) for query in queries}
    metrics: dict[str, Any] = {
        "beams": job.budget.beams,
        "max_new_tokens": max(
            new_tokens(job.budget, loaded.ids.views[number]) for number in searched(loaded.ids, job.budget)
        ),
        "batch": answers.batch,
        "n_queries": len(queries),
        "infer_flops_per_query": float(answers.flops.mean()),
        "latency_ms": float(np.median(list(answers.latency_ms.values()))),
        "queries_per_s": len(queries) / seconds,
        "eval_seconds": seconds,
        "peak_memory_bytes": peak_bytes(),
    }
    metrics |= ranking.summarise(ranking.measure(qrels, answers.run), settings.bootstrap, settings.seed)
    ranks = [ranking.first_relevant_rank(query.docids, answers.run[query.qid]) for query in queries]
    columns = {
        "query": [query.qid for query in queries],
        "rank": pa.array(ranks, pa.int64()),
        "latency_ms": [answers.latency_ms[query.qid] for query in queries],
    }
    pq.write_table(pa.table(columns), out / "queries.parquet")
    ranking.write_trec(out / "run.trec", answers.run, "gridlaw")
    write_json(out / "metrics.json", metrics)
