"""Room on machines: never more than there is, nothing kept back that would fit, and warm workers where possible."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.nodes import Demand, Node
from orchestrator.running.fleet import Fleet, Seat

SIZES = [
    Demand(cpus=1),
    Demand(cpus=1, memory=30),
    Demand(cpus=1, gpus=0.25),
    Demand(cpus=1, gpus=0.5, memory=10),
    Demand(cpus=2, gpus=1),
    Demand(cpus=1, gpus=2),
    Demand(workers=2, cpus=1, gpus=1),
    Demand(workers=4, cpus=1, gpus=1),
    Demand(workers=3, cpus=1),
]


def _node(name: str, gpus: int = 4, cpus: float = 8, memory: int = 100) -> Node:
    return Node(id=name, name=name, cpus=cpus, gpus=gpus, gpu_bytes=80, memory=memory)


def _check(fleet: Fleet, running: list[tuple[Demand, Seat]]) -> None:
    """Nothing is given away twice, recounted from nothing."""
    for node in fleet.nodes.values():
        here = [worker for worker in fleet.workers.values() if worker.node == node.id]
        assert sum(worker.cpus for worker in here) <= node.cpus + 1e-6
        for device in range(node.gpus):
            shares = [min(worker.gpus, 1.0) for worker in here if device in worker.devices]
            assert sum(shares) <= 1 + 1e-6
        assert all(len(worker.devices) == max(round(worker.gpus), worker.gpus > 0) for worker in here)
        memory = sum(
            demand.memory
            for demand, seat in running
            for worker in seat.workers
            if worker in fleet.workers and fleet.workers[worker].node == node.id
        )
        assert memory <= node.memory
    seated = [worker for _, seat in running for worker in seat.workers]
    assert len(seated) == len(set(seated))


@given(st.integers(0, 10_000))
@settings(max_examples=150, deadline=None)
def test_nothing_is_given_away_twice(seed: int) -> None:
    rng = random.Random(seed)
    fleet, nodes = Fleet(), [_node("a"), _node("b", gpus=2, cpus=3), _node("c", gpus=0)]
    fleet.update(nodes)
    running: list[tuple[Demand, Seat]] = []
    for _ in range(60):
        if rng.random() < 0.6:
            demand = rng.choice(SIZES)
            if seat := fleet.seat(demand):
                assert len(seat.workers) == demand.workers
                running.append((demand, seat))
        elif running:
            _, seat = running.pop(rng.randrange(len(running)))
            fleet.free(seat.workers)
            if rng.random() < 0.2:
                for worker in seat.workers:
                    fleet.remove(worker)
        if rng.random() < 0.05:
            nodes = [node for node in nodes if rng.random() < 0.8] or [_node("a")]
            fleet.update(nodes)
            running = [(demand, seat) for demand, seat in running if all(w in fleet.workers for w in seat.workers)]
        _check(fleet, running)
    for _, seat in running:
        fleet.free(seat.workers)
    for demand in SIZES:
        if fleet.has_room(demand):  # whatever idles gives way
            seat = fleet.seat(demand)
            assert seat is not None
            fleet.free(seat.workers)
            for worker in list(fleet.workers):
                fleet.remove(worker)
    assert not fleet.workers or not any(fleet.has_room(demand) for demand in SIZES)


@given(st.integers(0, 10_000))
@settings(max_examples=100, deadline=None)
def test_who_is_refused_does_not_fit(seed: int) -> None:
    """Against trying every way to give GPUs to the workers of one machine."""
    rng = random.Random(seed)
    fleet = Fleet()
    fleet.update([_node("a", gpus=2, cpus=100, memory=10**6)])
    free = [1.0, 1.0]
    for _ in range(12):
        share = rng.choice([0.25, 0.5, 1.0])
        seat = fleet.seat(Demand(gpus=share))
        assert (seat is not None) == any(one >= share - 1e-9 for one in free)
        if seat is not None:
            (device,) = fleet.workers[seat.workers[0]].devices
            free[device] -= share
            assert free[device] >= -1e-9


def test_a_warm_worker_is_taken_again_and_the_one_that_is_preferred() -> None:
    fleet = Fleet()
    fleet.update([_node("a")])
    first, second = fleet.seat(SIZES[0]), fleet.seat(SIZES[0])
    assert first is not None
    assert second is not None
    fleet.free(first.workers)
    fleet.free(second.workers)
    again = fleet.seat(SIZES[0], prefer=first.workers[0])
    assert again == Seat(workers=first.workers)


def test_idle_workers_of_another_size_give_way_only_where_room_is_short() -> None:
    fleet = Fleet()
    fleet.update([_node("a", gpus=2)])
    halves = [fleet.seat(Demand(gpus=0.5)) for _ in range(2)]
    for seat in halves:
        assert seat is not None
        fleet.free(seat.workers)
    whole = fleet.seat(Demand(gpus=1))
    assert whole is not None
    assert not whole.stop
    other = fleet.seat(Demand(gpus=1))
    assert other is not None
    assert sorted(other.stop) == [0, 1]
    assert fleet.seat(Demand(gpus=0.25)) is None


def test_a_gang_sits_on_one_machine_where_one_has_room() -> None:
    fleet = Fleet()
    fleet.update([_node("a", gpus=2), _node("b", gpus=4)])
    seat = fleet.seat(Demand(workers=4, gpus=1))
    assert seat is not None
    assert {fleet.workers[worker].node for worker in seat.workers} == {"b"}
    assert fleet.seat(Demand(workers=4, gpus=1)) is None
    fleet.update([_node("a", gpus=2), _node("b", gpus=4), _node("c", gpus=2)])
    spread = fleet.seat(Demand(workers=4, gpus=1))
    assert spread is not None
    assert {fleet.workers[worker].node for worker in spread.workers} == {"a", "c"}


def test_workers_that_meet_in_a_machines_files_are_not_spread() -> None:
    fleet = Fleet(side_by_side=True)
    fleet.update([_node("a", gpus=2), _node("b", gpus=2)])
    assert fleet.seat(Demand(workers=4, gpus=1)) is None
    assert not fleet.has_room(Demand(workers=4, gpus=1))
    assert fleet.seat(Demand(workers=2, gpus=1)) is not None


def test_work_without_gpus_keeps_off_machines_that_have_some() -> None:
    fleet = Fleet()
    fleet.update([_node("a", gpus=4, cpus=64), _node("b", gpus=0, cpus=2)])
    seats = [fleet.seat(Demand()) for _ in range(3)]
    assert [fleet.workers[seat.workers[0]].node for seat in seats if seat] == ["b", "b", "a"]


def test_no_more_work_at_once_than_allowed() -> None:
    fleet = Fleet(limit=2)
    fleet.update([_node("a")])
    seats = [fleet.seat(Demand()) for _ in range(3)]
    assert [seat is None for seat in seats] == [False, False, True]
