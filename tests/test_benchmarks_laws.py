"""The benchmarks of laws run at their small size, and find what holds at any size."""

import json

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.laws import PARTS
from benchmarks.laws.truths import TRUTHS
from benchmarks.rows import Row


@pytest.mark.parametrize(
    "part", [pytest.param(part, marks=pytest.mark.slow) if part == "report" else part for part in PARTS]
)
def test_a_part_runs(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["laws", "--quick", "--json", "--part", part]) == 0
    rows = [Row(**each) for each in json.loads(capsys.readouterr().out)]
    assert rows
    assert all(np.isfinite(row.value) for row in rows)
    if part == "optimum":
        assert all(row.met for row in rows), rows
    if part == "recovery":
        exact = [row for row in rows if "no noise" in row.name]
        assert exact
        assert all(row.met and "NOT" not in row.name for row in exact)


def test_every_form_has_a_truth_of_its_own() -> None:
    names = [truth.name for truth in TRUTHS]
    assert len(set(names)) == len(names)
    for truth in TRUTHS:
        assert set(truth.parameters) >= set(truth.form.parameters)
        values = truth.values()
        assert np.isfinite(values).all()
        assert (values > 0).all()
        runs = truth.runs()
        budgets = truth.budgets if set(truth.form.axes) & {"beams", "c"} and len(truth.form.axes) > 1 else 1
        assert set(np.bincount(runs)) == {budgets}
