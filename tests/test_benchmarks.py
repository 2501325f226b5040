"""Every benchmark runs at its small size, finds what its baseline finds, and says what it skips."""

import json

import numpy as np
import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.decoding import PARTS, data
from benchmarks.decoding.retrieval import best_sequences
from benchmarks.decoding.static_trie import StaticTrie
from benchmarks.rows import Row, at_least, at_most, cost, cost_against_recorded, medians, rate
from workers.decoding.beam import Candidates
from workers.decoding.index import build_index
from workers.ragged import Ragged


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


def test_a_recorded_baseline_is_called_so() -> None:
    row = cost_against_recorded("x", 2.0, "ms", "SEAL", "elsewhere, 2 CPU cores", 10.0, 5.0)
    assert row.name == "x, against SEAL's recorded figure"
    assert row.unit == "ms (recorded elsewhere, 2 CPU cores)"
    assert (row.baseline, row.ratio, row.met) == (10.0, 5.0, True)


def test_the_best_finished_sequences_are_ranked_for_each_query() -> None:
    rows = Ragged.of([[0, 4, 8, 12], [0, 5, 8, 12], [1, 4, 9, 13], [2, 4, 8, 14]])
    index = build_index(rows, 16, "columns")
    entry = np.array([3, 0, 1, 2, 0, 2, 1])
    found = Candidates(
        query=np.array([1, 0, 0, 0, 1, 1, 0]),
        lo=entry[:, None],
        hi=entry[:, None] + 1,
        length=np.full(7, 4),
        score=np.array([-5.0, -3.0, -1.0, -2.0, -4.0, -1.0, -0.5]),
        grows=np.array([False, False, False, False, False, True, False]),
        in_beam=np.array([True, True, True, True, True, True, False]),
    )
    best = best_sequences(found, index, 2)
    assert best.query.tolist() == [0, 0, 1, 1]
    assert best.score.tolist() == [-1.0, -2.0, -4.0, -5.0]
    assert best.tokens.tolist() == [rows[row].tolist() for row in (1, 2, 0, 3)]


def test_the_compact_trie_is_the_same_trie_in_fewer_bytes() -> None:
    rng = np.random.default_rng(0)
    rows = np.unique(rng.integers(0, 4, size=(60, 5)), axis=0)
    trie = StaticTrie.build(rows, 4)
    compact = trie.compact()
    edges = sum(len(each) for each in trie.tokens)
    assert trie.nbytes - compact.nbytes == 7 * edges  # 4 + 4 bytes an edge, against 1
    state, score = torch.zeros(1, dtype=torch.long), torch.zeros(1)
    written = torch.empty((1, 0), dtype=torch.long)
    for depth in range(5):
        log_probs = torch.from_numpy(data.random_log_probs(len(state), 4, rng))
        step, other = (each.step(depth, state, score, log_probs, 10_000) for each in (trie, compact))
        assert all(map(torch.equal, step, other))
        there = torch.isfinite(step[3])
        beam, token, state, score = (each[there] for each in step)
        written = torch.cat([written[beam], token[:, None]], dim=1)
    assert {tuple(row) for row in written.tolist()} == {tuple(row) for row in rows.tolist()}


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
