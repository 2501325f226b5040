"""A report of 1,000 trials: two families, five sizes, five data scales, five seeds, four widths; all default metrics.

Timed is everything that `fit_laws.py` does in one process: reading, fitting, judging, planning, drawing, writing; and
beside it the part that comes after the laws are fitted and judged.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.rows import Options, Row, at_most
from laws.reporting import report
from laws.study import DEFAULT_METRICS, study
from laws.tables import read_tables
from results.local import LocalStore
from results.schema import LOSSES, METRICS, TRIALS
from results.tables import write_rows

GOAL = 60.0
"""Seconds."""
SIZES = (7e6, 29e6, 115e6, 460e6, 1.8e9)
SCALES = (2e4, 6e4, 1.8e5, 5.4e5, 1.6e6)
SEEDS = 5
WIDTHS = (1, 4, 16, 64)
NOISE = 0.01
NEGATIVES = 256


def measure(options: Options) -> Iterator[Row]:
    """Two rows: all of it, and the report alone."""
    kept = 2 if options.quick else None
    trials = _trials(SIZES[: 3 if kept else None], SCALES[: 3 if kept else None], kept or SEEDS)
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(LocalStore(root=folder), "benchmark/trials/part.parquet", trials, TRIALS)
        began = time.perf_counter()
        tables = read_tables([folder])
        findings = study(tables, DEFAULT_METRICS)
        fitted = time.perf_counter()
        page = report.write(tables, findings, folder / "report")
        ended = time.perf_counter()
        figures = len(list((folder / "report" / "figures").glob("*.svg")))
        size = page.stat().st_size / 1e6
    what = f"{len(trials):,} trials, {len(findings)} laws, {figures} figures, page of {size:.1f} MB"
    yield at_most(f"laws and report of {what}", ended - began, "s", GOAL)
    yield at_most(f"the report alone of {what}", ended - fitted, "s", GOAL)


def _trials(sizes: tuple[float, ...], scales: tuple[float, ...], seeds: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(7)
    found = []
    for family, pace in (("t5", 0.34), ("llama", 0.3)):
        for n in sizes:
            for d in scales:
                for seed in range(seeds):
                    loss = float((1.2 + 300 / n**pace + 250 / d**0.4) * (1 + NOISE * rng.standard_normal()))
                    found += [_trial(family, int(n), int(d), seed, beams, loss) for beams in WIDTHS]
    return found


def _trial(family: str, n: int, d: int, seed: int, beams: int, loss: float) -> dict[str, Any]:
    hit = float(np.clip(1.05 - 0.2 * loss - 0.25 / beams**0.5, 0.01, 0.98))
    row: dict[str, Any] = {
        "trial": f"{family}-{n}-{d}-{seed}-{beams}",
        "train_key": f"{family}-{n}-{d}-{seed}",
        "grid": "benchmark",
        "corpus": "synthetic",
        "corpus_hash": "0" * 16,
        "n_documents": 100_000,
        "identifiers": "ngram",
        "family": family,
        "model": f"{family}-{n // 1_000_000}m",
        "init": "random",
        "seed": seed,
        "n_params": n,
        "d_pairs": d,
        "beams": beams,
        "epochs": 1,
        "n_queries": 1000,
        "train_flops": 6.0 * n * d * 20,
        "infer_flops_per_query": n * (40.0 + 8.0 * beams),
        "cgl_chance": float(np.log(1 + NEGATIVES)),
        "cgl_published_chance": float(np.log(1 + 1 / NEGATIVES)),
        "status": "done",
        "versions": "{}",
    }
    for name in LOSSES:
        value = loss / 500 if name == "cgl_published" else loss
        row |= {name: value, name + "_lo": value * 0.98, name + "_hi": value * 1.02}
    for name in METRICS:
        row |= {name: hit, name + "_lo": max(hit - 0.03, 0.0), name + "_hi": min(hit + 0.03, 1.0)}
    return row
