"""The orchestration benchmarks run at their small size and say what they should."""

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.rows import Row


def _rows(part: str, capsys: pytest.CaptureFixture[str], *more: str) -> list[Row]:
    assert main(["orchestration", "--quick", "--json", "--part", part, *more]) == 0
    return [Row(**each) for each in json.loads(capsys.readouterr().out)]


def test_a_scan_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    rows = _rows("scan", capsys)
    assert len(rows) == 3
    assert all(row.value > 0 for row in rows)


def test_the_simulated_cluster_is_as_busy_as_the_longest_chain_allows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, *_ = _rows("simulation", capsys, "--figures", str(tmp_path))
    assert first.met
    assert first.value <= 1 + 1e-9
    assert len(list(tmp_path.glob("*.png"))) == 2
