"""How good rankings are: the field's metrics through `ir-measures`, bootstrap intervals, and TREC run files."""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, unquote

import numpy as np

from results.schema import METRICS

Run = Mapping[str, Sequence[tuple[str, float]]]
"""Query -> (document, score) from best to worst."""

_MEASURES = {"hit": "Success@{}", "rr": "RR@{}", "ndcg": "nDCG@{}"}
_MEMORY = 1 << 22
"""Draws of the bootstrap held at once."""


def measure(qrels: Mapping[str, Collection[str]], run: Run) -> dict[str, np.ndarray]:
    """Each metric of `results.schema.METRICS` for each query: float64 (queries,), in the order of `qrels`.

    The run's own order counts, whatever its scores are: they are replaced by ranks, so that ties cannot be
    reordered. A query that the run lacks scores 0. Relevance is binary.
    """
    import ir_measures

    number_of = {qid: str(number) for number, qid in enumerate(qrels)}
    document: defaultdict[str, str] = defaultdict(lambda: str(len(document)))  # any id may hold any character
    judged = [ir_measures.Qrel(number_of[qid], document[docid], 1) for qid, docids in qrels.items() for docid in docids]
    scored = [
        ir_measures.ScoredDoc(number_of[qid], document[docid], float(-rank))
        for qid in qrels
        for rank, (docid, _) in enumerate(run.get(qid, ()))
    ]
    measures = {}
    for metric in METRICS:
        kind, _, cutoff = metric.partition("@")
        measures[ir_measures.parse_measure(_MEASURES[kind].format(cutoff))] = metric
    values = {metric: np.zeros(len(qrels)) for metric in METRICS}
    if scored:
        for row in ir_measures.iter_calc(list(measures), judged, scored):
            values[measures[row.measure]][int(row.query_id)] = row.value
    return values


def bootstrap_interval(values: np.ndarray, resamples: int, seed: int) -> tuple[float, float]:
    """95% percentile interval of the mean over queries (Efron 1979). `values`: (queries,), at least one."""
    generator = np.random.default_rng(seed)
    at_once = max(1, _MEMORY // len(values))
    means = [
        values[generator.integers(len(values), size=(min(at_once, resamples - done), len(values)))].mean(axis=1)
        for done in range(0, resamples, at_once)
    ]
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return float(low), float(high)


def summarise(values: Mapping[str, np.ndarray], resamples: int, seed: int) -> dict[str, float]:
    """Mean and interval of each metric: `{"hit@1": .., "hit@1_lo": .., "hit@1_hi": .., ...}`."""
    summary = {}
    for metric, mine in values.items():
        summary[metric] = float(mine.mean())
        summary[f"{metric}_lo"], summary[f"{metric}_hi"] = bootstrap_interval(mine, resamples, seed)
    return summary


def first_relevant_rank(relevant: Collection[str], ranking: Sequence[tuple[str, float]]) -> int | None:
    """Rank, from 1, of the first relevant document; None where there is none in the ranking."""
    return next((rank for rank, (docid, _) in enumerate(ranking, start=1) if docid in relevant), None)


def write_trec(path: Path, run: Run, tag: str) -> None:
    """A TREC run file: `query Q0 document rank score tag`, in the run's order.

    Scores fall strictly, by the least step of a 32-bit float where two were equal: trec_eval holds them so, sorts by
    them and breaks ties its own way, and the file must give the metrics that stand in the tables.
    The format parts fields by whitespace, so whitespace and `%` in an id are percent-encoded.
    """
    with path.open("w", encoding="utf-8") as file:
        for qid, ranking in run.items():
            last = np.float32(np.inf)
            for rank, (docid, score) in enumerate(ranking, start=1):
                last = min(np.float32(score), np.nextafter(last, np.float32(-np.inf)))
                file.write(f"{_escape(qid)} Q0 {_escape(docid)} {rank} {last!s} {_escape(tag)}\n")


def read_trec(path: Path) -> dict[str, list[tuple[str, float]]]:
    """The run that `write_trec` wrote, in the order of the ranks."""
    rows: dict[str, list[tuple[int, str, float]]] = {}
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            qid, _, docid, rank, score, _ = line.split()
            rows.setdefault(unquote(qid), []).append((int(rank), unquote(docid), float(score)))
    return {qid: [(docid, score) for _, docid, score in sorted(mine)] for qid, mine in rows.items()}


def _escape(field: str) -> str:
    return re.sub(r"[\s%\x00-\x20]", lambda match: quote(match[0], safe=""), field)
