"""Which trials may stand side by side: in one group, as points of a law, in a table or a figure."""

import math

import laws_data as data
import numpy as np
import pyarrow.parquet as pq
import pytest

import fit_laws
from laws.points import fix, groups, select
from laws.reporting import family_charts
from laws.reporting.summaries import summarise
from laws.reporting.words import group_name
from laws.tables import read_tables


def test_corpora_and_inits_are_not_mixed(tmp_path):
    rows = data.rows(["t5"], widths=[1])
    other = [row | {"corpus_hash": "ffff", "train_key": "f" + row["train_key"]} for row in rows]
    third = [row | {"init": "random", "train_key": "r" + row["train_key"]} for row in rows]
    found = groups(read_tables([data.write(tmp_path, rows + other + third)]).trials)
    assert len(found) == 3
    assert all(len(trials) == 16 for trials in found.values())


def test_points_leave_out_what_cannot_be_fitted(tmp_path):
    rows = data.rows(["t5"], widths=[1, 4])
    rows[0] |= {"cgl": math.nan}
    rows[1] |= {"cgl": None}
    rows[2] |= {"n_params": 0}
    rows[3] |= {"n_params": 0}
    rows[4] |= {"cgl": math.inf}
    trials = next(iter(groups(read_tables([data.write(tmp_path, rows)]).trials).values()))
    selection = select(trials, "cgl")
    assert len(selection.points) == 16 - 2  # a training counts once, and its other budget still has its CGL
    assert any("3 of 32 trials have no finite cgl" in note for note in selection.notes)
    assert any("2 trials left out" in note for note in selection.notes)
    errors = select(trials, "hit@10").points
    assert errors.y.min() > 0
    assert (errors.lo <= errors.y).all()
    assert (errors.y <= errors.hi).all()


def test_other_numbers_of_negatives_are_left_out(tmp_path):
    rows = data.rows(["t5"], widths=[1])
    rows[0] |= {"cgl_chance": math.log(65)}
    trials = next(iter(groups(read_tables([data.write(tmp_path, rows)]).trials).values()))
    selection = select(trials, "cgl")
    assert len(selection.points) == 15
    assert any("another number of negatives" in note for note in selection.notes)


def members(tmp_path, rows):
    return groups(read_tables([data.write(tmp_path, rows)]).trials)


def test_another_evaluation_is_no_repeated_row(tmp_path):
    first = [row | {"split": "dev", "negatives": 256} for row in data.rows(["t5"])]
    other = [row | {"split": "test"} for row in first]
    more = [row | {"negatives": 64, "cgl_chance": math.log(65), "cgl": 0.5} for row in first[:8]]
    data.write(tmp_path / "a", first, "one")
    data.write(tmp_path / "b", other, "two")
    data.write(tmp_path / "c", more, "three")
    tables = read_tables([tmp_path / "a", tmp_path / "b", tmp_path / "c"])
    assert (len(tables.trials), tables.duplicates) == (len(first) + len(other) + len(more), 0)
    found = groups(tables.trials)
    assert [group.split for group in found] == ["dev", "test"]
    dev = next(iter(found.values()))
    losses, errors = select(dev, "cgl"), select(dev, "hit@10")
    assert len(losses.points) == 16
    assert losses.points.y.min() > 0.5  # none of those against 64 negatives
    assert any("another number of negatives" in note for note in losses.notes)
    assert len(errors.points) == len(first)  # the same search beside other negatives is the same value again
    assert not any("new tokens" in note for note in errors.notes)


def test_recipes_are_not_seeds_and_are_named_where_needed(tmp_path):
    rows = [row | {"recipe": "a" * 64, "split": "test"} for row in data.rows(["t5", "llama"], widths=[1])]
    other = [row | {"recipe": "b" * 64, "train_key": "b" + row["train_key"]} for row in rows if row["family"] == "t5"]
    random = [row | {"init": "random", "train_key": "r" + row["train_key"]} for row in rows if row["family"] == "t5"]
    found = members(tmp_path, rows + other + random)
    assert [group_name(group, found) for group in found] == [
        "T5 (ppmi-r16, recipe aaaaaaaa)",
        "T5 (ppmi-r16, recipe bbbbbbbb)",
        "T5 (random)",
        "LLaMA",
    ]
    assert all(len(trials) == 16 for trials in found.values())
    assert fit_laws.main([str(tmp_path), "--metric", "cgl"]) == 0
    page = (tmp_path / "report" / "report.html").read_text()
    assert len(list((tmp_path / "report" / "figures").glob("*.svg"))) == page.count("<svg")
    assert page.count('<article class="card"') == 4 * 3  # over N, over D, over both


def test_learning_rates_are_not_averaged(tmp_path):
    rows = [row | {"learning_rate": 0.004} for row in data.rows(["t5"], widths=[1, 4])]
    lost = [
        row | {"learning_rate": 0.03, "train_key": f"{row['train_key']}-x", "cgl": 9.0, "hit@10": 0.0}
        for row in rows[:2]
    ]
    (trials,) = members(tmp_path, rows + lost).values()
    for metric in ("cgl", "hit@10"):
        selection = select(trials, metric)
        assert len(selection.points) == (16 if metric == "cgl" else 32)
        assert selection.points.y.max() < 9
        assert [note for note in selection.notes if "learning rate" in note] == [
            "1 training of t5-7k at D = 4k left out: mixed learning rates, the most common is kept (0.004, not 0.03)"
        ]
    hits = next(table for table in summarise("T5", trials).tables if table.caption.startswith("CGL"))
    assert max(cell.value for _, cells in hits.rows for cell in cells) < 9


def test_other_ways_to_spend_are_no_points_of_a_law_in_beams(tmp_path):
    rows = data.rows(["t5"])
    bad = {name: 0.0 for name in rows[0] if name.startswith("hit@10")}
    sampled = [row | bad | {"beams": None, "samples": 8, "temperature": 0.7} for row in rows[::4][:3]]
    reranked = [row | bad | {"rerank": 10} for row in rows]
    titles = [row | bad | {"views": "body+title"} for row in rows[:5]]
    tables = read_tables([data.write(tmp_path / "all", rows + sampled + reranked + titles)])
    assert (len(tables.trials), tables.duplicates) == (2 * len(rows) + 8, 0)
    (trials,) = groups(tables.trials).values()
    (alone,) = members(tmp_path / "alone", rows).values()
    selection, plain = select(trials, "hit@10"), select(alone, "hit@10")
    assert sorted(selection.points.y) == sorted(plain.points.y)
    assert [note for note in selection.notes if "left out" in note] == [
        "3 trials left out: identifiers were sampled and not searched for with beams",
        "64 trials left out: all views searched, 10 reranked; kept is all views searched, nothing reranked",
        "5 trials left out: body and title searched, nothing reranked; kept is all views searched, nothing reranked",
    ]
    assert len(select(trials, "cgl").points) == 16
    assert family_charts.budgets(trials, "hit@10", [], "hits") is not None
    (table,) = [table for table in summarise("T5", trials).tables if table.corner == "budget"]
    names = [name for name, _ in table.rows]
    assert names == [*(f"{width} beams{more}" for more in ("", ", 10 reranked") for width in data.BEAMS)]
    assert table.rows[-1][1][1].value == 0
    assert not [table for table in summarise("T5", alone).tables if table.corner == "budget"]


def test_plain_searches_stay_however_few_they_are(tmp_path):
    rows = data.rows(["t5"])
    bad = {name: 0.0 for name in rows[0] if name.startswith("hit@10")}
    plain = [row for row in rows if row["beams"] == 4]
    reranked = [row | bad | {"rerank": 10} for row in rows]
    bodies = [row | bad | {"views": "body"} for row in rows[:3]]
    (trials,) = members(tmp_path / "few", plain + reranked + bodies).values()
    (alone,) = members(tmp_path / "alone", plain).values()
    selection = select(trials, "hit@10")
    assert sorted(selection.points.y) == sorted(select(alone, "hit@10").points.y)
    assert [note for note in selection.notes if "left out" in note] == [
        "64 trials left out: all views searched, 10 reranked; kept is all views searched, nothing reranked",
        "3 trials left out: body searched, nothing reranked; kept is all views searched, nothing reranked",
    ]


def test_without_plain_searches_the_most_common_stay(tmp_path):
    rows = data.rows(["t5"])
    bad = {name: 0.0 for name in rows[0] if name.startswith("hit@10")}
    reranked = [row | {"rerank": 10} for row in rows]
    (trials,) = members(tmp_path / "two", reranked + [row | bad | {"views": "body"} for row in rows[:3]]).values()
    (alone,) = members(tmp_path / "one", reranked).values()
    for some in (trials, alone):
        selection = select(some, "hit@10")
        assert len(selection.points) == 64
        assert selection.points.y.max() < 1
        assert "no plain beam searches: all views searched, 10 reranked" in selection.notes


def budget_table(trials):
    (table,) = [table for table in summarise("T5", trials).tables if table.corner == "budget"]
    return {name: cells[1] and cells[1].value for name, cells in table.rows}


def spent(row, hit, **budget):
    return row | {name: hit for name in row if name.startswith("hit@10")} | budget


def test_lengths_and_learning_rates_are_not_averaged_as_seeds(tmp_path):
    *_, row = (row | {"learning_rate": 0.004} for row in data.rows(["t5"], widths=[4]))
    seeds = [row | {"seed": seed, "train_key": f"{row['train_key']}-{seed}"} for seed in (0, 1)]
    rows = [spent(one, 0.5 + 0.2 * one["seed"], max_new_tokens=12) for one in seeds]
    rows += [spent(one, 0.3, max_new_tokens=2) for one in seeds]
    rows += [spent(one, 0.9 - 0.2 * one["seed"], max_new_tokens=12, rerank=10) for one in seeds]
    rows += [spent(seeds[0], 0.9, max_new_tokens=12, rerank=10, negatives=64)]
    sampled = {"beams": None, "samples": 8, "temperature": 0.7}
    rows += [spent(one, length / 10, max_new_tokens=length, **sampled) for one in seeds for length in (2, 4)]
    lost = [one | {"learning_rate": 0.03, "train_key": f"{one['train_key']}-x"} for one in rows if one["seed"] == 0]
    (trials,) = members(tmp_path, rows + [spent(one, 0.0) for one in lost]).values()
    expected = {
        "4 beams, up to 2 new tokens": 0.3,
        "4 beams, up to 12 new tokens": 0.6,
        "4 beams, 10 reranked": 0.8,
        "8 samples at temperature 0.7, up to 2 new tokens": 0.2,
        "8 samples at temperature 0.7, up to 4 new tokens": 0.4,
    }
    found = budget_table(trials)
    assert list(found) == list(expected)
    assert found == pytest.approx(expected)


def test_rows_from_before_there_were_such_budgets_are_read(tmp_path):
    data.write(tmp_path, data.rows(["t5"], widths=[4]))
    (part,) = (tmp_path / "synthetic" / "trials").glob("*.parquet")
    table = pq.read_table(part)
    pq.write_table(table.drop_columns(["views", "samples", "temperature", "rerank"]), part)
    (trials,) = groups(read_tables([tmp_path]).trials).values()
    assert len(select(trials, "hit@10").points) == 16
    assert {trial.views for trial in trials} == {""}


def test_shorter_searches_are_not_averaged_into_tables_and_figures(tmp_path):
    rows = [row | {"max_new_tokens": 12} for row in data.rows(["t5"])]
    cut = [row | {"max_new_tokens": 2} | {name: 0.0 for name in row if name.startswith("hit@10")} for row in rows]
    (trials,) = members(tmp_path / "both", rows + cut).values()
    (alone,) = members(tmp_path / "alone", rows).values()
    assert summarise("T5", trials) == summarise("T5", alone)
    drawn, expected = (
        [mark.y for mark in family_charts.budgets(some, "hit@10", [], "hits").marks] for some in (trials, alone)
    )
    assert all(np.array_equal(one, other) for one, other in zip(drawn, expected, strict=True))


def test_slices_hold_the_largest_of_the_fullest(tmp_path):
    rows = data.rows(["t5"])
    trials = next(iter(groups(read_tables([data.write(tmp_path, rows)]).trials).values()))
    points, held = fix(select(trials, "hit@10").points, ("n",))
    assert held == {"d": 108_000, "beams": 64}
    assert len(points) == 4
