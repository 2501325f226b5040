"""Leases: of living drivers one at most holds a step, in whatever order operations come; the dead lose theirs."""

import itertools
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from results import leases
from results.errors import LostLease
from results.leases import BEAT_SECONDS, DEAD_SECONDS, Driver, Leases, Observer, living, this_driver
from results.local import LocalStore


class Folder:
    """Names and contents, as far as leases use a store; `turn` is called before each operation."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.turn: Callable[[], None] = lambda: None

    def listing(self, folder: str) -> list[str]:
        self.turn()
        below = [name.removeprefix(folder + "/") for name in self.files if name.startswith(folder + "/")]
        return sorted({name.partition("/")[0] for name in below})

    def create(self, name: str) -> None:
        self.write_bytes(name, b"")

    def write_bytes(self, name: str, content: bytes) -> None:
        self.turn()
        self.files[name] = content

    def read_bytes(self, name: str) -> bytes:
        self.turn()
        if name not in self.files:
            raise FileNotFoundError(name)
        return self.files[name]

    def delete(self, name: str) -> None:
        self.turn()
        self.files.pop(name, None)


class Machine:
    """A clock that starts somewhere and runs at its own pace."""

    def __init__(self, offset: float = 0.0, pace: float = 1.0) -> None:
        self.offset, self.pace, self.passed = offset, pace, 0.0

    def __call__(self) -> float:
        return self.offset + self.pace * self.passed


def _driver(name: str) -> Driver:
    """On a machine of which nothing can be looked up from here."""
    return Driver(id=name, host=name, pid=1, began="", place="elsewhere", start="1")


def _join(folder: Folder, name: str, clock: Machine) -> Leases:
    made = Leases(folder, _driver(name), clock=clock)
    made.beat()
    return made


class Turns:
    """Runs functions in threads, one operation on the folder at a time, in the order given; then each to its end."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._mine = threading.local()

    def run(self, order: list[int], work: list[Callable[[], object]]) -> list[object]:
        results: list[object] = [None] * len(work)
        may = [threading.Semaphore(0) for _ in work]
        waits = [threading.Semaphore(0) for _ in work]
        ended = [False] * len(work)

        def turn() -> None:
            number = getattr(self._mine, "number", None)
            if number is not None:
                waits[number].release()
                may[number].acquire()

        def body(number: int) -> None:
            self._mine.number = number
            try:
                results[number] = work[number]()
            finally:
                ended[number] = True
                waits[number].release()

        self.folder.turn = turn
        threads = [threading.Thread(target=body, args=(number,), daemon=True) for number in range(len(work))]
        for number, thread in enumerate(threads):
            thread.start()
            waits[number].acquire()
        for number in itertools.chain(order, itertools.cycle(range(len(work)))):
            if all(ended):
                break
            if not ended[number]:
                may[number].release()
                waits[number].acquire()
        self.folder.turn = lambda: None
        return results


def _orders(operations: int, drivers: int) -> Iterator[tuple[int, ...]]:
    """Every order of so many operations of each of the drivers."""
    everything = range(operations * drivers)
    if drivers == 1:
        yield (0,) * operations
        return
    for mine in itertools.combinations(everything, operations):
        for others in _orders(operations, drivers - 1):
            rest = iter(others)
            yield tuple(drivers - 1 if place in mine else next(rest) for place in everything)


def test_of_two_drivers_one_at_most_enters_in_every_order() -> None:
    """A take that meets nobody is three operations, and one that does is up to ten."""
    entered = set()
    for order in _orders(5, 2):
        folder = Folder()
        drivers = [_join(folder, name, Machine(offset)) for name, offset in (("a", 0.0), ("b", 1e6))]
        got = Turns(folder).run([*order], [lambda one=one: one.take("train", "k") for one in drivers])
        assert got != [True, True], order
        assert {name for name in folder.files if name.startswith("leases/train/k.")} == {
            f"leases/train/k.{name}.1" for name, one in zip("ab", got, strict=True) if one
        }
        entered.add(tuple(got))
    assert entered == {(True, False), (False, True), (False, False)}


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=6, max_size=40), st.booleans())
def test_of_three_drivers_one_at_most_enters_and_a_dead_ones_claim_is_taken(order: list[int], corpse: bool) -> None:
    folder, clocks = Folder(), [Machine(0.0), Machine(-5e5), Machine(1e6)]
    if corpse:
        assert _join(folder, "z", Machine(9.0)).take("train", "k")
    drivers = [_join(folder, name, clock) for name, clock in zip("abc", clocks, strict=True)]
    if corpse:
        _pass(drivers, clocks, DEAD_SECONDS + 3 * BEAT_SECONDS, tidy=False)
    got = Turns(folder).run(order, [lambda one=one: one.take("train", "k") for one in drivers])
    assert sum(map(bool, got)) <= 1
    if not any(got):  # all have withdrawn, and one that comes alone is let in
        assert drivers[0].take("train", "k")
    assert len([name for name in folder.files if name.startswith("leases/train/")]) == 1


def _pass(drivers: list[Leases], clocks: list[Machine], seconds: float, tidy: bool = True) -> None:
    """Time goes by, in which the drivers live: they beat and look around."""
    for _ in range(round(seconds / BEAT_SECONDS)):
        for clock in clocks:
            clock.passed += BEAT_SECONDS
        for driver in drivers:
            driver.beat()
            if tidy:
                driver.tidy()
            else:
                driver.holders("train")


@pytest.mark.parametrize("pace", [0.5, 1.0, 1.9])
def test_the_living_keep_their_lease_and_the_dead_lose_it(pace: float) -> None:
    folder, clocks = Folder(), [Machine(0.0), Machine(1e6, pace)]
    holder, other = (_join(folder, name, clock) for name, clock in zip("ab", clocks, strict=True))
    assert holder.take("train", "k")
    _pass([holder, other], clocks, 1000)
    assert not other.take("train", "k")
    assert other.holders("train") == {"k": "a"}
    _pass([other], clocks, (DEAD_SECONDS - 2 * BEAT_SECONDS) / pace)
    assert not other.take("train", "k")
    _pass([other], clocks, 4 * BEAT_SECONDS / pace)
    assert other.take("train", "k")
    assert other.holders("train") == {"k": "b"}
    with pytest.raises(LostLease):  # it was only suspended, and wakes
        holder.beat()
    with pytest.raises(LostLease):
        holder.take("train", "other")
    holder.leave()
    assert other.holders("train") == {"k": "b"}


def test_one_that_wakes_learns_of_its_death_before_it_takes_anything() -> None:
    folder, clocks = Folder(), [Machine(), Machine()]
    sleeper, other = (_join(folder, name, clock) for name, clock in zip("ab", clocks, strict=True))
    _pass([other], clocks, DEAD_SECONDS + 3 * BEAT_SECONDS)
    with pytest.raises(LostLease):
        sleeper.take("train", "k")
    assert other.take("train", "k")
    assert "drivers/a.dead" in folder.files
    _pass([other], clocks, leases.BURIED_SECONDS + 60)
    assert "drivers/a.dead" not in folder.files


def test_after_an_outage_nobody_is_dead_who_was_away_for_as_long_as_the_observer() -> None:
    folder, clocks = Folder(), [Machine(), Machine()]
    holder, other = (_join(folder, name, clock) for name, clock in zip("ab", clocks, strict=True))
    assert holder.take("train", "k")
    _pass([holder, other], clocks, 20)
    for clock in clocks:
        clock.passed += 10 * DEAD_SECONDS
    other.tidy()
    assert not other.take("train", "k")
    holder.beat()
    assert not other.take("train", "k")


def test_a_claim_that_could_not_be_deleted_goes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    folder, clock = Folder(), Machine()
    one, other = _join(folder, "a", clock), _join(folder, "b", clock)
    assert one.take("train", "k")

    def away(name: str) -> None:
        raise OSError("away")

    with monkeypatch.context() as patch:
        patch.setattr(folder, "delete", away)
        one.release("train", "k")
    assert not other.take("train", "k")
    one.tidy()
    assert other.take("train", "k")
    assert one.take("search", "k")
    one.tidy()
    assert one.holders("search") == {"k": "a"}


HOLDER = """
import sys, time
from pathlib import Path
from results.leases import Leases
from results.local import LocalStore

with Leases(LocalStore(root=Path(sys.argv[1]))) as mine:
    print(mine.take("train", "k"), flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_was_killed_is_dead_at_once(tmp_path: Path, end: signal.Signals) -> None:
    store = LocalStore(root=tmp_path)
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    root = Path(__file__).parent.parent
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as holder, Leases(store) as mine:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        assert not mine.take("train", "k")
        assert mine.take("train", "other")
        assert {driver.pid for driver in living(store)} == {holder.pid, mine.driver.pid}
        holder.send_signal(end)
        holder.wait()
        assert [driver.id for driver in living(store)] == [mine.driver.id]
        assert mine.take("train", "k")
        assert Observer(store).holders("train") == {"k": mine.driver.id, "other": mine.driver.id}
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


RACER = """
import sys
from pathlib import Path
from results.leases import Leases
from results.local import LocalStore

store = LocalStore(root=Path(sys.argv[1]))
done = 0
with Leases(store) as mine:
    sys.stdin.readline()
    while len(store.finished("train")) < 60:
        for n in range(60):
            key = f"k{n}"
            if not store.is_finished("train", key) and mine.take("train", key):
                with store.work("train", key, mine.driver.id) as out:
                    if out is not None:
                        with (out / "did").open("a") as file:
                            file.write(mine.driver.id + "\\n")
                        done += 1
                mine.release("train", key)
print(done)
"""


def test_two_processes_share_the_steps_and_do_none_twice(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RACER, str(tmp_path)]
    root = Path(__file__).parent.parent
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    racers = [subprocess.Popen(command, cwd=root, **pipes) for _ in range(2)]
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    done = [int(racer.communicate(timeout=120)[0]) for racer in racers]
    assert sum(done) == 60
    for n in range(60):
        assert (tmp_path / "steps" / "train" / f"k{n}" / "did").read_text().count("\n") == 1


def test_a_driver_is_known_by_more_than_its_process_number() -> None:
    mine = this_driver()
    assert not mine.is_gone
    assert replace(mine, start="1").is_gone  # the number was given to another process since
    assert not replace(mine, start="1", place="another boot").is_gone
    assert json.loads(json.dumps(mine.id)) == mine.id
    assert "." not in mine.id
    assert "/" not in mine.id
