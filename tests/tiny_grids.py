"""Grids of one document, for tests of what a sweep does with its steps and not of what they compute."""

from pathlib import Path

CORPUS = '{"text": "a b c", "queries": ["x y"]}\n'
GRID = """
name: tiny
corpus: {source: jsonl, path: corpus.jsonl}
identifiers: {kind: ngram}
models: {family: t5, size: 7k}
data: {pairs: [10, 20]}
inference: {beams: [1, 4]}
seeds: [0]
resources: {workers: 2, cpus_per_worker: 0.5}
tracking: {wandb: "off"}
"""
TUNED = """
name: tiny
corpus: {source: jsonl, path: corpus.jsonl}
identifiers: {kind: ngram}
models: [{family: t5, size: 7k}, {family: t5, size: 29k}]
data: {pairs: [10, 20]}
inference: {beams: [1, 4]}
tuning: {pairs: 50, trials: 6, learning_rate: [1e-3, 1e-1]}
resources: {workers: 2, cpus_per_worker: 0.5}
tracking: {wandb: "off"}
"""


def write_grid(folder: Path, text: str = GRID) -> Path:
    """A grid file and its corpus of one document."""
    (folder / "corpus.jsonl").write_text(CORPUS)
    path = folder / "tiny.yaml"
    path.write_text(text)
    return path
