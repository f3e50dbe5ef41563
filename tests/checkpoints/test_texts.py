"""Names of entries: the same in every process, and another one for every other key."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.checkpoints import diff, fingerprint, open_checkpoint
from harness.errors import CheckpointError
from tests.checkpoints.made import save

#: Run in processes of other addresses and other hashes: makes a checkpoint, and says what is read of it.
MAKE = """\
import argparse, enum, json, pathlib, signal, sys, uuid
import numpy, torch
from harness.checkpoints import fingerprint, open_checkpoint
ones = {"w": torch.ones(2)}
nest = {
    0: {(torch.bfloat16, torch.float32): {"param": torch.zeros(2)}},
    "sets": [{"b", "a", "c", 1, None, (2, "x")}, frozenset({torch.float16, torch.bfloat16, "z"})],
    "keys": {
        frozenset({"p", "q", "r"}): 1, (1, ("a", b"b", None, True, 2.5)): 2, torch.device("cpu"): 3,
        torch.Size([2, 3]): 4, signal.SIGTERM: 5, float("nan"): 6, b"\\x00": 7, None: 8,
        pathlib.PurePosixPath("a/b"): 9, numpy.int64(3): 10, numpy.float32(0.5): 11, 1 + 2j: 12,
        (torch.device("cuda", 1), torch.float8_e4m3fn): 13, uuid.UUID(int=5): 14, torch.int8: 15,
    },
    "values": [torch.device("cpu"), torch.float32, signal.SIGTERM, argparse.Namespace],
    "signals": {signal.SIGINT, signal.SIGTERM, signal.SIGHUP},
    "args": argparse.Namespace(**{"x": {"m", "n", "o", "p"}}),
}
for protocol in (2, 4, 5):
    torch.save(nest, sys.argv[1], pickle_protocol=protocol)
    checkpoint = open_checkpoint(pathlib.Path(sys.argv[1]))
    values = {name: checkpoint.read(name).tolist() for name in checkpoint.names()}
    print(json.dumps([fingerprint(pathlib.Path(sys.argv[1])), values], sort_keys=True))
"""


def test_names_and_digests_are_the_same_in_every_process(tmp_path: Path) -> None:
    said = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", MAKE, str(tmp_path / f"{seed}.pt")]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        said.append(ran.stdout)
    assert said[0] == said[1]
    names = json.loads(said[0].splitlines()[0])[1]
    assert "0.(bfloat16, float32).param" in names
    assert not [name for name in names if "0x" in name or "object at" in name]
    assert diff(tmp_path / "1.pt", tmp_path / "2.pt").equal


ALIKE: list[tuple[Any, Any]] = [
    (1, "1"), (True, "True"), (1.5, "1.5"), (None, "None"), (-1, "-1"), (math.inf, "inf"), (b"x", "b'x'"),
    (torch.float32, "float32"), ((1, 2), "(1, 2)"), (torch.device("cpu"), "cpu"),
    (torch.device("cpu"), "device(cpu)"), (Path("a"), "a"), ((1,), frozenset({1})), (("1",), (1,)),
    ((True,), ("True",)), (1j, "1j"), ("'1'", "1"), (1e-5, "1e-05"), (frozenset(), ()),
    (frozenset({1}), "{1}"), ((torch.float32,), ("float32",)), ((torch.device("cpu"),), ("cpu",)),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), ALIKE, ids=repr)
def test_keys_that_are_not_equal_have_names_of_their_own_in_any_order(
    one: Any, other: Any, tmp_path: Path
) -> None:
    first = save({"t": {one: torch.tensor([1.0]), other: torch.tensor([2.0])}}, tmp_path / "a.pt")
    second = save({"t": {other: torch.tensor([2.0]), one: torch.tensor([1.0])}}, tmp_path / "b.pt")
    assert len(open_checkpoint(first).entries) == 2
    assert fingerprint(first) == fingerprint(second)
    assert diff(first, second).equal
    changed = save({"t": {one: torch.tensor([2.0]), other: torch.tensor([1.0])}}, tmp_path / "c.pt")
    assert not diff(first, changed).equal


@pytest.mark.parametrize("key", ["decoder.layers.0.weight", "model", "exp_avg", "a-b/c_d", "e5", "_x", "x y"])
def test_a_text_that_no_other_key_has_stands_for_itself(key: str, tmp_path: Path) -> None:
    assert open_checkpoint(save({key: torch.ones(1)}, tmp_path / "a.pt")).names() == [key]


def test_a_key_that_holds_itself_many_times_over_is_refused(tmp_path: Path) -> None:
    key: tuple[Any, ...] = ("x",)
    for _ in range(21):
        key = (key, key)
    # Made by a pickle of references, the key takes a few hundred bytes, and its text two million parts.
    with pytest.raises(CheckpointError, match=r"a key of more than 1000000 parts"):
        open_checkpoint(save({key: 1}, tmp_path / "a.pt"))


def test_the_program_that_deepspeed_puts_beside_is_no_state(tmp_path: Path) -> None:
    """Its lines would be a thousand entries, of weights and optimizers by the words in them."""
    one, two = tmp_path / "a", tmp_path / "b"
    for folder, code in ((one, "def weights():\n    return None\n"), (two, "def optimizer():\n    pass\n")):
        (folder / "beside").mkdir(parents=True)
        save({"w": torch.ones(2)}, folder / "state.pt")
        (folder / "beside" / "zero_to_fp32.py").write_text(code)
        (folder / "beside" / "latest").write_text("global_step20")
    found = diff(one, two)
    assert found.equal
    assert [rule.file for rule in found.coverage.rules] == ["*zero_to_fp32.py"]
    (two / "beside" / "latest").write_text("global_step40")
    assert not diff(one, two).equal
