"""Anybody's script: two argument lists, and a folder to save into.

``HARNESS.command`` has ``train`` and ``resume``; ``${NAME}`` in them is replaced, and nothing goes
through a shell. docs/command-trainer.md has a script and a case file to start from.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from harness import LOG_VARIABLE
from harness.cases.arguments import substitute, variables
from harness.errors import CaseError, CheckpointError, UsageError
from harness.machine.environment import device, version_of
from harness.machine.hardware import cores
from harness.machine.secrets import is_secret
from harness.matrix import CASE_FILE
from harness.trainers.base import Launch, Phase, placeholders
from harness.trainers.command import checkpoint_names, killed
from harness.trainers.command.kept import whole_since
from harness.trainers.command.libraries import libraries
from harness.trainers.command.names import Saves
from harness.trainers.command.putting_back import put_back
from harness.trainers.command.remarks import in_repository, missing_script, remarks
from harness.trainers.command.rules import RULES

if TYPE_CHECKING:
    from harness.cases import Case
    from harness.checkpoints.rules import Rule
    from harness.trainers.killed import Left

_STOPS = ("${EXIT_ITERS}", "$EXIT_ITERS")
_SAVES = ("CHECKPOINT_SAVE_PATH", "OUTPUT_PATH")
#: Starts :mod:`harness.trainers.command.preemption` from wherever this package is; the script's own
#: folder and PYTHONPATH are none of its business.
_PREEMPT = "import sys; sys.path.insert(0, {root!r}); from harness.trainers.command.preemption import main; "
_PREEMPT += "sys.path.pop(0); sys.exit(main())"


#: What decides bits, as far as it can be told from outside.
_SWITCHES = ("ATEN_CPU_CAPABILITY", "MKL_CBWR", "CUBLAS_WORKSPACE_CONFIG", "NCCL_ALGO")


@dataclass(frozen=True)
class CommandTrainer:
    """What the case file says to start."""

    case: Case
    hardware: str

    name: ClassVar[str] = "command"
    can_rewind: ClassVar[bool] = False
    can_probe: ClassVar[bool] = False
    rules: ClassVar[tuple[Rule, ...]] = RULES
    probed: ClassVar[tuple[Rule, ...]] = ()
    remarks: ClassVar[tuple[str, ...]] = ()
    replicas: ClassVar[int] = 0
    unasked: ClassVar[bool] = True
    unlike: ClassVar[str] = ""
    measures: ClassVar[bool] = True

    def check(self) -> None:
        """Refuse a command or a script that is not there; raises CaseError and UsageError."""
        nowhere, case = Path(os.devnull), self.case
        n, k = case.train_iters(self.hardware), case.resume_at(self.hardware)
        for phase in (
            Phase("continuous", nowhere, nowhere, None, 0, n, n, k),
            Phase("resumed", nowhere, nowhere, nowhere, k, n, n, k),
        ):
            launch = self.launch(phase)
            program = launch.argv[0]
            inside = (launch.cwd or case.directory) / program if os.sep in program else None
            there = inside.is_file() if inside else shutil.which(program, path=launch.env["PATH"])
            if not there:
                raise CaseError(
                    f"{case.name}: HARNESS: command: {program} is not found",
                    "a relative path begins at the folder of the case file, or at cwd",
                )
            if not (launch.cwd or case.directory).is_dir():
                raise CaseError(f"{case.name}: HARNESS: command: cwd: {launch.cwd} is no folder")
            key = f"HARNESS: command: {'resume' if phase.load and _resumes_otherwise(case) else 'train'}"
            for missing in missing_script(key, launch.argv, launch.cwd or case.directory):
                raise UsageError(
                    f"{case.directory / CASE_FILE}: {missing.where}: {missing.message}", missing.advice
                )

    @property
    def resumes(self) -> bool:
        """Always: there is a command to resume with, and be it the same."""
        return True

    @property
    def world_size(self) -> int:
        """What the case says; how its command comes to so many processes is its own affair."""
        return self.case.harness.world_size or 1

    @property
    def ends_itself(self) -> bool:
        """Whether the command is told where to stop."""
        return stops_by_itself(self.case)

    def launch(self, phase: Phase) -> Launch:
        """The command of a phase, in the folder of its case file or in its ``cwd``; raises CaseError."""
        if phase.name == "probe":
            raise UsageError("a command cannot be asked to load and save without a step")
        case = self.case
        train, resume = _commands(case)
        given = {**os.environ, **placeholders(case, phase), "CHECKPOINT_TO_LOAD": _to_load(phase)}
        env = variables(case.env_vars, given)
        values = {**env, **given}
        argv = substitute(resume if phase.load else train, values)
        # ``python`` and ``torchrun`` are those of the environment that the harness runs in.
        path = env.get("PATH", os.environ.get("PATH", ""))
        env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{path}"
        env[LOG_VARIABLE] = str(phase.folder / "metrics.jsonl")
        if case.harness.metrics.stdout and "PYTHONUNBUFFERED" not in os.environ:
            # Else stdout and stderr tear each other's lines, and a script that is ended takes its last along.
            env.setdefault("PYTHONUNBUFFERED", "1")
        if phase.stop < phase.train_iters and not stops_by_itself(case):
            root = str(Path(__file__).resolve().parents[3])
            watched = phase.load if phase.load and _goes_on_where_it_loads(resume, case) else phase.save
            argv = [sys.executable, "-c", _PREEMPT.format(root=root),
                    str(watched), str(phase.stop), str(phase.train_iters), str(phase.save_interval),
                    str(phase.folder), "--", *argv]  # fmt: skip
        cwd = case.directory
        if case.harness.command and case.harness.command.cwd:
            cwd /= substitute([case.harness.command.cwd], values)[0]
        doubtful = [remark for remark in remarks(case, self.hardware) if not remark.wrong]
        notes = tuple(f"warning: {case.directory / CASE_FILE}: {remark}" for remark in doubtful)
        return Launch("exec", self.world_size, tuple(argv), env=env, cwd=cwd, notes=notes)

    def rewind(self, source: Phase, target: Path, k: int) -> None:
        """Copy what the interrupted run left, up to its checkpoint of ``k``; raises CheckpointError."""
        put_back(_saved_below(source), target, k, _saves(source))

    def kept(self, phase: Phase) -> tuple[int, ...]:
        """Those that nothing was overwritten of since; of an only one that is overwritten, the last."""
        return whole_since(_saved_below(phase), phase.stop, _saves(phase))

    def saved(self, phase: Phase, iteration: int, *, alone: bool = False) -> Path:
        """The checkpoint of ``iteration``; raises CheckpointError.

        A script that goes on in the folder it was resumed from has saved there.
        """
        save, saves = phase.save, _saves(phase)
        gathered = save.with_name(f".{save.name}.{iteration}{'.alone' if alone else ''}")
        try:
            return checkpoint_names.checkpoint(save, iteration, gathered, saves, alone=alone, also=phase.load)
        except CheckpointError:
            if phase.load is None or checkpoint_names.files(save):
                raise
            return checkpoint_names.checkpoint(phase.load, iteration, gathered, saves, alone=alone)

    def saved_until(
        self, folder: Path, k: int, *, after: Path | None = None
    ) -> frozenset[tuple[str, int, int]]:
        """As far as names speak of iterations."""
        n, interval = self.case.train_iters(self.hardware), self.case.save_interval(self.hardware)
        saves = Saves(interval, n if after else k)
        there = checkpoint_names.found(folder, k, saves, also=after)
        parts = [path for i, paths in there.items() if i <= k for path in paths]
        return frozenset(checkpoint_names.state_of(parts))

    def take_over(self, source: Phase, target: Path) -> None:
        """Copy what stands there: a script may write into what it finds."""
        killed.take_over(source.save, target)

    def left(self, phase: Phase, like: Phase) -> Left:
        """As far as names and formats tell."""
        return killed.left(phase.save, _uninterrupted(like))

    def saved_before(self, phase: Phase, iteration: int, like: Phase) -> Path:
        """By names, which count as those of ``like`` do; raises CheckpointError."""
        gathered = phase.save.with_name(f".{phase.save.name}.{iteration}.before")
        return checkpoint_names.checkpoint(
            phase.save, iteration, gathered, _saves(like), alone=True, also=like.save
        )

    def saving(self, phase: Phase, like: Phase) -> killed.FolderSaving:
        """As far as names tell what belongs to which iteration."""
        return killed.FolderSaving(phase.save, _uninterrupted(like))

    def code(self) -> Path:
        """The folder of the case, which a script usually lies beside."""
        return self.case.directory

    def provenance(self, phase: Phase) -> dict[str, object]:
        """What is known of the environment, and what the script wrote into ``provenance.json``.

        Raises:
            CaseError: the script wrote something else than a flat object.
        """
        found = _about(self.case, self.hardware)
        path = phase.folder / "provenance.json"
        if not path.is_file():
            return found
        try:
            own = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise CaseError(f"{path}: is not JSON: {error}") from error
        if not isinstance(own, dict):
            raise CaseError(f"{path}: found {type(own).__name__}, expected a JSON object")
        # Paths of this very run, and secrets, decide nothing and are nobody's affair.
        here = str(phase.folder.parent)
        return found | {
            key: value
            for key, value in own.items()
            if isinstance(value, (str, int, float)) and here not in str(value) and not is_secret(key)
        }


def _saved_below(phase: Phase) -> Path:
    """Where a phase has saved: one that goes on may do so in the folder that it was resumed from."""
    return phase.save if phase.load is None or checkpoint_names.files(phase.save) else phase.load


def _goes_on_where_it_loads(resume: Sequence[str], case: Case) -> bool:
    """Whether a resumed run is told of no other folder to save into than the one that it loads from."""
    return not any(mark in word for word in (*resume, *case.env_vars.values()) for mark in _SAVES)


def _to_load(phase: Phase) -> str:
    """The file or folder that is the checkpoint to go on from; of several, their folder."""
    if phase.load is None or not phase.load.is_dir():  # a run from 0; one that is not started
        return str(phase.load or phase.save)
    paths = checkpoint_names.found(phase.load, phase.start, Saves(phase.save_interval, phase.start)).get(
        phase.start, []
    )
    return str(paths[0] if len(paths) == 1 else phase.load)


def stops_by_itself(case: Case) -> bool:
    """Whether the command is told where to stop; if not, it is ended there."""
    train, _ = _commands(case)
    return any(mark in word for word in (*train, *case.env_vars.values()) for mark in _STOPS)


def _saves(phase: Phase) -> Saves:
    return Saves(phase.save_interval, phase.stop)


def _uninterrupted(phase: Phase) -> killed.Uninterrupted:
    return killed.Uninterrupted(phase.save, phase.stop, phase.save_interval)


def _resumes_otherwise(case: Case) -> bool:
    return case.harness.command is not None and bool(case.harness.command.resume)


def _commands(case: Case) -> tuple[Sequence[str], Sequence[str]]:
    command = case.harness.command
    if command is None:
        raise CaseError(
            f"{case.name}: HARNESS: command is missing",
            "trainer: command needs command: {train: [...], resume: [...]}",
        )
    return command.train, command.resume or command.train


def _about(case: Case, hardware: str) -> dict[str, object]:
    values = {**os.environ, **case.env_vars}
    train, _ = _commands(case)
    return {
        **libraries(*in_repository(train, case)),
        "threads": values.get("OMP_NUM_THREADS") or str(cores()),
        **{name.lower(): values.get(name, "") for name in _SWITCHES},
        "trainer": "command",
        "torch": version_of("torch"),
        "device": device(hardware),
        "layout": f"world {case.harness.world_size or 1}",
    }
