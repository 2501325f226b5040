"""The published points as a results folder: the committed table, and what it supports."""

import re
import subprocess

import published_points
import pytest

from results.local import LocalStore
from results.schema import TRIALS
from results.tables import read_rows


def test_the_committed_table_holds_the_published_values() -> None:
    empty = dict.fromkeys(TRIALS.names)
    found = read_rows(LocalStore(root=published_points.FOLDER), "trials", TRIALS).to_pylist()
    assert found == [empty | row for row in published_points.rows()]
    assert len(found) == 5 + 3 + 5 + 5


def test_every_row_says_where_it_is_from() -> None:
    assert all(row["status"] == "done" for row in published_points.rows())
    assert all(re.search(r"arXiv \d{4}\.\d{5}", row["source"]) for row in published_points.rows())


def test_it_is_part_of_the_project_and_its_report_is_not() -> None:
    def ignored(name: str) -> bool:
        command = ["git", "check-ignore", "--quiet", "--no-index", str(published_points.FOLDER / name)]
        return subprocess.run(command, cwd=published_points.FOLDER).returncode == 0

    if subprocess.run(["git", "rev-parse"], cwd=published_points.FOLDER, capture_output=True).returncode:
        pytest.skip("not a git checkout")
    assert not ignored(published_points.PART)
    assert ignored("report/report.html")
    assert ignored("../quickstart/trials/part.parquet")
