"""The scheduler over a pool that only pretends: order, batches, retries, what a failure takes with it."""

import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import failures
from orchestrator.jobs import Outcome
from orchestrator.scheduler import Scheduler, drive
from orchestrator.steps import Step
from workers.settings import Budget

Fate = Callable[[Step, int], str]


class FakePool:
    """Workers that end their steps in a random order; `fate` gives the kind of failure, or nothing."""

    def __init__(self, count: int, gang: int = 1, fate: Fate = lambda step, attempt: "", seed: int = 0) -> None:
        self._gangs = {n: tuple(range(n - n % gang, n - n % gang + gang)) for n in range(count)}
        self._fate, self._rng = fate, random.Random(seed)
        self._new = list(range(count))
        self.flying: dict[str, tuple[int, ...]] = {}
        self.log: list[tuple[Step, tuple[int, ...]]] = []
        self.attempts: Counter[str] = Counter()

    def gangs(self) -> Mapping[int, tuple[int, ...]]:
        return self._gangs

    def submit(self, workers: tuple[int, ...], step: Step) -> None:
        busy = {worker for flying in self.flying.values() for worker in flying}
        assert not busy & set(workers)
        assert len(workers) == step.workers
        self.flying[step.key] = workers
        self.log.append((step, workers))
        self.attempts[step.key] += 1

    def wait(self, timeout: float) -> list[tuple[tuple[int, ...], Outcome | None]]:
        if self._new:
            return [((self._new.pop(),), None)]
        key = self._rng.choice(sorted(self.flying))
        step = next(step for step, _ in self.log if step.key == key)
        kind = self._fate(step, self.attempts[key])
        outcome = Outcome(key=key, status="failed" if kind else "done", kind=kind, error="broken" if kind else "")
        return [(self.flying.pop(key), outcome)]


def _graph(trainings: int, budgets: int, together: int = 1) -> dict[str, Step]:
    nothing = Budget(beams=1)
    steps = [Step(kind="tokenizer", key="tokenizer", settings=nothing)]
    for n in range(trainings):
        train = f"train{n}"
        needs = (("tokenizer", "tokenizer"),)
        steps.append(Step(kind="train", key=train, settings=nothing, needs=needs, workers=together))
        for budget in range(budgets):
            steps.append(Step(kind="search", key=f"search{n}-{budget}", settings=nothing, needs=(("train", train),)))
    return {step.key: step for step in steps}


def _drive(steps: dict[str, Step], pool: FakePool, max_attempts: int = 3, **more: object) -> dict[str, Outcome]:
    ended: dict[str, Outcome] = {}

    def end(step: Step, outcome: Outcome) -> None:
        assert step.key not in ended
        ended[step.key] = outcome

    priority = {key: float(position) for position, key in enumerate(steps)}
    scheduler = Scheduler(steps=steps, finished=more.get("finished", ()), priority=priority, max_attempts=max_attempts)
    drive(scheduler, pool, started=lambda *_: None, ended=end, retried=lambda *_: None, tick=lambda: None)
    return ended


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 4), st.integers(0, 99))
def test_everything_runs_once_and_after_its_needs(count: int, trainings: int, budgets: int, seed: int) -> None:
    steps = _graph(trainings, budgets)
    pool = FakePool(count, seed=seed)
    ended = _drive(steps, pool)
    assert ended.keys() == steps.keys()
    assert set(pool.attempts.values()) == {1}
    order = list(ended)
    for step in steps.values():
        assert all(order.index(needed) < order.index(step.key) for _, needed in step.needs)


@given(st.integers(0, 99))
def test_failures_take_their_dependents_and_nothing_else(seed: int) -> None:
    steps = _graph(4, 2)
    pool = FakePool(2, seed=seed, fate=lambda step, attempt: failures.DIVERGED if step.key == "train1" else "")
    ended = _drive(steps, pool)
    failed = {key: outcome.kind for key, outcome in ended.items() if outcome.status == "failed"}
    assert failed == {"train1": "diverged", "search1-0": "needed_step", "search1-1": "needed_step"}
    assert "train1 failed: broken" in ended["search1-0"].error
    assert pool.attempts["train1"] == 1
    assert pool.attempts["search1-0"] == 0


@pytest.mark.parametrize(
    ("kind", "attempts"),
    [(failures.ERROR, 3), (failures.WORKER_DIED, 3), (failures.OUT_OF_MEMORY, 3), (failures.BAD_INPUT, 1)],
)
def test_tries_again_as_often_as_the_kind_allows(kind: str, attempts: int) -> None:
    pool = FakePool(2, fate=lambda step, attempt: kind if step.key == "train0" else "")
    ended = _drive(_graph(2, 1), pool)
    assert pool.attempts["train0"] == attempts
    assert ended["train0"].status == "failed"
    assert ended["search1-0"].status == "done"


def test_a_step_that_recovers_is_done() -> None:
    pool = FakePool(1, fate=lambda step, attempt: failures.WORKER_DIED if attempt < 3 else "")
    assert {outcome.status for outcome in _drive(_graph(2, 2), pool).values()} == {"done"}
    assert set(pool.attempts.values()) == {3}


def test_evaluations_of_a_training_go_to_one_worker_back_to_back() -> None:
    pool = FakePool(2, seed=5)
    _drive(_graph(6, 4), pool)
    workers: dict[str, set[int]] = {}
    for step, (worker,) in pool.log:
        if step.kind == "search":
            workers.setdefault(dict(step.needs)["train"], set()).add(worker)
    alone = [train for train, seen in workers.items() if len(seen) == 1]
    assert len(alone) >= 4  # at the end, a worker with nothing else to do helps
    for worker in (0, 1):
        own = [dict(step.needs).get("train") for step, seen in pool.log if seen == (worker,) and step.kind == "search"]
        changes = sum(one != other for one, other in itertools.pairwise(own))
        assert changes <= len(set(own))


def test_longest_trainings_first() -> None:
    pool = FakePool(1)
    _drive(_graph(4, 0), pool)
    assert [step.key for step, _ in pool.log] == ["tokenizer", "train3", "train2", "train1", "train0"]


@given(st.integers(0, 99), st.sampled_from([2, 4]))
def test_gangs_train_together(seed: int, count: int) -> None:
    pool = FakePool(count, gang=2, seed=seed)
    _drive(_graph(5, 3, together=2), pool)
    assert {len(workers) for step, workers in pool.log if step.kind == "train"} == {2}
    assert all(workers in {(0, 1), (2, 3)} for step, workers in pool.log if step.kind == "train")


def test_a_gang_that_is_too_small_is_an_error_not_a_wait() -> None:
    with pytest.raises(RuntimeError, match="no worker can do"):
        _drive(_graph(1, 0, together=2), FakePool(1))


def test_finished_steps_do_not_run() -> None:
    pool = FakePool(1)
    ended = _drive(_graph(1, 2), pool, finished=("tokenizer", "train0"))
    assert ended.keys() == {"search0-0", "search0-1"}


def test_ten_thousand_steps_cost_little() -> None:
    pool = FakePool(64)
    steps = _graph(2000, 4)
    scheduler = Scheduler(steps=steps, finished=(), priority=dict.fromkeys(steps, 1.0))
    began = time.perf_counter()
    idle, done = set(range(64)), 0
    while not scheduler.is_over:
        for _, step in scheduler.assign(idle, pool.gangs()):
            done += len(scheduler.settle(Outcome(key=step.key, status="done")))
        idle = set(range(64))
    assert done == 10_001
    assert (time.perf_counter() - began) / done < 0.002
