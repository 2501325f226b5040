"""The scheduler and the loop around it, over a pool that only pretends: order, warm workers, retries, sharing."""

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pretended import FakeLedger, FakePool, Fate, Notes, demands_of, graph, node, ticking

from orchestrator.nodes import Demand, Node
from orchestrator.running import failures
from orchestrator.running.driving import Drive, Event
from orchestrator.running.fleet import Fleet
from orchestrator.running.jobs import Outcome
from orchestrator.running.scheduler import Scheduler
from orchestrator.steps import Step


def _drive(
    steps: dict[str, Step],
    machines: list[Node],
    *,
    fate: Fate = lambda step, attempt: "",
    seed: int = 0,
    demands: dict[str, Demand] | None = None,
    finished: tuple[str, ...] = (),
    may_halve: Callable[[Step, Demand, int], bool] = lambda step, demand, halvings: False,
) -> tuple[FakePool, Notes]:
    pool, notes = FakePool(machines, fate=fate, seed=seed), Notes()
    priority = {key: float(position) for position, key in enumerate(steps)}
    scheduler = Scheduler(steps=steps, finished=finished, priority=priority, demands=demands or {}, may_halve=may_halve)
    drive = Drive(
        scheduler=scheduler, fleet=Fleet(), pool=pool, ledger=FakeLedger(), watch=notes, clock=ticking(), interval=0
    )
    assert drive.run()
    return pool, notes


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 4), st.integers(0, 99))
@settings(deadline=None)
def test_everything_runs_once_and_after_its_needs(cpus: int, trainings: int, budgets: int, seed: int) -> None:
    steps = graph(trainings, budgets)
    pool, notes = _drive(steps, [node(cpus=cpus)], seed=seed)
    assert notes.ends.keys() == steps.keys()
    assert set(pool.attempts.values()) == {1}
    order = list(notes.ends)
    for step in steps.values():
        assert all(order.index(needed) < order.index(step.key) for _, needed in step.needs)


@given(st.integers(0, 99))
@settings(deadline=None)
def test_failures_take_their_dependents_and_nothing_else(seed: int) -> None:
    pool, notes = _drive(
        graph(4, 2), [node()], seed=seed, fate=lambda step, _: failures.DIVERGED if step.key == "train1" else ""
    )
    failed = {key: outcome.kind for key, outcome in notes.ends.items() if outcome.status == "failed"}
    assert failed == {"train1": "diverged", "search1-0": "needed_step", "search1-1": "needed_step"}
    assert "train1 failed: broken" in notes.ends["search1-0"].error
    assert pool.attempts["train1"] == 1
    assert pool.attempts["search1-0"] == 0


@pytest.mark.parametrize(
    ("kind", "attempts"),
    [
        (failures.ERROR, 3),
        (failures.WORKER_DIED, 3),
        (failures.TIMEOUT, 3),
        (failures.OUT_OF_MEMORY, 1),
        (failures.STORAGE, failures.STORAGE_ATTEMPTS),
        (failures.BAD_INPUT, 1),
    ],
)
def test_tries_again_as_often_as_the_kind_allows(kind: str, attempts: int) -> None:
    pool, notes = _drive(graph(2, 1), [node()], fate=lambda step, _: kind if step.key == "train0" else "")
    assert pool.attempts["train0"] == attempts
    assert notes.ends["train0"].status == "failed"
    assert notes.ends["search1-0"].status == "done"
    assert notes.retries.count("train0") == attempts - 1


def test_every_kind_of_failure_has_a_budget_of_its_own() -> None:
    kinds = [failures.NODE_LOST] * 20 + [failures.ERROR, failures.WORKER_DIED] * 2 + [failures.TIMEOUT] * 2
    pool, notes = _drive(
        graph(1, 1),
        [node()],
        fate=lambda step, attempt: kinds[attempt - 1] if step.kind == "train" and attempt <= len(kinds) else "",
    )
    assert notes.ends["train0"].status == "done"
    assert pool.attempts["train0"] == len(kinds) + 1


def test_memory_that_is_short_halves_the_batch_as_long_as_it_can_be_halved() -> None:
    pool, notes = _drive(
        graph(1, 0),
        [node()],
        fate=lambda step, attempt: failures.OUT_OF_MEMORY if step.kind == "train" and attempt < 4 else "",
        may_halve=lambda step, demand, halvings: halvings < 3,
    )
    assert [task.halvings for task in pool.tasks if task.step.kind == "train"] == [0, 1, 2, 3]
    assert notes.ends["train0"].status == "done"
    pool, notes = _drive(
        graph(1, 0),
        [node()],
        fate=lambda step, _: failures.OUT_OF_MEMORY if step.kind == "train" else "",
        may_halve=lambda step, demand, halvings: halvings < 2,
    )
    assert [task.halvings for task in pool.tasks if task.step.kind == "train"] == [0, 1, 2]
    assert notes.ends["train0"].kind == failures.OUT_OF_MEMORY


def test_evaluations_of_a_training_go_to_one_worker_back_to_back() -> None:
    pool, _ = _drive(graph(6, 4), [node()], seed=5)
    workers: dict[str, set[int]] = {}
    for step, (worker,) in pool.log:
        if step.kind == "search":
            workers.setdefault(dict(step.needs)["train"], set()).add(worker)
    alone = [train for train, seen in workers.items() if len(seen) == 1]
    assert len(alone) >= 4  # at the end, a worker with nothing else to do helps
    assert {worker for seen in workers.values() for worker in seen} == {0, 1}  # warm ones do it all
    for worker in (0, 1):
        own = [dict(step.needs).get("train") for step, seen in pool.log if seen == (worker,) and step.kind == "search"]
        changes = sum(one != other for one, other in itertools.pairwise(own))
        assert changes <= len(set(own))


def test_longest_trainings_first() -> None:
    pool, _ = _drive(graph(4, 0), [node(cpus=1)])
    assert [step.key for step, _ in pool.log] == ["tokenizer", "train3", "train2", "train1", "train0"]


@given(st.integers(0, 99), st.sampled_from([2, 3, 4]))
@settings(max_examples=40, deadline=None)
def test_gangs_train_together_and_stay_together(seed: int, cpus: int) -> None:
    steps = graph(5, 3)
    pool, notes = _drive(steps, [node(cpus=cpus)], demands=demands_of(steps, train=Demand(workers=2)), seed=seed)
    assert notes.ends.keys() == steps.keys()
    gangs = [set(workers) for step, workers in pool.log if step.kind == "train"]
    alone = [set(workers) for step, workers in pool.log if step.kind != "train"]
    assert all(len(gang) == 2 for gang in gangs)
    assert all(one == other or not one & other for one in gangs for other in gangs)
    assert all(not one & other for one in gangs for other in alone)


def test_what_finds_no_room_is_told_and_waits_for_a_machine() -> None:
    steps = graph(1, 0)
    machines = [node(cpus=1)]
    pool, notes = FakePool(machines), Notes()
    scheduler = Scheduler(
        steps=steps, finished=(), priority={}, demands=demands_of(steps, train=Demand(gpus=2, memory=2**31))
    )
    drive = Drive(
        scheduler=scheduler, fleet=Fleet(), pool=pool, ledger=FakeLedger(), watch=notes, clock=ticking(), interval=0
    )
    notes.line = lambda text: (notes.lines.append(text), machines.append(node("big", gpus=2, memory=2**40)))  # type: ignore[method-assign]
    assert drive.run()
    assert notes.lines == [
        "waiting for machines: train needs 1 x (1 CPUs, 2 GPUs, 2.0 GiB); there are here: 1 CPUs, 0 GPUs, 0.0 GiB"
    ]


def test_finished_steps_do_not_run() -> None:
    _, notes = _drive(graph(1, 2), [node()], finished=("tokenizer", "train0"))
    assert notes.ends.keys() == {"search0-0", "search0-1"}


@given(st.integers(0, 999), st.integers(1, 4), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_two_drivers_share_the_work_and_do_nothing_twice(seed: int, trainings: int, budgets: int) -> None:
    steps, held, failed = graph(trainings, budgets), {}, {}
    done: set[str] = set()
    drives, watches = [], []
    for number, name in enumerate("ab"):
        pool = FakePool(
            [node()],
            seed=seed + number,
            shared=done,
            fate=lambda step, _: failures.DIVERGED if step.key == "train1" else "",
        )
        ledger = FakeLedger(held=held, done=done, failures=failed, name=name)
        scheduler = Scheduler(steps=steps, finished=(), priority={})
        watches.append(Notes())
        drives.append(
            Drive(
                scheduler=scheduler,
                fleet=Fleet(),
                pool=pool,
                ledger=ledger,
                watch=watches[-1],
                clock=ticking(),
                interval=0,
            )
        )
    import threading

    turn = threading.Lock()

    def guarded(drive: Drive) -> None:
        admit, take_in = drive.ledger.admit, drive._take_in

        def locked_admit(step: Step) -> Outcome | str | None:
            with turn:
                return admit(step)

        def locked_take_in(event: object) -> None:
            with turn:
                take_in(event)  # type: ignore[arg-type]

        drive.ledger.admit = locked_admit  # type: ignore[method-assign]
        drive._take_in = locked_take_in  # type: ignore[method-assign]
        assert drive.run()

    threads = [threading.Thread(target=guarded, args=(drive,)) for drive in drives]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    failing = {"train1", *(f"search1-{n}" for n in range(budgets))} & steps.keys()
    assert done == steps.keys() - failing
    assert not held
    for watch in watches:
        assert watch.ends.keys() == steps.keys()
        assert {key for key, outcome in watch.ends.items() if outcome.status == "failed"} == failing


def test_asked_to_stop_it_lets_go_of_everything_and_counts_no_failure() -> None:
    steps = graph(3, 2)
    pool, notes, ledger = FakePool([node()]), Notes(), FakeLedger()
    scheduler = Scheduler(steps=steps, finished=(), priority={})
    drive = Drive(
        scheduler=scheduler,
        fleet=Fleet(),
        pool=pool,
        ledger=ledger,
        watch=notes,
        asked_to_stop=lambda: len(pool.log) >= 3,
        clock=ticking(),
        interval=0,
    )
    assert not drive.run()
    assert pool.stopped
    assert not ledger.held
    assert not notes.retries
    assert not scheduler.running


def test_machines_may_leave_and_join() -> None:
    steps = graph(6, 2)
    machines = [node("a"), node("b")]
    pool, notes = FakePool(machines), Notes()

    def fate(step: Step, attempt: int) -> str:
        if len(pool.log) == 6 and len(machines) == 2:
            del machines[0]
        elif len(pool.log) == 12 and len(machines) == 1:
            machines.append(node("c"))
        there = {machine.id for machine in machines}
        worker = next(task for task in reversed(pool.tasks) if task.step.key == step.key).seat.workers[0]
        gone = worker in pool.alive and pool.alive[worker].node not in there
        return failures.NODE_LOST if gone else ""

    pool.fate = fate
    scheduler = Scheduler(steps=steps, finished=(), priority={})
    drive = Drive(
        scheduler=scheduler, fleet=Fleet(), pool=pool, ledger=FakeLedger(), watch=notes, clock=ticking(2), interval=0
    )
    assert drive.run()
    assert {outcome.status for outcome in notes.ends.values()} == {"done"}
    assert any(worker.node == "c" for worker in pool.alive.values())


def test_a_large_training_is_not_starved_by_small_ones() -> None:
    """Small steps arrive for ever, a gang of four GPUs waits: machines are kept for it."""
    steps = graph(40, 0)
    demands = demands_of(steps, train=Demand(gpus=0.5)) | {"train39": Demand(workers=4, gpus=1)}
    pool, notes = FakePool([node(cpus=8, gpus=4)], seed=3), Notes()
    priority = dict.fromkeys(steps, 1.0) | {"train39": 0.9, **{f"train{n}": 2.0 for n in range(8)}}
    priority |= {f"train{n}": 0.1 for n in range(8, 39)}
    scheduler = Scheduler(
        steps=steps, finished=(), priority=priority, demands=demands, seconds=dict.fromkeys(steps, 10.0)
    )
    drive = Drive(
        scheduler=scheduler, fleet=Fleet(), pool=pool, ledger=FakeLedger(), watch=notes, clock=ticking(), interval=0
    )
    assert drive.run()
    order = [step.key for step, _ in pool.log]
    assert order.index("train39") == 9


def test_workers_that_nothing_waits_for_are_let_go_after_a_while() -> None:
    steps = graph(2, 0)
    pool, notes = FakePool([node()]), Notes()
    scheduler = Scheduler(steps=steps, finished=(), priority={})
    alive: list[int] = []
    notes.tick = lambda fleet, scheduler: alive.append(len(fleet.workers))  # type: ignore[method-assign]
    drive = Drive(
        scheduler=scheduler, fleet=Fleet(), pool=pool, ledger=FakeLedger(), watch=notes, clock=ticking(20), interval=0
    )
    take, waited = pool.wait, iter(range(20))

    def wait(timeout: float) -> list[Event]:
        last = len(pool.flying) == 1 and "tokenizer" not in pool.flying
        return [] if last and next(waited, None) is not None else take(timeout)

    pool.wait = wait  # type: ignore[method-assign]
    assert drive.run()
    assert max(alive) == 2
    assert alive[-2] == 1  # the other one's memory is given back while the last step runs


def test_a_cluster_is_asked_to_hold_what_runs_and_what_could_run() -> None:
    steps = graph(5, 0)
    pool, notes, asked = FakePool([node(cpus=1)]), Notes(), []
    demands = demands_of(steps, train=Demand(cpus=1, gpus=0, memory=1))
    scheduler = Scheduler(steps=steps, finished=(), priority={}, demands=demands)
    notes.tick = lambda fleet, scheduler: asked.append(len(pool.asked))  # type: ignore[method-assign]
    drive = Drive(
        scheduler=scheduler, fleet=Fleet(), pool=pool, ledger=FakeLedger(), watch=notes, clock=ticking(5), interval=0
    )
    assert drive.run()
    assert max(asked) == 5
