"""Every benchmark runs at its small size, finds what its baseline finds, and says what it skips."""

import json

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.decoding import PARTS, data
from benchmarks.rows import Row, at_least, at_most, cost, medians, rate


@pytest.mark.parametrize("part", PARTS)
def test_a_part_runs_and_is_equal_to_its_baseline(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["decoding", "--quick", "--json", "--part", part]) == 0
    rows = [Row(**each) for each in json.loads(capsys.readouterr().out)]
    assert rows
    assert all(np.isfinite(row.value) and row.value > 0 for row in rows)
    assert all((row.goal is None) == (row.met is None) for row in rows)
    assert all((row.baseline is None) == (row.ratio is None) for row in rows)


def test_what_is_skipped_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["decoding", "--quick", "--part", "index"]) == 0
    printed = capsys.readouterr().out
    assert "skipped: index, 50 M tokens" in printed
    assert "numba" in printed


def test_natural_text_is_measured_where_it_is_given(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tides.jsonl"
    texts = [f"The moon pulls the sea {n} times, {n * n} of them at night, as {n + 7} others saw." for n in range(300)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    assert main(["decoding", "--quick", "--json", "--part", "search", "--squad", str(path)]) == 0
    output = capsys.readouterr()
    assert any("tides" in row["name"] for row in json.loads(output.out))
    assert "skipped" not in output.err


@pytest.mark.parametrize("arguments", [["nothing"], ["--part", "nothing"], ["--squad", "nothing.jsonl"]])
def test_a_wrong_command_line_is_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "nothing" in capsys.readouterr().err


def test_goals() -> None:
    assert cost("x", 2.0, "ms", 10.0, 5.0) == Row(
        name="x", value=2.0, unit="ms", baseline=10.0, ratio=5.0, goal=">= 5x", met=True
    )
    assert rate("x", 2.0, "queries/s", 10.0, 5.0).met is False
    assert cost("x", 2.0, "ms", 10.0).met is None
    assert at_most("x", 12.0, "bytes", 12.0).met
    assert not at_least("x", 2.9, "M tokens/s", 3).met


def test_rounds_take_turns_after_a_warm_up() -> None:
    calls: list[str] = []
    seconds = medians({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3)
    assert calls == ["a", "b"] * 4
    assert set(seconds) == {"a", "b"}


def test_text_is_seeded_zipf_with_successors() -> None:
    rows = data.zipf_rows(50_000, 500)
    assert rows.offsets[-1] == len(rows.values) == 50_000
    assert np.array_equal(rows.values, data.zipf_rows(50_000, 500).values)
    counts = np.sort(np.bincount(rows.values, minlength=500))[::-1]
    assert 0.5 < counts[0] / (50_000 / np.log(500)) < 3  # the commonest has about 1 / ln(vocabulary) of all
    common = np.argmax(np.bincount(rows.values[:-1]))
    following = np.bincount(rows.values[1:][rows.values[:-1] == common])
    assert following.max() > 0.45 * following.sum()
