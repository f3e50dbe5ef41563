"""Whatever lies in a store of arrays beside their pieces is compared as well."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness.checkpoints import diff

pytestmark = pytest.mark.tools


def array(folder: Path, driver: str = "zarr", base: object = None) -> None:
    import tensorstore as ts

    kvstore = base or {"driver": "file", "path": f"{folder}/"}
    spec = {"driver": driver, "kvstore": kvstore}
    ts.open(spec, create=True, dtype=ts.float32, shape=[4]).result().write(np.arange(4, dtype="f4")).result()


def database(folder: Path, key: str, value: bytes) -> None:
    import tensorstore as ts

    base = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{folder}/"}}
    array(folder, base={**base, "path": "w/"})
    ts.KvStore.open(base).result().write(key, value).result()


def beside_pieces(folder: Path, step: int) -> None:
    array(folder / "w")
    (folder / "w" / "state.json").write_text(f'{{"step": {step}}}')


def below(folder: Path, step: int) -> None:
    array(folder / "w")
    array(folder / "w" / "inner")
    (folder / "w" / "inner" / "0").write_bytes(np.full(4, step, "f4").tobytes())
    content = json.loads((folder / "w" / "inner" / ".zarray").read_text())
    (folder / "w" / "inner" / ".zarray").write_text(json.dumps({**content, "compressor": None}))


def attributes(folder: Path, step: int) -> None:
    array(folder / "w", "zarr3")
    file = folder / "w" / "zarr.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "attributes": {"step": step}}))


def group(folder: Path, step: int) -> None:
    array(folder / "w", "zarr3")
    said = {"zarr_format": 3, "node_type": "group", "attributes": {"step": step}}
    (folder / "zarr.json").write_text(json.dumps(said))


def consolidated(folder: Path, step: int) -> None:
    array(folder / "w")
    (folder / ".zgroup").write_text('{"zarr_format": 2}')
    (folder / ".zmetadata").write_text(json.dumps({"metadata": {".zattrs": {"step": step}}}))


def in_a_database(folder: Path, step: int) -> None:
    database(folder, "state", str(step).encode())


def large_in_a_database(folder: Path, step: int) -> None:
    database(folder, "state", str(step).encode() * (2 << 20))


def hung_in_a_database(folder: Path, step: int) -> None:
    database(folder, "w/.zattrs", f'{{"step": {step}}}'.encode())


WRITERS = (beside_pieces, below, attributes, group, consolidated, in_a_database, large_in_a_database,
           hung_in_a_database)  # fmt: skip


@pytest.mark.parametrize("write", WRITERS)
def test_what_lies_beside_arrays_is_compared(tmp_path: Path, write: Callable[[Path, int], None]) -> None:
    for side, step in (("a", 1), ("b", 2), ("c", 1)):
        (tmp_path / side).mkdir()
        write(tmp_path / side, step)
    assert diff(tmp_path / "a", tmp_path / "c").equal
    found = diff(tmp_path / "a", tmp_path / "b")
    assert (len(found.entries), found.coverage.uncompared) == (1, 0)


def test_a_piece_that_is_a_broken_link_is_uncompared(tmp_path: Path) -> None:
    for side in ("a", "b"):
        array(tmp_path / side / "w")
        (tmp_path / side / "w" / "1").symlink_to("nowhere")
        (tmp_path / side / "step.json").write_text("1")
    found = diff(tmp_path / "a", tmp_path / "b")
    assert found.coverage.uncompared > 0
    assert any("cannot be read" in reason for reason in found.unread.values())
