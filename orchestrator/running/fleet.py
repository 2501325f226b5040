"""Worker processes on machines: who sits where, what is free, where a step finds room. Pure logic: no Ray, no files.

A worker holds its cores and its share of GPUs as long as its process lives, and memory only while it works. Idle
ones are kept because they are warm, and give way where a step of another size needs their room.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from orchestrator.nodes import Demand, Node

EPSILON = 1e-6
"""Shares of cores and GPUs are sums of floats."""


@dataclass(frozen=True, kw_only=True)
class Worker:
    """One process."""

    id: int
    node: str
    cpus: float
    gpus: float
    devices: tuple[int, ...] = ()
    """GPUs of the node that it holds, or holds a part of."""
    gang: int | None = None
    """The same for those that work together all their lives: they share one process group."""


@dataclass(frozen=True, kw_only=True)
class Seat:
    """Where a step is done: `workers` do it, of which `start` must be started first, when `stop` have gone."""

    workers: tuple[int, ...]
    start: tuple[Worker, ...] = ()
    stop: tuple[int, ...] = ()


@dataclass
class _Room:
    """What is free on a machine."""

    cpus: float
    memory: float
    gpus: list[float]
    gpu_bytes: int
    """Of each GPU."""

    @classmethod
    def of(cls, node: Node) -> "_Room":
        return cls(cpus=node.cpus, memory=node.memory, gpus=[1.0] * node.gpus, gpu_bytes=node.gpu_bytes)

    def copy(self) -> "_Room":
        return replace(self, gpus=list(self.gpus))

    def take(self, demand: Demand) -> tuple[int, ...] | None:
        """GPUs for one more worker of the demand; None, and nothing taken, where there is no room."""
        devices = self._devices(demand.gpus)
        if (
            devices is None
            or (devices and self.gpu_bytes < demand.gpu_bytes)
            or self.cpus < demand.cpus - EPSILON
            or self.memory < demand.memory
        ):
            return None
        self.memory -= demand.memory
        self.hold(demand.cpus, demand.gpus, devices, -1)
        return devices

    def count(self, demand: Demand) -> int:
        """How many workers of the demand find room, up to as many as it wants."""
        if demand.gpus and self.gpu_bytes < demand.gpu_bytes:
            return 0
        counts = [float(demand.workers)]
        if demand.cpus:
            counts.append((self.cpus + EPSILON) // demand.cpus)
        if demand.memory:
            counts.append(self.memory // demand.memory)
        if demand.gpus >= 1:
            counts.append(sum(free >= 1 - EPSILON for free in self.gpus) // round(demand.gpus))
        elif demand.gpus:
            counts.append(sum((free + EPSILON) // demand.gpus for free in self.gpus))
        return max(0, int(min(counts)))

    def hold(self, cpus: float, gpus: float, devices: Sequence[int], sign: int) -> None:
        """Take (-1) or give back (+1) what a process holds."""
        self.cpus += sign * cpus
        for device in devices:
            self.gpus[device] += sign * gpus / len(devices)

    def _devices(self, gpus: float) -> tuple[int, ...] | None:
        """The fullest GPU that still has a share so large; whole ones where whole ones are wanted."""
        if gpus <= 0:
            return ()
        if gpus < 1:
            fitting = [device for device, free in enumerate(self.gpus) if free >= gpus - EPSILON]
            return (min(fitting, key=lambda device: self.gpus[device]),) if fitting else None
        whole = [device for device, free in enumerate(self.gpus) if free >= 1 - EPSILON]
        return tuple(whole[: round(gpus)]) if len(whole) >= round(gpus) else None


@dataclass
class Fleet:
    """The machines that are there now and the processes on them."""

    limit: int | None = None
    """Workers that may work at once; None: as many as find room."""
    side_by_side: bool = False
    """Whether workers of one step must sit on one machine, because they meet in its files."""

    nodes: dict[str, Node] = field(default_factory=dict)
    workers: dict[int, Worker] = field(default_factory=dict)
    busy: dict[int, int] = field(default_factory=dict)
    """Worker -> the bytes that its step may take."""

    def __post_init__(self) -> None:
        self._rooms: dict[str, _Room] = {}
        self._idle: dict[int, None] = {}  # in the order in which they became so
        self._numbers = 0

    @property
    def idle(self) -> Collection[int]:
        """Workers that wait, the one that has waited longest first."""
        return self._idle.keys()

    def update(self, nodes: Iterable[Node]) -> None:
        """Take in which machines there are. What worked on one that has left is told by the pool."""
        there = {node.id: node for node in nodes}
        for gone in self.nodes.keys() - there.keys():
            for worker in [one.id for one in self.workers.values() if one.node == gone]:
                self.remove(worker)
            del self._rooms[gone]
        for new in there.keys() - self.nodes.keys():
            self._rooms[new] = _Room.of(there[new])
        self.nodes = there

    # ---------------------------------------------------------------- seats

    def seat(self, demand: Demand, prefer: int | None = None, avoid: Collection[str] = ()) -> Seat | None:
        """Where the demand finds room now: idle workers of its size, else new ones, else where idle others give way."""
        if self.limit is not None and len(self.busy) + demand.workers > max(self.limit, demand.workers):
            return None
        found = self._warm(demand, prefer, avoid) or self._fresh(demand, avoid)
        if found is not None:
            self._sit(found, demand)
        return found

    def _warm(self, demand: Demand, prefer: int | None, avoid: Collection[str]) -> Seat | None:
        fits = [one for one in self._idle if self._is_like(self.workers[one], demand, avoid)]
        if demand.workers == 1:
            alone = [one for one in fits if self.workers[one].gang is None]
            if not alone:
                return None
            return Seat(workers=(prefer if prefer in alone else alone[-1],))
        gangs: dict[int, list[int]] = {}
        for one in fits:
            gang = self.workers[one].gang
            if gang is not None:
                gangs.setdefault(gang, []).append(one)
        for members in gangs.values():
            if len(members) == demand.workers and self._has_memory(members, demand):
                return Seat(workers=tuple(sorted(members)))
        return None

    def _is_like(self, worker: Worker, demand: Demand, avoid: Collection[str]) -> bool:
        same = worker.cpus == demand.cpus and worker.gpus == demand.gpus and worker.node not in avoid
        room = self._rooms[worker.node]
        return same and (not demand.gpus or room.gpu_bytes >= demand.gpu_bytes) and room.memory >= demand.memory

    def _has_memory(self, members: Iterable[int], demand: Demand) -> bool:
        nodes = [self.workers[one].node for one in members]
        return all(self._rooms[node].memory >= demand.memory * nodes.count(node) for node in set(nodes))

    def _fresh(self, demand: Demand, avoid: Collection[str]) -> Seat | None:
        """New workers: all on one machine where one has room for all, else on as few as possible."""
        options: list[tuple[tuple[float, ...], str, list[tuple[int, ...]], list[int]]] = []
        for node in self.nodes:
            if node in avoid:
                continue
            places, stopped = self._places(node, demand)
            if len(places) == demand.workers:
                return_key = (len(stopped), *self._preference(node, demand))
                options.append((return_key, node, places, stopped))
            elif places and demand.workers > 1 and not self.side_by_side:
                options.append(((1e9, -len(places)), node, places, stopped))
        options.sort(key=lambda option: option[0])
        chosen: list[tuple[str, tuple[int, ...]]] = []
        stop: list[int] = []
        for _, node, places, stopped in options:
            chosen += [(node, devices) for devices in places[: demand.workers - len(chosen)]]
            stop += stopped
            if len(chosen) == demand.workers:
                return self._start(demand, chosen, stop)
        return None

    def _preference(self, node: str, demand: Demand) -> tuple[float, ...]:
        """Smaller is better: work with GPUs goes where the fewest are free, other work where the most cores are."""
        room = self._rooms[node]
        if demand.gpus:
            return (sum(room.gpus), -room.cpus)
        return (float(bool(room.gpus)), -room.cpus)

    def _places(self, node: str, demand: Demand) -> tuple[list[tuple[int, ...]], list[int]]:
        """GPUs of each of up to `demand.workers` new workers on the node, and the idle ones that must go for them."""
        room = self._rooms[node].copy()
        best, stopped, going = room.count(demand), list[int](), list[int]()
        if best < demand.workers:
            for one in [one for one in self._idle if self.workers[one].node == node]:
                self._give_back(room, one)
                going.append(one)
                if room.count(demand) > best:
                    best, stopped = room.count(demand), list(going)
                if best == demand.workers:
                    break
        if not best:
            return [], []
        room = self._rooms[node].copy()
        for one in stopped:
            self._give_back(room, one)
        return _fill(room, demand), self._with_gangs(stopped)

    def _with_gangs(self, stopped: list[int]) -> list[int]:
        """A gang that loses one is of no use: the rest of it goes too."""
        gangs = {self.workers[one].gang for one in stopped} - {None}
        return sorted({*stopped, *(one.id for one in self.workers.values() if one.gang in gangs)})

    def _give_back(self, room: _Room, worker: int) -> None:
        one = self.workers[worker]
        room.hold(one.cpus, one.gpus, one.devices, +1)

    def _start(self, demand: Demand, chosen: Sequence[tuple[str, tuple[int, ...]]], stop: Sequence[int]) -> Seat:
        first = self._numbers
        self._numbers += len(chosen)
        started = tuple(
            Worker(
                id=first + position,
                node=node,
                cpus=demand.cpus,
                gpus=demand.gpus,
                devices=devices,
                gang=first if demand.workers > 1 else None,
            )
            for position, (node, devices) in enumerate(chosen)
        )
        return Seat(workers=tuple(one.id for one in started), start=started, stop=tuple(stop))

    def _sit(self, seat: Seat, demand: Demand) -> None:
        for one in seat.stop:
            self.remove(one)
        for worker in seat.start:
            self.workers[worker.id] = worker
            self._rooms[worker.node].hold(worker.cpus, worker.gpus, worker.devices, -1)
        for one in seat.workers:
            self._idle.pop(one, None)
            self.busy[one] = demand.memory
            self._rooms[self.workers[one].node].memory -= demand.memory

    # ---------------------------------------------------------------- what becomes of workers

    def free(self, workers: Iterable[int]) -> None:
        """Their step has ended; those that are still there are idle now."""
        for one in workers:
            if one in self.busy:
                self._rooms[self.workers[one].node].memory += self.busy.pop(one)
                self._idle[one] = None

    def remove(self, worker: int) -> None:
        """Its process has gone, or is to go."""
        if worker not in self.workers:
            return
        self.free([worker])
        del self._idle[worker]
        self._give_back(self._rooms[self.workers[worker].node], worker)
        del self.workers[worker]

    def soonest(self, demand: Demand, ends: Mapping[int, float]) -> tuple[frozenset[str], float] | None:
        """The machines on which the demand will first find room, and when, if nothing else is put there.

        Args:
            ends: when busy workers are expected to end.

        None where it would not find room on all machines together.
        """
        offers = [offer for node in self.nodes for offer in self._offers(node, demand, ends)]
        offers.sort()
        chosen: dict[str, int] = {}
        for when, node, count in offers:
            if count == demand.workers:
                return frozenset({node}), when
            chosen[node] = max(count, chosen.get(node, 0))
            if sum(chosen.values()) >= demand.workers and not self._holds_all(demand):
                return frozenset(chosen), when
        return None

    def _holds_all(self, demand: Demand) -> bool:
        """Whether some machine, if empty, has room for all workers of the demand."""
        return any(_Room.of(node).count(demand) == demand.workers for node in self.nodes.values())

    def _offers(self, node: str, demand: Demand, ends: Mapping[int, float]) -> Iterable[tuple[float, str, int]]:
        """(when, node, workers of the demand that it could then hold), whenever that becomes more."""
        room, best = self._rooms[node].copy(), 0
        here = [one for one in self.workers.values() if one.node == node]
        for one in here:
            if one.id not in self.busy:
                self._give_back(room, one.id)
        times = [(float("-inf"), None), *sorted((ends.get(one.id, 0.0), one.id) for one in here if one.id in self.busy)]
        for when, worker in times:
            if worker is not None:
                self._give_back(room, worker)
                room.memory += self.busy[worker]
            count = room.count(demand)
            if count > best:
                best = count
                yield when, node, count

    def has_room(self, demand: Demand) -> bool:
        """Whether the demand would find room if all machines were empty."""
        counts = [_Room.of(node).count(demand) for node in self.nodes.values()]
        return (max(counts, default=0) if self.side_by_side else sum(counts)) >= demand.workers


def _fill(room: _Room, demand: Demand) -> list[tuple[int, ...]]:
    """GPUs of each of up to `demand.workers` workers that find room."""
    places: list[tuple[int, ...]] = []
    while len(places) < demand.workers:
        devices = room.take(demand)
        if devices is None:
            break
        places.append(devices)
    return places
