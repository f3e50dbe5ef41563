"""Two runs that record the golden of one cell at the same time."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from harness import goldens
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
