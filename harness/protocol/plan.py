"""What is going to be run: a cell found fit, or refused with one sentence."""

from __future__ import annotations

import itertools
import os
import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cases import Case, find_case
from harness.engines import Wanted, Where
from harness.errors import CaseError, UsageError
from harness.machine import environment, portable, signals
from harness.machine.hardware import require
from harness.matrix import HARDWARE, TRACKS, Cell
from harness.metrics.known import about
from harness.trainers import TRAINERS, trainer_of
from harness.trainers.base import Trainer

if TYPE_CHECKING:
    from harness.goldens import Golden

#: When the protocol ``crash`` kills: in the middle of training; while the files of a checkpoint are
#: being written; when they are there and the tracker does not name them yet; whenever a seed says.
CRASH_MOMENTS = ("between-steps", "saving", "before-tracker", "random")
_MOST_KILLS = 1000
#: Protocols that resume once, and those that resume at several iterations.
_ONE_STOP, MANY_STOPS = ("auto", "full", "fast", "reshard"), ("every", "chain")
_DIGITS, _MOST_STOPS = 9, 20  # of a number; the names of folders hold all stops of a chain


@dataclass(frozen=True)
class Options:
    """What a command line can say about a run.

    Args:
        protocol: one of :data:`harness.protocol.protocols.PROTOCOLS`; ``auto``: fast where it can be.
        golden_update: record the golden instead of comparing with it; the verdict is ``failed``.
        repeats: uninterrupted runs that a recorded golden's statistics come from.
        keep_checkpoints: also after a pass.
        heartbeat_timeout: seconds without an iteration after which a rank counts as hung.
        crash_at, crash_rank: the protocol ``crash``: the moment, and who is killed (``all``, ``any``: drawn,
            or a number).
        crash_times: how often; each time anew, and with other moments.
        crash_seed: of all that is drawn.
        trainer: who trains, instead of the one that the case names; empty: that one.
        resume_at: k, instead of the checkpoint in the middle; None: that one.
        stops: the protocols ``every`` and ``chain``: where to stop; empty: wherever there is a checkpoint.
        budget: seconds that those two may take; what would take longer is not begun. None: all of it.
        trials: seconds that resumes from altered checkpoints may take where resuming lost something; 0: none.
            None: three times what the run took, a minute at least.
        where: on this machine, or on the nodes of a cluster.
    """

    protocol: str = "auto"
    golden_update: bool = False
    repeats: int = 1
    keep_checkpoints: bool = False
    heartbeat_timeout: float | None = None
    crash_at: str = "between-steps"
    crash_rank: str = "all"
    crash_times: int = 1
    crash_seed: int = 0
    trainer: str = ""
    resume_at: int | None = None
    stops: tuple[int, ...] = ()
    budget: float | None = None
    trials: float | None = None
    where: Where = field(default_factory=Where)

    def __post_init__(self) -> None:
        self._check_stops()
        if self.repeats not in (1, *range(3, 101)) or (self.repeats > 1 and not self.golden_update):
            raise UsageError(f"--repeats {self.repeats}: expected 3 to 100, together with --golden-update")
        if self.heartbeat_timeout is not None and not 0 < self.heartbeat_timeout < 1e7:
            raise UsageError(f"--heartbeat-timeout {self.heartbeat_timeout}: expected seconds, above 0")
        if self.crash_at not in CRASH_MOMENTS:
            raise UsageError(f"--crash-at {self.crash_at}: expected {', '.join(CRASH_MOMENTS)}")
        if self.trainer and self.trainer not in TRAINERS:
            raise UsageError(f"--trainer {self.trainer}: expected {', '.join(TRAINERS)}")
        number = self.crash_rank.isascii() and self.crash_rank.isdigit()
        if self.crash_rank not in ("all", "any") and not number:
            raise UsageError(f"--crash-rank {self.crash_rank}: expected all, any, or the number of a rank")
        if not 1 <= self.crash_times <= _MOST_KILLS:
            raise UsageError(f"--crash-times {self.crash_times}: expected 1 to {_MOST_KILLS}")
        if not 0 <= self.crash_seed < 1 << 63:
            raise UsageError(f"--crash-seed {self.crash_seed}: expected a whole number, 0 or above")
        if self.where.engine != "local" and self.protocol == "crash":
            raise UsageError(
                "--protocol crash: found --engine slurm, expected local: it kills processes here"
            )

    def _check_stops(self) -> None:
        """What is said of where to stop must be looked at by the protocol, or nobody would."""
        if self.resume_at is not None and self.protocol not in _ONE_STOP:
            raise UsageError(
                f"--resume-at: found --protocol {self.protocol}, expected {', '.join(_ONE_STOP)}",
                "--stops says where the protocols every and chain stop",
            )
        for option, given in (("--stops", self.stops), ("--budget", self.budget is not None)):
            if given and self.protocol not in MANY_STOPS:
                said = f"{option}: found --protocol {self.protocol}, expected {' or '.join(MANY_STOPS)}"
                raise UsageError(said, "name the protocol too")
        if self.budget is not None and not 0 <= self.budget < 1e9:
            raise UsageError(f"--budget {self.budget}: expected seconds")
        if self.trials is not None and not 0 <= self.trials < 1e9:
            raise UsageError(f"--trials {self.trials}: expected seconds, 0 for none")

    @property
    def words(self) -> list[str]:
        """What of them a command line has to say again, of the protocol and of who trains."""
        said = [] if self.protocol == "auto" else ["--protocol", self.protocol]
        said += ["--trainer", self.trainer] if self.trainer else []
        if self.resume_at is not None:
            said += ["--resume-at", str(self.resume_at)]
        if self.stops:
            said += ["--stops", ",".join(map(str, self.stops))]
        said += [] if self.budget is None else ["--budget", f"{self.budget:g}"]
        said += [] if self.trials is None else ["--trials", f"{self.trials:g}"]
        said += self.where.words
        return said + (self.crash_words if self.protocol == "crash" else [])

    @property
    def crash_words(self) -> list[str]:
        """The same, of which kills; a seed only where something is drawn."""
        words = ["--crash-at", self.crash_at, "--crash-rank", self.crash_rank]
        words += ["--crash-times", str(self.crash_times)] if self.crash_times > 1 else []
        drawn = self.crash_at == "random" or self.crash_rank == "any" or self.crash_times > 1
        return words + (["--crash-seed", str(self.crash_seed)] if drawn else [])


def stops_of(text: str) -> tuple[int, ...]:
    """``4,8`` as iterations; raises UsageError."""
    parts = [part.strip() for part in text.split(",")] if text else []
    if any(not (part.isascii() and part.isdigit() and len(part) <= _DIGITS) for part in parts):
        raise UsageError(f"--stops {text}: expected iterations with commas between them, as in 4,8")
    stops = tuple(map(int, parts))
    if any(after <= before for before, after in itertools.pairwise((0, *stops))):
        raise UsageError(f"--stops {text}: expected iterations above 0, each above the one before")
    if len(stops) > _MOST_STOPS:
        raise UsageError(f"--stops: found {len(stops)} iterations, expected {_MOST_STOPS} at most")
    return stops


@dataclass(frozen=True)
class Plan:
    """A cell that has been found fit to run: everything that can be refused before has not been.

    Args:
        golden: what to compare with; None when there is none, or when it is to be recorded.
        n: iterations in all.
        k: the iteration to resume after.
        save_interval: iterations between two saves.
    """

    cell: Cell
    case: Case
    trainer: Trainer
    golden: Golden | None
    goldens: Path
    results: Path
    n: int
    k: int
    save_interval: int
    options: Options

    @property
    def world_size(self) -> int:
        """Ranks."""
        return self.trainer.world_size

    @property
    def nodes(self) -> int:
        """That each phase runs on."""
        return self.case.harness.nodes if self.options.where.engine != "local" else 1

    @property
    def wanted(self) -> Wanted:
        """What it asks of an engine."""
        # Of one that cannot be put back to k, the uninterrupted run has saved at k too.
        apart = 2 if self.trainer.can_rewind else 3
        return Wanted(self.options.where, self.nodes, self.world_size, self.cell.hardware, apart)

    @property
    def resumes(self) -> bool:
        """Whether there is a resumed phase (a ``regular`` test of Megatron-LM has none)."""
        return self.trainer.resumes

    @property
    def rewinds(self) -> bool:
        """Whether the uninterrupted run's folder can be put back to k: it saves there, and keeps it."""
        return self.trainer.can_rewind and self.k % self.save_interval == 0

    @property
    def platform(self) -> str:
        """The golden's name for this hardware."""
        return self.case.platform(self.cell.hardware)

    @property
    def deterministic(self) -> bool:
        """Whether the same run has the same bits."""
        return self.case.deterministic(self.cell.hardware)

    @property
    def layouts_differ(self) -> bool:
        """Whether the resumed phase has other parallel sizes than the first."""
        first, second = (self.case.arguments(self.cell.hardware, resumed=r) for r in (False, True))
        sizes = [key for key in {*first, *second} if "parallel-size" in key or "virtual" in key]
        return any(str(first.get(key, 1)) != str(second.get(key, 1)) for key in sizes)

    def expects_exact(self) -> bool:
        """Whether all of the golden is going to be compared bit for bit, as far as can be told before a run.

        One without state digests is not, and of one that is another training's the reference is wanted.

        A wrong guess costs time and nothing else: the lane is chosen by the fingerprint of the run.
        """
        from harness.goldens import subject_apart, subject_of

        golden = self.golden
        if golden is None or golden.fallback or not self.deterministic or self.layouts_differ:
            return False
        if not golden.has_state or subject_apart(golden.subject, subject_of(self.case, self.cell.hardware)):
            return False
        recorded, hardware = golden.fingerprint, self.cell.hardware
        if recorded.get("torch") != environment.version_of("torch"):
            return False
        if recorded.get("numerics") and hardware == "cpu":
            return recorded.get("cpu_switches") == portable.effective(os.environ, self.case.env_vars)
        return bool(recorded.get("device") == environment.device(hardware))

    @property
    def reproduce(self) -> str:
        """The one command line that runs this cell again."""
        return self._command(self._options())

    @property
    def record_command(self) -> str:
        """The one that records its golden."""
        return self._command([*self._trainer(), "--golden-update"])

    @property
    def sensitivity_command(self) -> str:
        """The one that tries what the resumed run depends on."""
        return self._harness("sensitivity", self._trainer())

    def _trainer(self) -> list[str]:
        return ["--trainer", self.options.trainer] if self.options.trainer else []

    def _options(self) -> list[str]:
        return self.options.words

    def _command(self, options: list[str]) -> str:
        cell = self.cell
        if os.environ.get("NOX_CURRENT_SESSION", "").startswith("case("):
            session = f"case({cell.hardware})({cell.track},{cell.case})"
            return f'nox -s "{session}"' + (f" -- {shlex.join(options)}" if options else "")
        return self._harness("run", options)

    def _harness(self, command: str, options: list[str]) -> str:
        cell = self.cell
        words = ["harness", command, _shown(self.case.directory), "--hardware", cell.hardware]
        words += ["--track", cell.track, *options]
        if self.trainer.name == "megatron" and os.environ.get("MEGATRON_LM_PATH"):
            words += ["--megatron-lm", os.environ["MEGATRON_LM_PATH"]]
        for name, folder in (("goldens", self.goldens), ("results", self.results)):
            if folder != Path(name):
                words += [f"--{name}", _shown(folder)]
        return shlex.join(words)


def refuse_stop(stop: int, trainer: Trainer, n: int, interval: int, option: str) -> None:
    """Raise UsageError where there can be no checkpoint of ``stop`` to resume from."""
    if not 0 < stop < n:
        raise UsageError(f"{option} {stop}: expected iterations above 0 and below {n}, the last one")
    if stop % interval and not trainer.ends_itself:
        raise UsageError(
            f"{option} {stop}: the command saves every {interval} iterations, and is not told where to stop",
            f"take a multiple of {interval}, or let it stop after ${{EXIT_ITERS}} iterations",
        )


def prepare(
    cell: Cell, *, case: Case | None, cases: Path, goldens: Path, results: Path, options: Options
) -> Plan:
    """Refuse what cannot be run; otherwise say how.

    Raises:
        UsageError, CaseError, GoldenError, HardwareMissing: with what was found and expected.
    """
    from harness.goldens import resolve

    for kind, name, table in (("hardware", cell.hardware, HARDWARE), ("track", cell.track, TRACKS)):
        if name not in table:
            raise UsageError(f"{kind} {name!r}: expected one of {', '.join(table)}")
    case = case or find_case(cell.case, cases)
    hardware = cell.hardware
    signals.check()
    if options.trainer:
        case = case.trained_by(options.trainer, hardware)
    case = _on_nodes(case, options.where)
    trainer = trainer_of(case, hardware)
    if not trainer.measures:
        case = replace(case, metrics=tuple(name for name in case.metrics if not about(name).cost))
    trainer.check()
    n, k = case.train_iters(hardware), case.resume_at(hardware)
    if options.resume_at is not None:
        k = options.resume_at
        refuse_stop(k, trainer, n, case.save_interval(hardware), "--resume-at")
    if trainer.resumes and not 0 < k < n:
        raise CaseError(
            f"{case.name}: --train-iters {n} and --save-interval {case.save_interval(hardware)} leave no "
            f"checkpoint at or before iteration {n // 2} to resume from",
            "save at N/2",
        )
    if options.golden_update:
        _require_track(cell.track, trainer)
    # What is broken in the repository is told before what is missing on the machine.
    platform = case.platform(hardware)
    golden = None if options.golden_update else resolve(goldens, case.name, cell.track, platform)
    if options.where.engine == "local":  # a cluster is asked once it has given its nodes
        if case.harness.nodes > 1 and trainer.name != "native":
            raise UsageError(
                f"{case.name}: HARNESS: nodes: {case.harness.nodes}, and this is one machine",
                "run it with --engine slurm, or take the key away",
            )
        require(hardware, trainer.world_size)
    return Plan(
        cell=cell, case=case, trainer=trainer, golden=golden, goldens=goldens, results=results, n=n, k=k,
        save_interval=case.save_interval(hardware), options=options,
    )  # fmt: skip


def _on_nodes(case: Case, where: Where) -> Case:
    """The case with as many nodes as the command line says."""
    if where.nodes is None:
        return case
    return replace(case, harness=replace(case.harness, nodes=where.nodes))


def _require_track(track: str, trainer: Trainer) -> None:
    """A golden recorded with another torch than its track's would be compared with for years."""
    if trainer.name != "native":
        return
    found = environment.version_of("torch")
    if TRACKS[track].torch not in ("", found):
        raise UsageError(
            f"track {track} is torch {TRACKS[track].torch}, and torch {found} is installed here",
            "record its goldens through nox, which makes the track's environment",
        )


def _shown(path: Path) -> str:
    """Relative to here where that is shorter."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
