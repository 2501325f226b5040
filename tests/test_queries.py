"""Draws over shared queries, from the per-query tables of a sweep."""

import laws_data as data
import numpy as np
import pytest

from laws.points import groups, select
from laws.queries import PerQuery
from laws.questions import on_log
from laws.tables import read_tables
from results.local import LocalStore
from results.schema import QUERIES
from results.tables import write_rows

ASKED = 40


def ranks(rng):
    """Of the first relevant document; None where none was reached."""
    return [None if rank > 30 else int(rank) for rank in rng.integers(1, 60, ASKED)]


def kept(tmp_path, change=None):
    """A grid with its per-query tables, whose trials have the means of their queries."""
    rng = np.random.default_rng(0)
    trials = data.rows(["t5"], widths=[4, 16])
    for row in trials:
        row["trial"] = f"{row['trial']}-x"
        found, losses = ranks(rng), rng.uniform(1, 5, ASKED)
        asked = [
            {"trial": row["trial"], "query": f"q{index}", "rank": found[index], "cgl": float(losses[index])}
            for index in rng.permutation(ASKED)
        ]
        row["hit@10"] = float(np.mean([rank is not None and rank <= 10 for rank in found]))
        row["rr@10"] = float(np.mean([1 / rank if rank is not None and rank <= 10 else 0 for rank in found]))
        row["cgl"] = float(losses.mean())
        if change is not None:
            asked = change(row, asked)
        write_rows(LocalStore(root=tmp_path), f"synthetic/queries/{row['trial']}.parquet", asked, QUERIES)
    data.write(tmp_path, trials)
    tables = read_tables([tmp_path])
    ((_, members),) = groups(tables.trials).items()
    return tables, members


@pytest.mark.parametrize("metric", ["hit@10", "rr@10", "cgl"])
def test_draws_are_means_over_the_same_queries(tmp_path, metric):
    tables, members = kept(tmp_path)
    points = select(members, metric, queries=tables.queries, resamples=300).points
    assert points.draws.shape == (len(points), 300)
    # by brute force: the same queries for every point, in the order of the seed
    store = LocalStore(root=tmp_path)
    by_trial = {}
    for trial in members:
        rows = store.read_table(f"synthetic/queries/{trial.trial}.parquet").to_pylist()
        by_trial[trial.run, trial.beams] = {row["query"]: row for row in rows}
    spread = points.draws.std(axis=1)
    assert (spread > 0).all()
    np.testing.assert_allclose(points.draws.mean(axis=1), points.y, atol=5 * spread.max() / 300**0.5)
    expected = [
        np.std([_score(metric, row) for row in by_trial[run, beams].values()]) / ASKED**0.5
        for run, beams in zip(points.run, points.beams if points.beams is not None else [4] * len(points), strict=True)
    ]
    np.testing.assert_allclose(spread, expected, rtol=0.2)


def _score(metric, row):
    if metric == "cgl":
        return row["cgl"]
    reached = row["rank"] is not None and row["rank"] <= 10
    return 1 - (float(reached) if metric == "hit@10" else (1 / row["rank"] if reached else 0.0))


def test_draws_are_shared_by_all_points(tmp_path):
    def same(row, asked):
        for index, one in enumerate(sorted(asked, key=lambda one: one["query"])):
            one["cgl"] = float(index)
        row["cgl"] = (ASKED - 1) / 2
        return asked

    tables, members = kept(tmp_path, same)
    draws = select(members, "cgl", queries=tables.queries, resamples=50).points.draws
    np.testing.assert_allclose(draws, np.broadcast_to(draws[0], draws.shape))
    assert np.ptp(draws[0]) > 0


@pytest.mark.parametrize("fault", ["missing", "other", "values", "torn"])
def test_tables_that_do_not_cover_the_points_give_no_draws(tmp_path, fault):
    def change(row, asked):
        if row["n_params"] == data.N[0]:
            if fault == "missing":
                return asked[1:]
            if fault == "other":
                asked[0]["query"] = "another"
            if fault == "values":
                row["cgl"] += 0.5
        return asked

    tables, members = kept(tmp_path, change)
    if fault == "torn":
        for part in (tmp_path / "synthetic" / "queries").glob(f"t5-{data.N[0]}-*.parquet"):
            part.write_bytes(b"PAR1")
    assert select(members, "cgl", queries=tables.queries, resamples=20).points.draws is None


def test_without_tables_there_are_no_draws(tmp_path):
    store = LocalStore(root=tmp_path)
    assert PerQuery(grids=(store,)).draws(["a"], "cgl", np.array([1.0]), 10, 0) is None
    assert PerQuery(grids=()).draws(["a"], "ndcg@10", np.array([1.0]), 10, 0) is None


def test_minus_log_keeps_order_and_draws(tmp_path):
    tables, members = kept(tmp_path)
    points = select(members, "hit@10", queries=tables.queries, resamples=30).points
    turned = on_log(points)
    if (points.draws >= 1).any():
        assert turned is None
        return
    np.testing.assert_allclose(np.exp(-turned.y), 1 - points.y)
    np.testing.assert_allclose(np.exp(-turned.draws), 1 - points.draws)
    assert turned.quantity == "-log"
