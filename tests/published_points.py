"""The published points as rows of `trials`; `python tests/published_points.py` writes results/slgr2025 from them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import laws_data as data

from results.local import LocalStore
from results.schema import TRIALS
from results.tables import write_rows

FOLDER = Path(__file__).parents[1] / "results" / "slgr2025"
PART = "trials/published.parquet"
SOURCE = "Exploring Training and Inference Scaling Laws in Generative Retrieval, SIGIR 2025, arXiv 2503.18941"

NATURAL_QUESTIONS = {"corpus": "natural-questions", "n_documents": 21_015_324, "identifiers": "ngram"}
MS_MARCO = {"corpus": "ms-marco", "identifiers": "codebook"}
"""Its number of passages is only published as 8.8 M."""
T5 = ("t5-small", "t5-base", "t5-large", "t5-3b", "t5-11b")
LLAMA = ("llama2-7b", "llama2-13b", "llama2-70b")


def rows() -> list[dict[str, Any]]:
    """One row a published value.

    LLaMA-7B on all data stands in two series of the paper, whose joint fit counts it twice; so it stands here twice.
    """
    everything = data.FRACTIONS[-1]
    return [
        *_series(NATURAL_QUESTIONS, "t5", T5, data.T5_N, [everything] * 5, data.T5_MINDER),
        *_series(NATURAL_QUESTIONS, "llama", LLAMA, data.LLAMA_N, [everything] * 3, data.LLAMA_BY_N),
        *_series(
            NATURAL_QUESTIONS, "llama", LLAMA[:1] * 5, data.LLAMA_N[:1] * 5, data.FRACTIONS, data.LLAMA_BY_D, "by-d"
        ),
        *_series(MS_MARCO, "t5", T5, data.T5_N, [everything] * 5, data.T5_RIPOR),
    ]


def _series(
    setting: dict[str, Any], family: str, models: Any, sizes: Any, scales: Any, values: Any, series: str = "by-n"
) -> Iterator[Any]:
    for model, n, d, value in zip(models, sizes, scales, values, strict=True):
        yield setting | {
            "trial": f"{setting['identifiers']}-{model}-{d}-{series}",
            "train_key": f"{setting['identifiers']}-{model}-{d}-{series}",
            "grid": "slgr2025",
            "family": family,
            "model": model,
            "init": "pretrained",
            "n_params": n,
            "d_pairs": d,
            "epochs": 1,
            "negatives": 256,
            "cgl_published": value,
            "cgl_published_chance": data.PUBLISHED_CHANCE,
            "status": "done",
            "source": SOURCE,
        }


if __name__ == "__main__":
    write_rows(LocalStore(root=FOLDER), PART, rows(), TRIALS)
