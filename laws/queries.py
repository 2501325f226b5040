"""Metrics over resampled queries: every trial is asked the same queries, so their luck is shared by all points.

The draws of one metric are means over the same resampled queries for all trials together. A bootstrap that takes a
column of them moves all points at once, as another set of test queries would.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from laws.forms import Array
from results.errors import TornFile
from results.schema import METRICS, QUERIES
from results.store import Store
from results.tables import PARQUET, parts, read_each

CLOSE = 1e-6
"""A trial's mean over its queries must be its metric to within this: else they are not the queries of that value."""
_NEEDED = {
    "cgl": ("cgl",),
    "nll": ("nll",),
    "cgl_published": ("cgl_published_positive", "cgl_published_negative"),
    **{metric: ("rank",) for metric in METRICS if not metric.startswith("ndcg")},
}
"""Columns that a metric is computed from; nDCG needs more than the first relevant rank."""


@dataclass(frozen=True, kw_only=True)
class PerQuery:
    """Where the per-query tables of some grids are; nothing is read before it is asked for."""

    grids: tuple[Store, ...]

    def draws(self, trials: Sequence[str], metric: str, values: Array, count: int, seed: int) -> Array | None:
        """(trials, count): the metric of each trial over resampled queries.

        None where a trial's queries are not there, differ from another's, or do not give its value (trials,).
        """
        table = self._table(trials, metric) if metric in _NEEDED and count else None
        matrix = None if table is None else _matrix(table, _scores(table, metric), trials)
        if matrix is None or not np.allclose(matrix.mean(axis=1), values, rtol=CLOSE, atol=CLOSE):
            return None
        queries = matrix.shape[1]
        rng = np.random.default_rng(seed)
        weights = rng.multinomial(queries, np.full(queries, 1 / queries), size=count) / queries
        drawn: Array = matrix @ weights.T
        return drawn

    def _table(self, trials: Sequence[str], metric: str) -> pa.Table | None:
        """Rows of these trials with the columns that the metric needs; None where a part is missing or torn."""
        found = []
        for grid in self.grids:
            there = parts(grid, "queries")
            own = {f"queries/{trial}{PARQUET}" for trial in trials} & set(there)
            try:
                tables = read_each(grid, sorted(own) or there)  # a sweep writes one part a trial; others may not
            except (TornFile, FileNotFoundError):
                return None
            found += [_cut(table, ("trial", "query", *_NEEDED[metric])) for table in tables]
        whole = [table for table in found if table is not None]
        return pa.concat_tables(whole).combine_chunks() if whole else None


def _cut(table: pa.Table, names: Sequence[str]) -> pa.Table | None:
    """These columns in the schema's types; None where the table has not all of them."""
    if not set(names) <= set(table.column_names):
        return None
    try:
        return table.select(names).cast(pa.schema([QUERIES.field(name) for name in names]))
    except (pa.ArrowException, ValueError):
        return None


def _scores(table: pa.Table, metric: str) -> Array:
    """(rows,): the metric of each query."""

    def column(name: str) -> Array:
        return np.asarray(table.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=float)

    if metric in ("cgl", "nll"):
        return column(metric)
    if metric == "cgl_published":
        positive, negative = column("cgl_published_positive"), column("cgl_published_negative")
        return np.log1p(positive / negative)
    kind, depth = metric.split("@")
    rank = column("rank")  # NaN where nothing relevant was reached
    reached = rank <= int(depth)
    return np.where(reached, 1 / np.where(reached, rank, 1), 0.0) if kind == "rr" else reached.astype(float)


def _matrix(table: pa.Table, scores: Array, trials: Sequence[str]) -> Array | None:
    """(trials, queries) of the scores; None where two trials were not asked the same queries, each once."""
    queries = table.column("query").dictionary_encode().combine_chunks()
    owner = pc.index_in(table.column("trial"), value_set=pa.array(trials)).to_numpy(zero_copy_only=False)
    codes = queries.indices.to_numpy(zero_copy_only=False)
    mine = np.isfinite(owner.astype(float)) & np.isfinite(scores)  # a metric may be measured on fewer queries
    row, asked = owner[mine].astype(np.int64), np.unique(codes[mine], return_inverse=True)
    width = len(asked[0])
    matrix = np.full((len(trials), width), np.nan)
    matrix[row, asked[1]] = scores[mine]
    is_whole = mine.sum() == matrix.size and np.isfinite(matrix).all()
    return matrix if width and is_whole else None
