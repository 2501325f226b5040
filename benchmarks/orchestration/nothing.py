"""Worker functions that do next to nothing but leave the files that rows are made of, and a grid of them."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

JOBS = {
    "corpus": "benchmarks.orchestration.nothing:corpus",
    "tokenizer": "benchmarks.orchestration.nothing:prepare",
    "embeddings": "benchmarks.orchestration.nothing:prepare",
    "identifiers": "benchmarks.orchestration.nothing:prepare",
    "baselines": "benchmarks.orchestration.nothing:baselines",
    "train": "benchmarks.orchestration.nothing:train",
    "score": "benchmarks.orchestration.nothing:score",
    "search": "benchmarks.orchestration.nothing:search",
}
BUDGETS = 3
STEPS_A_TRAINING = 2 + BUDGETS

GRID = """
name: nothing
corpus: {{source: jsonl, path: corpus.jsonl}}
identifiers: {{kind: ngram}}
models: {{family: t5, size: 7k, embeddings: {{kind: random}}}}
data: {{pairs: [10]}}
inference: {{beams: [1, 4, 16]}}
seeds: {seeds}
resources: {{workers: 2, cpus_per_worker: 0.5}}
tracking: {{wandb: "off"}}
"""


def write_grid(folder: Path, steps: int) -> Path:
    """A grid of about as many steps."""
    (folder / "corpus.jsonl").write_text('{"text": "a b c", "queries": ["x y"]}\n')
    path = folder / "nothing.yaml"
    path.write_text(GRID.format(seeds=list(range(max(1, steps // STEPS_A_TRAINING)))))
    return path


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


def corpus(settings: Any, *, out: Path) -> None:
    """As `workers.corpus.prepare`."""
    queries = {"train": 100, "dev": settings.dev, "test": settings.test}
    _write(
        out / "summary.json", {"name": "nothing", "hash": "h", "documents": 9, "queries": queries, "train_pairs": 99}
    )


def prepare(settings: Any, *, out: Path, **needs: Path) -> None:
    """As any step that rows do not look into."""
    _write(out / "made.json", sorted(needs))


def baselines(settings: Any, *, corpus: Path, tokenizer: Path, out: Path) -> None:
    """As `workers.baselines.prepare`."""
    _write(out / "baselines.json", [{"baseline": "random", "n_documents": 9, "n_queries": 2, "hit@10": 0.1}])


def train(settings: Any, *, out: Path, **needs: Path) -> None:
    """As `workers.training.train`."""
    line = {"step": 1, "steps": 1, "pairs": 2, "loss": 3.0, "learning_rate": 0.1, "gradient_norm": 1.0, "seconds": 0.1}
    (out / "curve.jsonl").write_text(json.dumps(line) + "\n")
    _write(out / "metrics.json", {"n_params": 10, "n_total": 20, "d_pairs": settings.pairs, "train_seconds": 0.1})


def score(settings: Any, *, out: Path, **needs: Path) -> None:
    """As `workers.evaluation.score`."""
    _write(out / "metrics.json", {"cgl": 1.5, "cgl_chance": 2.0, "eval_seconds": 0.1, "n_queries": 2})
    pq.write_table(pa.table({"query": ["a", "b"], "cgl": [1.0, 2.0]}), out / "queries.parquet")


def search(settings: Any, *, out: Path, **needs: Path) -> None:
    """As `workers.evaluation.search`."""
    metrics = {"hit@10": 0.5, "beams": settings.budget.beams, "eval_seconds": 0.1, "max_new_tokens": 8}
    _write(out / "metrics.json", metrics | {"n_queries": 2})
    pq.write_table(pa.table({"query": ["b", "a"], "rank": [1, None]}), out / "queries.parquet")
    (out / "run.trec").write_text("a Q0 d 1 1.0 x\n")
