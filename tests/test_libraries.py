"""Which frameworks a script trains with, and their versions in the run's provenance."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.goldens.fingerprints import kind_of
from harness.trainers.command import libraries as subject
from harness.trainers.command.libraries import libraries

_HERE = {"transformers": "5.24.0", "accelerate": "1.15.0", "torchtitan": "0.2.0", "deepspeed": "0.19.8"}


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "version_of", lambda name: _HERE.get(name, "none"))


def test_what_the_script_imports_and_what_works_with_it(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("from transformers import Trainer\n")
    found = libraries(["python", "-u", "train.py", "--deepspeed", "ds.json"], tmp_path)
    assert found == {"transformers": "5.24.0", "accelerate": "1.15.0"}
    assert {kind_of(name) for name in found} == {"environment"}


@pytest.mark.parametrize("text", [
    "def main():\n    import deepspeed\n", "import deepspeed.ops as ops\n", "from own.engine import go\n",
    "import helper\n",
])  # fmt: skip
def test_imports_within_functions_and_in_modules_beside_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "train.py").write_text(text)
    (tmp_path / "helper.py").write_text("import deepspeed\nimport helper\n")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "__init__.py").touch()
    (tmp_path / "own" / "engine.py").write_text("from deepspeed import zero\n")
    words = ["torchrun", "--standalone", "--nproc_per_node", "2", "train.py"]
    assert libraries(words, tmp_path) == {"deepspeed": "0.19.8"}


def test_a_module_that_is_started(tmp_path: Path) -> None:
    assert libraries(["torchrun", "-m", "torchtitan.train"], tmp_path) == {"torchtitan": "0.2.0"}


@pytest.mark.parametrize("text", ["import torch\n", "import (", "print 'two'\n", "(" * 5000, "\0"])
def test_what_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "train.py").write_text(text)
    assert libraries(["python", "train.py"], tmp_path) == {}
    assert libraries(["python", "gone.py"], tmp_path) == {}
    assert libraries(["bash", "run.sh"], tmp_path) == {}


def test_every_framework_counts_as_environment() -> None:
    names = {name for some in subject._FRAMEWORKS.values() for name in some}
    assert {name for name in names if kind_of(name) != "environment"} == set()
