"""A class that no table knows is a record of what was stored: compared by value, and nothing of it runs."""

from __future__ import annotations

import argparse
import collections
import copyreg
import dataclasses
import datetime as dt
import enum
import functools
import os
import pickle
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.distributed.tensor import Replicate, Shard, distribute_tensor, init_device_mesh

from harness.checkpoints import diff, fingerprint, open_checkpoint, verify
from harness.errors import CheckpointError
from tests.checkpoints.made import save

RAN: list[str] = []


class Strategy(enum.Enum):
    STEPS = "steps"
    EPOCH = "epoch"


class Level(enum.IntFlag):
    ONE = 1
    TWO = 2


@dataclasses.dataclass
class Arguments:
    lr: float
    strategy: Strategy = Strategy.STEPS
    output_dir: str = "out"
    dtype: torch.dtype = torch.bfloat16
    extra: dict[str, Any] = dataclasses.field(default_factory=lambda: {"device": torch.device("cpu")})

    def __setstate__(self, state: dict[str, Any]) -> None:
        RAN.append("__setstate__")
        self.__dict__.update(state)


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    scale: float


class Slots:
    __slots__ = ("__dict__", "scale")

    def __init__(self, scale: float) -> None:
        self.scale, self.hysteresis = scale, 2


class Point(NamedTuple):
    x: float
    y: float


class Table(dict[str, Any]):
    pass


class Queue(list[Any]):
    pass


class Stats(collections.OrderedDict[str, Any]):
    pass


class Reduced:
    def __init__(self, value: float) -> None:
        RAN.append("__init__")
        self.value = value

    def __reduce__(self) -> tuple[Any, ...]:
        return Reduced, (self.value,), {"more": [self.value]}


class Keyworded:
    def __new__(cls, *, value: float = 0.0) -> Keyworded:
        made = super().__new__(cls)
        made.value = value
        return made

    value: float

    def __getnewargs_ex__(self) -> tuple[tuple[()], dict[str, float]]:
        return (), {"value": self.value}

    def __getstate__(self) -> None:
        return None


class Node:
    """As OmegaConf has them: a child knows its parent."""

    def __init__(self, content: Any, parent: Node | None = None) -> None:
        self.content, self.parent = content, parent


def tree(value: float) -> Node:
    root = Node({})
    root.content["lr"] = Node(value, root)
    return root


class Registered:
    def __init__(self, value: float) -> None:
        self.value = value


def rebuild(value: float) -> Registered:
    RAN.append("rebuild")
    return Registered(value)


copyreg.pickle(Registered, lambda one: (rebuild, (one.value,)))


class Scaled(torch.Tensor):
    pass


def generator(value: float) -> np.random.Generator:
    made = np.random.default_rng(3)
    made.random(int(value))
    return made


def scaled(value: float) -> torch.Tensor:
    made = torch.full((2,), value).as_subclass(Scaled)
    made.factor = 2.0  # type: ignore[attr-defined]
    return made


def module(value: float) -> torch.nn.Module:
    made = torch.nn.Linear(2, 1, bias=False)
    torch.nn.init.constant_(made.weight, value)
    return made


MADE: dict[str, tuple[Callable[[float], Any], str]] = {
    "dataclass": (Arguments, "x.lr"),
    "its own class": (lambda v: Arguments(1.0, extra={"a": Slotted(v)}), "x.extra.a.state"),
    "enum": (lambda v: Strategy.EPOCH if v > 1 else Strategy.STEPS, "x"),
    "enum inside": (lambda v: Arguments(1.0, Strategy.EPOCH if v > 1 else Strategy.STEPS), "x.strategy"),
    "flag": (lambda v: Level(int(v)), "x"),
    "slots": (Slots, "x.scale"),
    "named tuple": (lambda v: Point(0.0, v), "x"),
    "dict subclass": (lambda v: Table(a={"b": v}), "x.a.b"),
    "list subclass": (lambda v: Queue(["a", {"b": v}]), "x.items.1.b"),
    "ordered subclass": (lambda v: Stats(a=v), "x.a"),
    "counter": (lambda v: collections.Counter({"a": int(v)}), "x.a"),
    "default dict": (lambda v: collections.defaultdict(list, a=[v]), "x.a"),
    "deque of objects": (lambda v: collections.deque([Slots(v)]), "x.0.scale"),
    "reduce, arguments": (Reduced, "x.Reduced"),
    "reduce, state": (Reduced, "x.more"),
    "new with keywords": (lambda v: Keyworded(value=v), ""),
    "registered": (Registered, "x"),
    "namespace": (lambda v: argparse.Namespace(lr=v), "x.lr"),
    "simple namespace": (lambda v: types.SimpleNamespace(lr=v), "x.lr"),
    "parent": (tree, "x.content.lr.content"),
    "partial": (lambda v: functools.partial(rebuild, v), "x.state.1"),
    "class": (lambda v: Slots if v > 1 else Queue, "x"),
    "set of objects": (lambda v: {Point(v, 0.0), Point(5.0, 5.0)}, ""),
    "range": (lambda v: range(int(v)), "x"),
    "date": (lambda v: dt.datetime(2026, 1, int(v), tzinfo=dt.timezone.utc), ""),
    "numpy scalar": (np.float32, "x"),
    "numpy generator": (generator, "x.__generator_ctor.0.state.0.state.state"),
    "numpy time": (lambda v: np.array([int(v)], "M8[s]"), "x.data"),
    "numpy dtype": (lambda v: np.dtype("f4" if v > 1 else "f8"), ""),
    "size": (lambda v: torch.Size([int(v)]), "x"),
    "tensor subclass": (scaled, "x"),
    "quantized": (lambda v: torch.quantize_per_tensor(torch.full((2,), v), 1.0, 0, torch.qint8), ""),
    "sparse": (lambda v: torch.eye(2).mul(v).to_sparse(), ""),
    "compressed": (lambda v: torch.eye(2).mul(v).to_sparse_csr(), ""),
    "conjugate": (lambda v: torch.tensor([complex(1.0, v)]).conj(), ""),
    "module": (module, "x._parameters.weight"),
}  # fmt: skip


def files(value: Any, folder: Path, name: str) -> list[Path]:
    """As ``torch.save`` has it, and a plain pickle by every protocol."""
    folder.mkdir(exist_ok=True)
    found = [save({"x": value, "w": torch.ones(2)}, folder / f"{name}.pt")]
    for protocol in (0, 2, pickle.HIGHEST_PROTOCOL):
        if protocol < 2 and not isinstance(value, torch.Tensor):
            continue  # which few classes can
        if isinstance(value, torch.Tensor) and value.is_conj():
            continue  # its bytes alone would be kept
        path = folder / f"{name}-{protocol}.pkl"
        path.write_bytes(pickle.dumps({"x": value}, protocol))
        found.append(path)
    return found


@pytest.mark.parametrize("kind", MADE)
@pytest.mark.filterwarnings("ignore")
def test_what_was_stored_for_a_class_is_compared_by_value_and_nothing_of_it_runs(
    kind: str, tmp_path: Path
) -> None:
    make, name = MADE[kind]
    one, again, other = (
        files(make(v), tmp_path / side, side) for side, v in (("a", 1.0), ("b", 1.0), ("c", 2.0))
    )
    RAN.clear()
    for a, b, c in zip(one, again, other, strict=True):
        assert diff(a, b).equal, a
        found = diff(a, c)
        assert found.entries, a
        assert not found.coverage.uncompared
        assert fingerprint(a) == fingerprint(b) != fingerprint(c)
        if a.suffix == ".pt":
            assert not name or name in {entry.name for entry in found.entries}
            assert not any(entry.name == "w" for entry in found.entries)
            verify(a, hashes=True)
    assert not RAN


def test_an_object_of_another_class_is_another_one(tmp_path: Path) -> None:
    paths = [save({"x": made}, tmp_path / f"{type(made).__name__}.pt") for made in (Table(a=1), Stats(a=1))]
    assert [entry.name for entry in diff(*paths).entries] == ["x.class"]


def test_equal_objects_are_equal_whatever_their_pickles_share(tmp_path: Path) -> None:
    shared = Slots(1.0)
    one, two = tmp_path / "a.pkl", tmp_path / "b.pkl"
    one.write_bytes(pickle.dumps([shared, shared, "epoch", "epoch"]))
    two.write_bytes(pickle.dumps([Slots(1.0), Slots(1.0), "epoch", "epochs"[:-1]]))
    assert one.read_bytes() != two.read_bytes()
    assert diff(one, two).equal


def test_a_tensor_in_a_plain_pickle_is_one_of_its_type_and_shape(tmp_path: Path) -> None:
    base = torch.arange(12, dtype=torch.bfloat16).reshape(3, 4)
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"w": base.t()[1:3]}))
    found = open_checkpoint(path)
    assert found.meta("w") == ("bfloat16", (2, 3))
    assert torch.equal(found.read("w"), base.t()[1:3])


@pytest.fixture
def group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("group")
def test_a_distributed_tensor_is_what_its_rank_holds_and_how_it_is_placed(tmp_path: Path) -> None:
    mesh = init_device_mesh("cpu", (1,))

    def saved(name: str, value: float, placement: Any) -> Path:
        tensor = distribute_tensor(torch.full((4,), value), mesh, [placement])
        return save({"p": torch.nn.Parameter(tensor), "t": tensor}, tmp_path / name)

    a, b = saved("a.pt", 1.0, Shard(0)), saved("b.pt", 1.0, Shard(0))
    assert diff(a, b).equal
    assert torch.equal(open_checkpoint(a).read("p"), torch.ones(4))
    assert {e.name for e in diff(a, saved("c.pt", 2.0, Shard(0))).entries} == {"p", "t"}
    apart = {e.name for e in diff(a, saved("d.pt", 1.0, Replicate())).entries}
    assert apart == {"p.distributed", "t.distributed"}


def test_what_a_process_made_of_a_mesh_is_no_state(tmp_path: Path) -> None:
    code = """
import sys, torch, torch.distributed as dist
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh
torch.save({"w": distribute_tensor(torch.ones(4), init_device_mesh("cpu", (1,)), [Shard(0)])}, sys.argv[1])
"""
    import subprocess

    paths = [tmp_path / name for name in ("a.pt", "b.pt")]
    for seed, path in enumerate(paths):
        environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
        subprocess.run([sys.executable, "-c", code, path], check=True, env=environment, capture_output=True)
    assert paths[0].read_bytes() != paths[1].read_bytes()
    assert diff(*paths).equal


def test_a_circle_of_lists_has_an_end(tmp_path: Path) -> None:
    circle: list[Any] = ["a"]
    circle.append(circle)
    path = save({"x": circle}, tmp_path / "a.pt")
    assert open_checkpoint(path).names() == ["x.0", "x.1"]


def test_several_pickles_in_one_file_are_all_compared(tmp_path: Path) -> None:
    one, two = tmp_path / "a.pkl", tmp_path / "b.pkl"
    one.write_bytes(pickle.dumps({"a": 1}) + pickle.dumps(["x", 1]))
    two.write_bytes(pickle.dumps({"a": 1}) + pickle.dumps(["x", 2]))
    assert [entry.name for entry in diff(one, two).entries] == ["1.1"]


def test_more_names_than_a_program_has_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    from tests.checkpoints.test_refusals import zipped

    zipped(path, b"(" + b"".join(b"cm\nn%d\n" % i for i in range(20_001)) + b"l.")
    with pytest.raises(CheckpointError, match="20000 classes"):
        open_checkpoint(path)
