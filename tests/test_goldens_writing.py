"""Goldens are written whole, whatever comes between: another run, a full disk, the end of the process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from harness import goldens
from harness.errors import GoldenError
from harness.goldens.store import Planned, put
from harness.metrics import Series


def test_a_golden_never_has_the_provenance_of_another_that_was_written_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "case" / "golden_values_dev_cpu.json"
    start = threading.Barrier(2)

    def record(mark: int) -> None:
        series = {"lm loss": Series("lm loss", np.arange(1, 101), np.full(100, float(mark)))}
        about = goldens.provenance_of({"mark": mark}, {})
        start.wait()
        goldens.write(path, series, about)

    for _ in range(40):
        writers = [threading.Thread(target=record, args=(mark,)) for mark in (1, 2)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        found = goldens.read(path)
        assert found.fingerprint == {"mark": int(found.series["lm loss"].values[0])}
    assert sorted(one.name for one in path.parent.iterdir()) == [path.name, goldens.side_file(path).name]


PATH = Path("case", "golden_values_dev_cpu.json")
#: In a process of its own: it may not write longer files, or ends at its n-th rename.
_AGAIN = """
import os, resource, signal, sys
from pathlib import Path
from harness import goldens
from harness.goldens.store import Planned, put
from harness.metrics import Series
path, how, way, rename, renames = Path(sys.argv[1]), sys.argv[2], sys.argv[3], os.replace, iter(range(1, 100))

def counted(one, other):
    if Path(other).parent != path.parent:
        return rename(one, other)
    if how == f"killed at {(n := next(renames))}":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == f"fails at {n}":
        raise OSError(5, "Input/output error")
    if how == f"interrupted at {n}":
        raise KeyboardInterrupt
    rename(one, other)

os.replace = counted
if how.startswith("limit"):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(how.split()[1]),) * 2)
series = {"loss": Series.of("loss", range(1, 101), [2.0] * 100)}
about = goldens.provenance_of({"mark": 2}, {})
if way == "write":
    goldens.write(path, series, about)
else:
    put(path.parent.parent, [Planned(path, series, about, path)])
"""


def recorded(folder: Path, mark: int = 1) -> tuple[Path, list[bytes]]:
    """A golden whose values and provenance say ``mark``, and the bytes of both files."""
    path = folder / PATH
    series = {"loss": Series("loss", np.arange(1, 101), np.full(100, float(mark)))}
    goldens.write(path, series, goldens.provenance_of({"mark": mark}, {}))
    return path, [path.read_bytes(), goldens.side_file(path).read_bytes()]


def again(path: Path, how: str, way: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", _AGAIN, str(path), how, way]
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("way", ["write", "put"])
@pytest.mark.parametrize(
    "how", ["limit 1000", "limit 1", "fails at 1", "fails at 2", "interrupted at 1", "interrupted at 2"]
)
def test_what_fails_half_way_leaves_both_files_as_they_were(tmp_path: Path, how: str, way: str) -> None:
    path, before = recorded(tmp_path)
    done = again(path, how, way)
    assert done.returncode != 0
    assert [path.read_bytes(), goldens.side_file(path).read_bytes()] == before, done.stderr
    assert sorted(os.listdir(path.parent)) == [path.name, goldens.side_file(path).name]
    assert os.listdir(tmp_path) == ["case"]


@pytest.mark.parametrize("way", ["write", "put"])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_process_that_ends_between_two_renames_leaves_no_golden_beside_the_provenance_of_another(
    tmp_path: Path, n: int, way: str
) -> None:
    path, _ = recorded(tmp_path)
    done = again(path, f"killed at {n}", way)
    assert (done.returncode == 0) == (n == 3), done.stderr  # there are two of them
    found = goldens.read(path)
    assert not found.fingerprint or found.fingerprint == {"mark": int(found.series["loss"].values[0])}
    recorded(tmp_path, 3)
    assert goldens.read(path).fingerprint == {"mark": 3}


def test_a_new_golden_that_fails_leaves_nothing(tmp_path: Path) -> None:
    done = again(tmp_path / PATH, "fails at 2", "put")
    assert done.returncode != 0
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("steps", "values", "said"),
    [
        ([1, 2, 3], [1.0, float("inf"), float("inf")], "`g` is inf at step 2 and 1 more"),
        ([1, 2], [float("nan"), 1.0], "`g` is nan at step 1, expected a number"),
        ([1, 2], [float("-inf"), 1.0], "`g` is -inf at step 1"),
        ([1, 2, 2, 3], [1.0] * 4, "`g` was logged more than once at step 2"),
        ([1, 3, 2], [1.0] * 3, "`g` was logged out of order at step 2"),
        ([], [], "`g` has no value"),
    ],
)
def test_a_series_that_no_golden_may_hold_is_named_with_its_step(
    tmp_path: Path, steps: list[int], values: list[float], said: str
) -> None:
    series = {"g": Series.of("g", steps, values), "loss": Series.of("loss", [1, 2], [1.0, 2.0])}
    with pytest.raises(GoldenError) as error:
        goldens.write(tmp_path / PATH, series, {})
    assert said in error.value.message
    goldens.write(tmp_path / PATH, series, {}, metrics=["loss"])
    assert list(goldens.read(tmp_path / PATH).series) == ["loss"]
    with pytest.raises(GoldenError, match="`other` was not logged, though the case names it"):
        goldens.write(tmp_path / PATH, series, {}, metrics=["loss", "other"])


def test_whole_numbers_beyond_a_float_are_written_and_read_as_they_are(tmp_path: Path) -> None:
    numbers = [1 << 62, (1 << 62) + 1, -(1 << 62) - 1, 1 << 53, (1 << 53) + 1, (1 << 64) - 1, 0.5]
    series = {"digest": Series.of("digest", range(1, 8), numbers)}
    goldens.write(tmp_path / PATH, series, {})
    found = goldens.read(tmp_path / PATH).series["digest"].numbers()
    assert [int(a) == int(b) and a == b for a, b in zip(found, numbers, strict=True)] == [True] * 7
    stored = json.loads((tmp_path / PATH).read_text())["digest"]["values"]
    assert stored["2"] == (1 << 62) + 1
    other = {"digest": Series.of("digest", range(1, 8), [*numbers[:1], numbers[1] + 1, *numbers[2:]])}
    change = goldens.write(tmp_path / PATH, other, {})
    assert change.metrics == (f"digest changed at 1 of 7 steps, first at 2: {numbers[1]} → {numbers[1] + 1}",)
    plan = Planned(tmp_path / PATH, series, {}, tmp_path)
    changes = plan.changes()
    assert not isinstance(changes, str)
    assert [changed.first for changed in changes] == [(2, numbers[1] + 1, numbers[1])]
    put(tmp_path, [plan])
    assert goldens.read(tmp_path / PATH).series["digest"].numbers()[1] == numbers[1]
