"""How far a sweep is, and when it will have ended: against sweeps that were recorded."""

from pathlib import Path

import pytest
from recorded_sweeps import MACHINE, Replay

from orchestrator.rows import last_line
from orchestrator.running.jobs import Outcome


@pytest.mark.parametrize(("name", "slower"), [("quickstart", 1.0), ("squad", 1.0), ("squad", 6.0)])
def test_says_from_a_fifth_of_the_work_on_what_is_left(name: str, slower: float, tmp_path: Path) -> None:
    """Within a quarter of what is left, where nothing was measured before; on a machine that is slower than all
    constants too."""
    moments = Replay(name, tmp_path, slower).moments(every=7.0 * slower)
    said = [moment for moment in moments if moment[0] >= 0.2]
    assert len(said) > 30
    for done, foretold, left in said:
        assert foretold is not None, done
        assert abs(foretold - left) <= max(0.25 * left, 2.0 * slower), (done, foretold, left)


def test_says_nothing_before_it_has_measured_what_most_of_the_work_is(tmp_path: Path) -> None:
    replay = Replay("quickstart", tmp_path)
    first = next(foretold is not None for done, foretold, _ in replay.moments(every=2.0) if done > 0)
    assert not first
    assert replay.progress.eta() == ""


def test_counts_down_between_looks_and_ends_with_the_work(tmp_path: Path) -> None:
    replay = Replay("quickstart", tmp_path)
    for _done, foretold, _left in replay.moments(every=5.0):
        if foretold is not None:
            break
    before = replay.progress.left()
    assert before is not None
    still = [one.step for one in replay.ran if one.ended > replay.now]
    replay.now += 2.0
    assert replay.progress.left() == pytest.approx(before - 2.0)
    assert replay.progress.eta().startswith("about ")
    for step in still:
        replay.progress.end(step, Outcome(key=step.key, status="cached"))
    assert replay.progress.eta() == ""
    replay.progress.look([MACHINE], {})  # nothing is left to foretell


def test_looking_ahead_takes_little_of_the_time(tmp_path: Path) -> None:
    """However long it takes, it is done at most a twentieth of the time."""
    replay = Replay("quickstart", tmp_path)
    looks = []

    def foretell(nodes: object) -> None:
        looks.append(replay.now)
        replay.now += 10.0

    replay.progress._foretell = foretell  # type: ignore[method-assign]
    while replay.now < 2000:
        replay.progress.look([MACHINE], {})
        replay.now += 1.0
    assert 8 <= len(looks) <= 11


def test_failed_steps_are_counted_and_are_no_measure(tmp_path: Path) -> None:
    replay = Replay("quickstart", tmp_path)
    train = next(one.step for one in replay.ran if one.step.kind == "train")
    replay.progress.end(train, Outcome(key=train.key, status="failed", kind="error", seconds=1e6))
    assert (replay.progress.failed["train"], replay.progress.ended["train"]) == (1, 1)
    assert replay.progress.counts().strip() == f"1/{len(replay.ran)}"
    foretold = [moment for moment in replay.moments(every=5.0) if moment[0] > 0.1]
    assert all(left is not None and left < 1000 for _, left, _ in foretold)


def test_a_curve_may_be_torn_or_empty() -> None:
    assert last_line(None) is None
    assert last_line(b"") is None
    assert last_line(b'{"step": 1}') is None  # being written
    assert last_line(b'{"step": 1}\n{"step": 2}\n{"st') == {"step": 2}
    assert last_line(b"x" * 4000 + b'"step": 1}\n{"step": 3}\n') == {"step": 3}
