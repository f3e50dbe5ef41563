"""Faults of the gate itself: classes that it called held, or passed over, because it did not look.

Each is tried through the command line, so that an older harness can be tried in the same way: ``python -m
tests.faults.gate CHECKOUT`` says what one of before makes of them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.faults.bank import CASES, FAULTS

_SCRIPT = Path(__file__).parents[1] / "stand_ins" / "scattered_script.py"
_WORDS = ["python", "train.py", "${EXIT_ITERS}", "${CHECKPOINT_SAVE_PATH}", "${OUTPUT_PATH}"]
_GOLDEN = "golden_values_dev_cpu.json"


class Gate:
    """The command line, in a folder of its own.

    Args:
        folder: where it is started; holds cases, goldens, results.
        checkout: whose harness is run; None: this one.
    """

    def __init__(self, folder: Path, checkout: Path | None = None) -> None:
        self.folder = folder
        self._checkout = {"PYTHONPATH": str(checkout)} if checkout else {}

    def harness(self, *words: str, **env: str) -> tuple[int, str]:
        """Exit status and output of ``harness <words>``."""
        around = {"HARNESS_LEASES": str(self.folder / "leases"), "CI": "", **self._checkout, **env}
        done = subprocess.run(
            [sys.executable, "-m", "harness", *words], cwd=self.folder, env=os.environ | around,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def case(self, **keys: object) -> str:
        """The scattered script as a case; its path."""
        folder = self.folder / "cases" / "mine" / "scattered"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(_SCRIPT, folder / "train.py")
        top = {key: keys.pop(key) for key in ("METRICS",) if key in keys}
        command = {"train": _WORDS, "resume": [*_WORDS, "${CHECKPOINT_LOAD_PATH}"]}
        content = {
            "MODEL_ARGS": {"--train-iters": 40, "--save-interval": 20},
            "HARNESS": {"trainer": "command", "command": command, **keys}, **top,
        }  # fmt: skip
        (folder / "model_config.yaml").write_text(json.dumps(content))
        return str(folder)

    def native(self, name: str) -> Path:
        """A small case of the native trainer."""
        return Path(shutil.copytree(CASES / "gpt" / name, self.folder / "cases" / "gpt" / name))

    def run(self, case: str, *words: str, **env: str) -> tuple[int, str]:
        """One cell."""
        return self.harness("run", case, "--hardware", "cpu", "--track", "dev", *words, **env)

    def sound_then(self, lose: str, shape: str = "", **keys: object) -> tuple[int, str]:
        """A golden of the sound script; then one that loses something, in both protocols: the better end."""
        case = self.case(**keys)
        self.run(case, "--golden-update", SHAPE=shape, LOSE="end" if lose == "end" else "")
        found = [self.run(case, "--protocol", name, SHAPE=shape, LOSE=lose) for name in ("auto", "full")]
        return min(found)

    def golden(self, case: str) -> Path:
        """The golden's file."""
        return self.folder / "goldens" / case / _GOLDEN


Try = Callable[[Gate], tuple[int, str]]


@dataclass(frozen=True)
class GateFault:
    """One class.

    Args:
        number: goes on from the bank's.
        lost: what the gate did not see.
        said: what its output says now that it sees it.
        tried: gives the exit status, which must not be 0, and the output.
    """

    number: int
    lost: str
    said: str
    tried: Try


def _replica(gate: Gate) -> tuple[int, str]:
    """Two states that differ in a replica only have other digests, which is what ``fast`` compares."""
    import torch

    digests = []
    for second in (1.0, 2.0):
        folder = gate.folder / f"{second}"
        for rank, value in enumerate((1.0, second)):
            place = folder / f"mp_rank_{rank:02d}"
            place.mkdir(parents=True)
            tensors = {"model.norm.weight": torch.full((4,), value), "iteration": torch.tensor(7)}
            content = {"format": "native-torch-1", "tensors": tensors, "shards": {}, "aliases": {}}
            torch.save(content, place / "model_optim_rng.pt")
        _, shown = gate.harness("checkpoint", "show", str(folder), "--json")
        digests.append(json.loads(shown)["digests"])
    return int(digests[0] != digests[1]), "other digests" if digests[0] != digests[1] else ""


def _precision(gate: Gate) -> tuple[int, str]:
    folder = gate.native("dense_torch")
    gate.run(str(folder), "--golden-update")
    file = folder / "model_config.yaml"
    file.write_text(file.read_text().replace("MODEL_ARGS:", "MODEL_ARGS:\n  --bf16: true", 1))
    found = gate.run(str(folder))
    verdict = gate.folder / "results" / "cpu" / "dev" / "dense_torch" / "verdict.json"
    checks = json.loads(verdict.read_text())["checks"]
    judged = [check for check in checks if check["name"] == "golden: subject" and not check["passed"]]
    return (found[0], "golden: subject") if judged else (0, found[1])


def _stale(gate: Gate) -> tuple[int, str]:
    case = gate.case()
    gate.run(case, "--golden-update")
    gate.run(case)
    gate.golden("scattered").write_text("{}")
    gate.run(case)
    return gate.harness("alarm", "results", "--dry-run", GITHUB_TOKEN="")


def _unnamed(gate: Gate) -> tuple[int, str]:
    case = gate.case(METRICS=["loss"])
    gate.run(case, "--golden-update")
    golden = gate.golden("scattered")
    golden.write_text(golden.read_text().replace('"loss"', '"other"'))
    return gate.run(case)


def _crash(gate: Gate) -> tuple[int, str]:
    folder = str(gate.native("bf16_dp2"))
    gate.run(folder, "--golden-update")
    return gate.run(folder, "--protocol", "crash", "--crash-at", "before-tracker", "--crash-rank", "1")


def _losing(lose: str, shape: str = "", **keys: object) -> Try:
    return lambda gate: gate.sound_then(lose, shape, **keys)


_ROWS: tuple[tuple[str, str, Try], ...] = (
    ("a replica that differs, in the digests of `fast`", "other digests", _replica),
    ("a position under `args`", "args.consumed_train_samples", _losing("args")),
    ("an entry only in a side file", "sampler.yaml", _losing("side")),
    ("the optimizer of a case that is not deterministic", "m: ", _losing("momentum", deterministic=False)),
    ("the last 16 of 40 steps, in every run", "24 of 40", _losing("end", "last")),
    ("the precision that the golden was recorded for", "golden: subject", _precision),
    ("this night's run: the verdict is an older one", "refused", _stale),
    ("a file in a linked folder", "position.txt", _losing("linked")),
    ("an attribute of a tensor", "w.updates", _losing("attribute", "torch")),
    ("the low bits of a 64-bit digest in the log", "batch-digest", _losing("digest")),
    ("a metric that the case names and the golden lacks", "the case names it", _unnamed),
    ("a crash that leaves nothing to resume", "nothing was resumed", _crash),
)
GATE_FAULTS = tuple(GateFault(len(FAULTS) + 1 + i, *row) for i, row in enumerate(_ROWS))


def missed(fault: GateFault, checkout: Path | None = None) -> str:
    """Why the gate does not see a fault; empty when it does."""
    with tempfile.TemporaryDirectory() as folder:
        status, output = fault.tried(Gate(Path(folder), checkout))
    if status == 0:
        return "it passed"
    return "" if fault.said in output else f"{fault.said!r} is not said: {output[-400:]}"


def try_all(checkout: Path | None = None) -> list[str]:
    """Every one, a line each; the reasons of those that were missed."""
    reasons = []
    for fault in GATE_FAULTS:
        why = missed(fault, checkout)
        print(f"{fault.number}  {fault.lost}: {why or 'seen'}", flush=True)
        reasons += [why] if why else []
    return reasons


if __name__ == "__main__":
    sys.exit(bool(try_all(Path(sys.argv[1]).absolute() if sys.argv[1:] else None)))
