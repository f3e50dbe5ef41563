"""Ranks for the tests of shared memory: each word of ``argv`` names something to do, in turn."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from harness.trainers.native import main
from harness.trainers.native.comm.reductions import ordered_sum
from harness.trainers.native.comm.shared_world import SharedWorld
from harness.trainers.native.comm.torch_world import TorchWorld
from harness.trainers.native.comm.turns import TURN, turn
from harness.trainers.native.comm.world import BACKWARD, FORWARD, Group, World

DTYPES = (
    torch.float32,
    torch.float64,
    torch.bfloat16,
    torch.float16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
)
#: What gloo cannot carry; there the reference is computed from the members' own inputs.
NOT_GLOO = (torch.bool,)
#: Above a slot (1 MiB) and not a multiple of it, in float32 elements.
BIG = (1 << 18) * 3 + 12345


def preload() -> None:
    main.preload()


def run(
    argv: Sequence[str],
    rank: int,
    size: int,
    folder: str,
    rendezvous: str,
    heartbeat: Callable[[int], None],
) -> None:
    store = torch._C._distributed_c10d.FileStore(rendezvous, size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=60))
    world = SharedWorld(rank, size, rendezvous)
    dist.barrier()
    assert [path.name for path in Path(rendezvous).parent.iterdir()] == ["store"]
    heartbeat(0)
    for word in argv:
        name, _, value = word.partition("=")
        globals()[name](world, TorchWorld(rank, size, torch.device("cpu")), value)
    world.close()
    dist.destroy_process_group()


def train_shared(argv: Sequence[str], rank: int, size: int, *rest: Any) -> None:
    _train("shared", SharedWorld, argv, rank, size, *rest)


def train_gloo(argv: Sequence[str], rank: int, size: int, *rest: Any) -> None:
    _train("gloo", TorchWorld, argv, rank, size, *rest)


def _train(comm: str, kind: type, *arguments: Any) -> None:
    os.environ["HARNESS_COMM"] = comm
    join = main.join

    def checked(*args: Any) -> World:
        world = join(*args)
        assert isinstance(world, kind)
        return world

    main.join = checked  # type: ignore[assignment]
    main.run(*arguments)


# -- collectives, one by one, bit for bit ---------------------------------------------------------


def tensor(dtype: torch.dtype, shape: Sequence[int], seed: str) -> Tensor:
    digest = hashlib.sha256(seed.encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    if dtype == torch.bool or not dtype.is_floating_point:
        return torch.randint(0, 2 if dtype == torch.bool else 50, tuple(shape), generator=generator).to(dtype)
    # Of many magnitudes, so that another order of additions would be another sum.
    values = torch.randn(tuple(shape), dtype=torch.float64, generator=generator)
    scale = torch.randint(-6, 7, tuple(shape), generator=generator)
    return (values * 2.0**scale).to(dtype)


def counts_of(random_: random.Random, members: int, most: int) -> list[int]:
    return [random_.choice([0, 1, random_.randrange(most)]) for _ in range(members)]


def expect(what: str, found: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    assert found.dtype == dtype, what
    assert found.is_contiguous(), what
    assert found.shape == expected.shape, f"{what}: {tuple(found.shape)}, not {tuple(expected.shape)}"
    same = torch.equal(found.view(-1).view(torch.uint8), expected.contiguous().view(-1).view(torch.uint8))
    assert same, f"{what}: other bits"


class Case:
    """One collective on one group; drawn alike on every rank."""

    def __init__(self, seed: int, size: int, *, big: bool) -> None:
        draw = random.Random(seed)
        self.seed, self.big = seed, big
        self.ranks = tuple(sorted(draw.sample(range(size), draw.randint(2, size))))
        self.name = draw.choice(
            [
                "all_reduce",
                "all_reduce_max",
                "all_gather",
                "reduce_scatter",
                "all_to_all",
                "all_gather_uneven",
                "reduce_scatter_uneven",
            ]
        )
        self.dtype = draw.choice(DTYPES)
        n = len(self.ranks)
        self.row = draw.choice([(), (1,), (7,), (3, 5), (64,)]) if not big else draw.choice([(), (5,)])
        most = BIG // max(1, torch.Size(self.row).numel()) if big else draw.choice([1, 9, 700])
        self.rows = draw.randrange(most) if not big else most
        self.matrix = [counts_of(draw, n, most) for _ in range(n)]
        if big:
            self.matrix[draw.randrange(n)][draw.randrange(n)] = most

    def __str__(self) -> str:
        return f"seed {self.seed}: {self.name} {self.dtype} {self.row} over {self.ranks}"

    def input(self, member: int) -> Tensor:
        n = len(self.ranks)
        rows = {
            "reduce_scatter": self.rows * n,
            "all_to_all": sum(self.matrix[member]),
            "all_gather_uneven": self.matrix[0][member],
            "reduce_scatter_uneven": sum(self.matrix[0]),
        }.get(self.name, self.rows)
        return tensor(self.dtype, (rows, *self.row), f"{self.seed} {member}")

    def call(self, group: Group, x: Tensor) -> Tensor:
        me = group.rank
        if self.name == "all_reduce_max":
            return group.all_reduce(x, "max")
        if self.name == "all_to_all":
            return group.all_to_all(x, self.matrix[me], [row[me] for row in self.matrix])
        counts = [self.matrix[0]] if self.name.endswith("uneven") else []
        result: Tensor = getattr(group, self.name)(x, *counts)
        return result

    def reference(self, me: int) -> Tensor:
        """What the interface says, from the inputs of all members."""
        inputs = [self.input(i) for i in range(len(self.ranks))]
        if self.name == "all_reduce":
            return ordered_sum(inputs)
        if self.name == "all_reduce_max":
            return torch.stack(inputs).amax(0)
        if self.name.startswith("all_gather"):
            return torch.cat(inputs)
        if self.name == "all_to_all":
            return torch.cat([x.split(row)[me] for x, row in zip(inputs, self.matrix, strict=True)])
        counts = [self.rows] * len(inputs) if self.name == "reduce_scatter" else self.matrix[0]
        return ordered_sum([x.split(counts)[me] for x in inputs])


def compare(world: World, gloo: World, value: str) -> None:
    """``compare=first:last`` cases; ``…:big`` with tensors that do not fit into a slot."""
    first, last, *big = value.split(":")
    for seed in range(int(first), int(last)):
        case = Case(seed, world.size, big=bool(big))
        ours, theirs = world.group(case.ranks), gloo.group(case.ranks)
        if ours is None:
            continue
        x = case.input(ours.rank)
        before = x.clone()
        found = case.call(ours, x)
        assert torch.equal(x, before), f"{case}: its argument was changed"
        expect(f"{case}, from its meaning", found, case.reference(ours.rank), case.dtype)
        if theirs is not None and case.dtype not in NOT_GLOO:
            expect(f"{case}, from gloo", found, case.call(theirs, x), case.dtype)


def views(world: World, gloo: World, _: str) -> None:
    """Arguments that are scalars, transposed, parts of others, or wait for a gradient."""
    ours, theirs = world.group(range(world.size)), gloo.group(range(world.size))
    assert ours is not None
    assert theirs is not None
    scalar = torch.tensor(float(world.rank) / 3)
    expect("scalar", ours.all_reduce(scalar), theirs.all_reduce(scalar), torch.float32)
    base = tensor(torch.float32, (world.size * 2, 6), f"views {world.rank}")
    for x in (base.t()[:4], base[:, 1:3], base.requires_grad_()):
        for name in ("all_reduce", "all_gather"):
            expect(name, getattr(ours, name)(x), getattr(theirs, name)(x.detach()), torch.float32)
    assert not ours.all_reduce(base).requires_grad
    x = base.detach().t().reshape(-1, world.size)[: world.size]
    expect("reduce_scatter", ours.reduce_scatter(x.t()), theirs.reduce_scatter(x.t()), torch.float32)


def rounds(world: World, gloo: World, value: str) -> None:
    """Many rounds, close behind each other, of ranks that are late at random: no slot is reused early."""
    everyone = world.group(range(world.size))
    pairs = [world.group((low, low + 1)) for low in range(0, world.size, 2)]
    pair = next(group for group in pairs if group is not None)
    assert everyone is not None
    late = random.Random(world.rank)
    for i in range(int(value)):
        if late.random() < 0.02:
            time.sleep(late.random() / 500)
        x = torch.full((1 + i % 40,), float(i * world.size + world.rank))
        total = sum(float(i * world.size + r) for r in range(world.size))
        assert everyone.all_reduce(x).tolist() == [total] * x.shape[0], f"round {i}"
        mine = pair.all_gather(x[:1]).tolist()
        assert mine == [float(i * world.size + r) for r in pair.ranks], f"round {i}"


# -- point to point --------------------------------------------------------------------------------


def messages(seed: int, source: int, destination: int, lane: int) -> list[Tensor]:
    draw = random.Random(f"{seed} {source} {destination} {lane}")
    out = []
    for i in range(draw.randint(5, 40)):
        shape = draw.choice([(), (0,), (1,), (33,), (16, 5), (4, 0, 2), (600, 130), (1 << 17,)])
        out.append(tensor(draw.choice(DTYPES), shape, f"{seed} {source} {destination} {lane} {i}"))
    return out


def sends(world: World, gloo: World, value: str) -> None:
    """Everybody sends everything to everybody before anybody receives; then in another order by lane."""
    pipe = world.pipe()
    others = [rank for rank in range(world.size) if rank != world.rank]
    for seed in range(int(value)):
        mine = [(other, lane) for other in others for lane in (FORWARD, BACKWARD)]
        for other, lane in mine:
            for x in messages(seed, world.rank, other, lane):
                pipe.send(x, other, lane)
        random.Random(f"{seed} {world.rank}").shuffle(mine)
        for other, lane in mine:
            for i, x in enumerate(messages(seed, other, world.rank, lane)):
                found = pipe.receive(x.shape, x.dtype, other, lane)
                expect(f"message {i} of lane {lane} from {other}", found, x, x.dtype)
        pipe.flush()


def ring(world: World, gloo: World, value: str) -> None:
    """A receiver that keeps up, then falls behind, again and again; what was past the ring is freed."""
    pipe = world.pipe()
    if world.rank > 1:
        return
    memory: Any = world._memory  # type: ignore[attr-defined]
    before = os.fstat(memory.fd).st_blocks * 512
    x = tensor(torch.float32, (50_000,), "ring")
    for i in range(int(value)):
        many = 1 if i % 3 else 30
        if world.rank == 0:
            for k in range(many):
                pipe.send(x + k, 1, FORWARD)
            assert pipe.receive((), torch.int64, 1, BACKWARD).item() == i
        else:
            for k in range(many):
                assert torch.equal(pipe.receive(x.shape, x.dtype, 0, FORWARD), x + k), f"{i}.{k}"
            pipe.send(torch.tensor(i), 0, BACKWARD)
    held = os.fstat(memory.fd).st_blocks * 512 - before
    assert held < 3 << 20, f"{held} bytes are still held"


def crowd(world: World, gloo: World, value: str) -> None:
    """More messages under way than the list has entries: the sender waits, and all arrive in order."""
    pipe = world.pipe()
    if world.rank == 0:
        for i in range(int(value)):
            pipe.send(torch.tensor(i), 1, FORWARD)
    elif world.rank == 1:
        time.sleep(0.2)
        found = [pipe.receive((), torch.int64, 0, FORWARD).item() for _ in range(int(value))]
        assert found == list(range(int(value)))


# -- waiting -------------------------------------------------------------------------------------


def waits(world: World, gloo: World, value: str) -> None:
    """The last rank is a second late, to a ``collective`` or with a ``message``; the others sleep."""
    group, pipe = world.group(range(world.size)), world.pipe()
    assert group is not None
    late = world.size - 1
    group.barrier()
    began, used = time.monotonic(), time.thread_time()  # gloo's own threads look around all the time
    if world.rank == late:
        time.sleep(1.0)
        if value == "message":
            for rank in range(late):
                pipe.send(torch.zeros(3), rank, FORWARD)
    elif value == "message":
        pipe.receive((3,), torch.float32, late, FORWARD)
    if value == "collective":
        group.all_reduce(torch.zeros(3))
    waited, used = time.monotonic() - began, time.thread_time() - used
    assert waited > 0.9, f"waited {waited:.2f} s: nobody was late"
    # On a machine with much else to do, one that spins gets little more than this.
    assert used < 0.03, f"{used:.3f} s of a processor were spent waiting {waited:.2f} s"


def stirs(world: World, gloo: World, value: str) -> None:
    """Small collectives and messages of ranks that sleep for every length of time: all of them are woken."""
    group, pipe = world.group(range(world.size)), world.pipe()
    assert group is not None
    draw = random.Random(world.rank)
    after, before = (world.rank + 1) % world.size, (world.rank - 1) % world.size
    for i in range(int(value)):
        if (pause := draw.choice([0.0, 0.0, 1e-5, 1e-4, 1e-3])) > 0:
            time.sleep(draw.random() * pause)
        if draw.random() < 0.3:
            os.sched_yield()
        assert group.all_reduce(torch.tensor(i + world.rank)).item() == sum(
            i + rank for rank in range(world.size)
        ), f"round {i}"
        pipe.send(torch.tensor(i), after, FORWARD)
        if draw.random() < 0.2:
            time.sleep(draw.random() * 1e-4)
        assert pipe.receive((), torch.int64, before, FORWARD).item() == i, f"message {i}"


def turns(world: World, gloo: World, value: str) -> None:
    """A rank has short turns where the kernel has such; what it starts has the kernel's own again."""
    assert os.sched_getscheduler(0) & 7 == os.SCHED_OTHER
    assert os.getpriority(os.PRIO_PROCESS, 0) == int(value)
    code = "from harness.trainers.native.comm.turns import turn; print(turn())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    usual = int(child.stdout)
    assert turn() == min(TURN, usual), f"{turn()} ns, and {usual} ns for a process it started"


# -- a rank that does not come ---------------------------------------------------------------------


def absent(world: World, gloo: World, value: str) -> None:
    """All but the last rank wait for it: in a ``collective``, or for a ``message``."""
    group, pipe = world.group(range(world.size)), world.pipe()
    assert group is not None
    if world.rank == world.size - 1:
        while True:
            time.sleep(0.1)
    if value == "message":
        pipe.receive((), torch.int64, world.size - 1, FORWARD)
    group.all_reduce(torch.zeros(3))


def killed(world: World, gloo: World, value: str) -> None:
    """The last rank is killed while all others wait for it."""
    group = world.group(range(world.size))
    assert group is not None
    if world.rank == world.size - 1:
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)
    group.all_reduce(torch.zeros(3))
