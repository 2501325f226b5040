"""Synthetic results folders with known laws, and the published points, for the tests of laws and reports."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from laws.points import Points
from results.local import LocalStore
from results.schema import BASELINES, LOSSES, METRICS, TRIALS
from results.tables import write_rows

N = (7_000, 29_000, 115_000, 460_000)
D = (4_000, 12_000, 36_000, 108_000)
BEAMS = (1, 4, 16, 64)
CHANCE = float(np.log(257))

LLAMA_N = (6_607_343_616, 12_852_024_320, 68_714_504_192)
LLAMA_BY_N = (0.003349998694460214, 0.003293957555899526, 0.0032800482437811704)
FRACTIONS = (117_760, 235_520, 353_280, 471_040, 588_800)
LLAMA_BY_D = (
    0.003413291978135587,
    0.003353927870270544,
    0.0033509868940814346,
    0.0033502276147056305,
    0.003349998694460214,
)
T5_N = (44_057_088, 198_229_248, 704_769_024, 2_818_699_264, 11_274_422_272)
T5_MINDER = (
    0.003739327519766013,
    0.00365354820880983,
    0.003618691318817766,
    0.0035889147738936734,
    0.003575122915571207,
)
T5_RIPOR = (
    0.0038975734404411693,
    0.0038975047941049498,
    0.003900687307936112,
    0.0038959709229517137,
    0.003896698969102523,
)
PUBLISHED_CHANCE = float(np.log(1 + 1 / 256))


def points(n: Any, d: Any, y: Any, **others: Any) -> Points:
    """Points from plain sequences."""
    n, d, y = (np.asarray(values, dtype=float) for values in (n, d, y))
    return Points(n=np.broadcast_to(n, y.shape), d=np.broadcast_to(d, y.shape), y=y, **others)


def grid() -> tuple[np.ndarray, np.ndarray]:
    """All (N, D) of the synthetic sweep, flat."""
    n, d = np.meshgrid(np.array(N, float), np.array(D, float), indexing="ij")
    return n.ravel(), d.ravel()


def additive(n: Any, d: Any) -> Any:
    """The known truth of the synthetic folders' CGL."""
    return 1.0 + 200 / np.asarray(n, float) ** 0.6 + 300 / np.asarray(d, float) ** 0.5


def rows(
    families: Iterable[str] = ("t5", "llama"),
    noise: float = 0.01,
    sizes: Iterable[int] = N,
    scales: Iterable[int] = D,
    widths: Iterable[int] = BEAMS,
    truth: Callable[[Any, Any], Any] = additive,
) -> list[dict[str, Any]]:
    """Rows of `trials` of a full grid, with seeded noise."""
    rng = np.random.default_rng(3)
    found = []
    for family in families:
        for n in sizes:
            for d in scales:
                loss = float(truth(n, d)) * (1 + noise * rng.standard_normal())
                found += [_row(family, n, d, beams, loss) for beams in widths]
    return found


def _row(family: str, n: int, d: int, beams: int, loss: float) -> dict[str, Any]:
    hit = float(np.clip(1.15 - 0.18 * loss - 0.4 / beams**0.5, 0.01, 0.98))
    row: dict[str, Any] = {
        "trial": f"{family}-{n}-{d}-{beams}",
        "train_key": f"{family}-{n}-{d}",
        "grid": "synthetic",
        "corpus": "toy",
        "corpus_hash": "0123456789abcdef",
        "n_documents": 2000,
        "identifiers": "ngram",
        "family": family,
        "model": f"{family}-{n // 1000}k",
        "init": "ppmi-r16",
        "seed": 0,
        "n_params": n,
        "d_pairs": d,
        "beams": beams,
        "epochs": 2,
        "n_queries": 300,
        "cgl_chance": CHANCE,
        "cgl_published_chance": PUBLISHED_CHANCE,
        "status": "done",
        "versions": '{"torch": "2.13.0"}',
        "git_commit": "abc1234",
    }
    for name in LOSSES:
        value = loss / 500 if name == "cgl_published" else loss
        row |= {name: value, name + "_lo": value * 0.98, name + "_hi": value * 1.02}
    for name in METRICS:
        row |= {name: hit, name + "_lo": max(hit - 0.03, 0), name + "_hi": min(hit + 0.03, 1)}
    return row


def failed(trial: str, error: str) -> dict[str, Any]:
    """A trial that did not end well."""
    row = _row("t5", N[0], D[0], 2, 3.0) | {"trial": trial, "train_key": trial, "status": "failed", "error": error}
    return {name: value for name, value in row.items() if not name.startswith(("cgl", "nll", *METRICS))}


def write(root: Path, trials: list[dict[str, Any]], grid_name: str = "synthetic", baselines: bool = True) -> Path:
    """A results folder with one grid; returns `root`."""
    store = LocalStore(root=root)
    write_rows(store, f"{grid_name}/trials/part.parquet", trials, TRIALS)
    if baselines:
        found = []
        for name, value in (("random", 0.005), ("bm25", 0.96), ("embeddings-r16", 0.32)):
            row = {"grid": grid_name, "corpus": "toy", "corpus_hash": "0123456789abcdef", "baseline": name}
            found.append(row | {metric + end: value for metric in METRICS for end in ("", "_lo", "_hi")})
        write_rows(store, f"{grid_name}/baselines/part.parquet", found, BASELINES)
    return root
