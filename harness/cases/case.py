"""``model_config.yaml`` → :class:`Case`: validated at the border, immutable inside.

Megatron-LM's keys keep their meaning, and every scalar of its arguments stays the text of the file,
as its own scripts pass it on. What is ours is below one optional key, ``HARNESS``.
"""

from __future__ import annotations

import contextlib
import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from harness.cases.arguments import Arguments, substitute, variables
from harness.errors import CaseError, UsageError
from harness.matrix import CASE_FILE, HARDWARE, MEGATRON_ON_CPU, NAME, cases_by_name
from harness.repository import from_the_root

if TYPE_CHECKING:
    from harness.cases import keys

_TRAINERS_BY_DEFAULT = {"cpu": "native", "default": "megatron"}
_ITERATIONS, _INTERVAL = "--train-iters", "--save-interval"
#: By which a case asks its scripts for four iterations, saved at the second, instead of all of them.
_LIGHTWEIGHT = "ENABLE_LIGHTWEIGHT_MODE"
_LIGHT_N, _LIGHT_EVERY = 4, 2
#: NeMo's own argument for the iterations: its cases have Hydra's arguments, and no ``--train-iters``.
_NEMO = "trainer.max_steps"
#: Variables by which a case of Megatron-LM says so; the second is spelt like that.
_NONDETERMINISTIC = ("NVTE_ALLOW_NONDETERMINISTIC_ALGO", "NON_DETERMINSTIC_RESULTS")
_PARALLEL = ("--tensor-model-parallel-size", "--pipeline-model-parallel-size", "--context-parallel-size")


@dataclass(frozen=True)
class Command:
    """Anybody's script: two argument lists, and where both start; ``resume`` defaults to ``train``."""

    train: tuple[str, ...]
    resume: tuple[str, ...] = ()
    cwd: str = ""


@dataclass(frozen=True)
class Ignored:
    """Entries of a checkpoint that are no state, by patterns as a shell has them; ``file`` may be empty."""

    entry: str
    file: str
    reason: str


@dataclass(frozen=True)
class CheckpointKeys:
    """How saved state is compared; ``ignore`` says what of it is no state."""

    ignore: tuple[Ignored, ...] = ()


@dataclass(frozen=True)
class MetricsKeys:
    """Where metrics are, beside event files and JSON lines; ``stdout``: expressions of printed lines."""

    stdout: tuple[str, ...] = ()


@dataclass(frozen=True)
class HarnessKeys:
    """What is below ``HARNESS``.

    Args:
        trainer: by hardware, with ``default``.
        world_size: number of ranks; None: derived from the parallel sizes.
        nodes: of a cluster, that each phase runs on.
        profiles: arguments overlaid on MODEL_ARGS, by hardware; ``cpu-megatron``: of Megatron-LM on a CPU.
        command: what the trainer ``command`` starts.
        deterministic: whether the same run has the same bits; None: as Megatron-LM's keys say.
        checkpoint: how saved state is compared.
        metrics: where they are: ``stdout`` has the regular expressions of the lines that a command prints.
    """

    trainer: Mapping[str, str] = field(default_factory=lambda: _TRAINERS_BY_DEFAULT)
    world_size: int | None = None
    nodes: int = 1
    profiles: Mapping[str, Arguments] = field(default_factory=dict)
    command: Command | None = None
    deterministic: bool | None = None
    checkpoint: CheckpointKeys = CheckpointKeys()
    metrics: MetricsKeys = MetricsKeys()


@dataclass(frozen=True)
class Case:
    """One training configuration.

    Args:
        name: its folder's name; unique over all families.
        family: the folder above.
        directory: its folder; absolute.
        env_vars: variables for every rank.
        model_args: arguments; a value is text, True (a bare flag), or a tuple of texts.
        model_args_2: the resumed phase's arguments where they are others; None: the same.
        metrics: the metrics that are compared; empty: all that the golden has.
        before_script, after_script: shell of Megatron-LM's; empty for none.
        others: keys of Megatron-LM's that mean nothing to the harness.
        warnings: what of its file may not be meant so, a sentence each.
    """

    name: str
    family: str
    directory: Path
    env_vars: Mapping[str, str]
    model_args: Arguments
    model_args_2: Arguments | None
    test_type: str
    mode: str
    metrics: tuple[str, ...]
    launcher: str
    test_evaluation: str
    before_script: str
    after_script: str
    harness: HarnessKeys
    others: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def trainer(self, hardware: str) -> str:
        """The name of the trainer there."""
        by = self.harness.trainer
        return by.get(hardware) or by.get("default") or _TRAINERS_BY_DEFAULT["default"]

    def trained_by(self, trainer: str, hardware: str) -> Case:
        """The same case with another trainer there."""
        trainers = MappingProxyType({**self.harness.trainer, hardware: trainer})
        return replace(self, harness=replace(self.harness, trainer=trainers))

    def platform(self, hardware: str) -> str:
        """The platform of its golden there; Megatron-LM on a CPU has one of its own, and no native golden."""
        on_cpu = hardware == "cpu" and self.trainer(hardware) == "megatron"
        return MEGATRON_ON_CPU if on_cpu else HARDWARE[hardware].platform

    def arguments(self, hardware: str, *, resumed: bool = False) -> Arguments:
        """The arguments there: MODEL_ARGS (MODEL_ARGS_2 of a resumed phase), then the profile's."""
        second = self.model_args_2 if resumed else None
        found = dict(self.model_args if second is None else second)
        for key, value in self._profile(hardware).items():
            found.pop(key, None) if value is False else found.update({key: value})
        return found

    def _profile(self, hardware: str) -> Arguments:
        profiles = self.harness.profiles
        if hardware == "cpu" and self.trainer(hardware) == "megatron" and MEGATRON_ON_CPU in profiles:
            return profiles[MEGATRON_ON_CPU]
        return profiles.get(hardware, {})

    def world_size(self, hardware: str) -> int:
        """Number of ranks: ``HARNESS.world_size``, else the product of the parallel sizes."""
        if self.harness.world_size is not None:
            return self.harness.world_size
        arguments, size = self.arguments(hardware), 1
        for key in _PARALLEL:
            size *= self._number(arguments, key, 1)
        return size

    @property
    def lightweight(self) -> bool:
        """Whether Megatron-LM's scripts end it after four iterations: ``ENABLE_LIGHTWEIGHT_MODE: true``."""
        return (
            self.env_vars.get(_LIGHTWEIGHT) == "true"
            and self.mode == "pretraining"
            and self.test_type != "release"
            and not self.starts_nemo
        )

    @property
    def starts_nemo(self) -> bool:
        """Whether Megatron-LM's scripts start NeMo with it, and no script of their own."""
        return _NEMO in self.model_args

    def train_iters(self, hardware: str) -> int:
        """N: all of ``--train-iters``, unless Megatron-LM's scripts end it before."""
        n = self._number(self.arguments(hardware), _ITERATIONS, 100)
        return min(n, _LIGHT_N) if self._is_light(hardware) else n

    def resume_at(self, hardware: str) -> int:
        """k: the last save at or before N/2 (N/2 where the case names no interval)."""
        n, every = self.train_iters(hardware), self.save_interval(hardware)
        return n // 2 // every * every

    def save_interval(self, hardware: str) -> int:
        """Iterations between two saves."""
        n = self.train_iters(hardware)
        if self._is_light(hardware):
            return min(_LIGHT_EVERY, max(1, n // 2))
        return self._number(self.arguments(hardware), _INTERVAL, max(1, n // 2))

    def _is_light(self, hardware: str) -> bool:
        return self.lightweight and self.trainer(hardware) == "megatron"

    def deterministic(self, hardware: str) -> bool:  # noqa: ARG002 - a profile may come to say so
        """Whether the same run is expected to have the same bits."""
        if self.harness.deterministic is not None:
            return self.harness.deterministic
        return all(self.env_vars.get(name, "0") != "1" for name in _NONDETERMINISTIC)

    def parallel_size(self, hardware: str, kind: str, default: int = 1, *, resumed: bool = False) -> int:
        """``--<kind>-parallel-size`` there.

        Raises:
            CaseError: it is no whole number above 0.
        """
        arguments = self.arguments(hardware, resumed=resumed)
        return self._number(arguments, f"--{kind}-parallel-size", default)

    def _number(self, arguments: Arguments, key: str, default: int) -> int:
        value = arguments.get(key, default)
        try:
            number = int(self._meant(str(value)))
        except ValueError:
            number = 0
        if number < 1:
            raise CaseError(
                f"{self.directory / CASE_FILE}: {key}: found {value!r}, expected a whole number above 0"
            )
        return number

    def _meant(self, text: str) -> str:
        """A text with what its ENV_VARS and the environment say; itself where a name has no value."""
        if "$" not in text:
            return text
        with contextlib.suppress(CaseError):
            return substitute([text], {**variables(self.env_vars, os.environ), **os.environ})[0]
        return text


# -- finding -----------------------------------------------------------------------------------


def find_case(what: str, folder: Path) -> Case:
    """The case called ``what`` below ``folder``, or at the path ``what``.

    Raises:
        UsageError: there is none.
        CaseError: its file is broken.
    """
    if _is_path(what):
        return load_case(Path(what))
    if not NAME.fullmatch(what):
        raise UsageError(f"case {what!r}: cannot be the name of a case", "give a name or a path")
    found = cases_by_name(folder)
    if what not in found:
        near = difflib.get_close_matches(what, found, n=1)
        hint = f"did you mean {near[0]}?" if near else f"cases: {', '.join(sorted(found)[:8]) or 'none'}"
        hint = from_the_root(folder) or hint
        raise UsageError(f"case {what!r}: is not in {folder}", hint)
    return load_case(found[what])


def case_name(what: str) -> str:
    """The name of the case that :func:`find_case` would look for; it need not be there."""
    if not _is_path(what):
        return what
    path = Path(what)
    is_file = os.path.isfile(path) or (path.suffix in (".yaml", ".yml") and not os.path.isdir(path))
    return path.absolute().parent.name if is_file else path.absolute().name


def case_is_there(what: str) -> bool:
    """Whether it is a name, or the path of something that should be a case."""
    path = Path(what)
    return not _is_path(what) or os.path.isfile(path) or os.path.lexists(path / CASE_FILE)


def _is_path(what: str) -> bool:
    # os.path: a name too long for a file is simply none.
    return "/" in what or os.path.isfile(what) or os.path.isfile(Path(what) / CASE_FILE)


def load_case(path: Path) -> Case:
    """Read a case.

    Args:
        path: its folder, or its file.

    Raises:
        CaseError: the file, the key, what was found, what was expected.
    """
    file = (path / CASE_FILE if path.is_dir() else path).absolute()
    from harness.cases.keys import read_keys

    found, others, warnings = read_keys(file)
    name, family = file.parent.name, file.parent.parent.name
    if not NAME.fullmatch(name):
        raise CaseError(f"{file}: its folder's name {name!r} cannot be the name of a case")
    return Case(
        name=name,
        family=family,
        directory=file.parent,
        env_vars=MappingProxyType({key: _variable(value) for key, value in (found.env_vars or {}).items()}),
        model_args=_arguments(found.model_args),
        model_args_2=_arguments(found.model_args_2) if found.model_args_2 else None,
        test_type=_text(found.test_type, "ckpt-resume"),
        mode=_text(found.mode, "pretraining"),
        metrics=_words(found.metrics),
        launcher=_text(found.launcher, "torchrun"),
        test_evaluation=_text(found.test_evaluation, ""),
        before_script=_text(found.before_script, ""),
        after_script=_text(found.after_script, ""),
        harness=_ours(file, found.harness) if found.harness else HarnessKeys(),
        others=others,
        warnings=warnings,
    )


def _ours(file: Path, found: keys.Harness) -> HarnessKeys:
    import msgspec

    from harness.cases.keys import by_key

    trainer = found.trainer
    by = by_key(trainer) if isinstance(trainer, msgspec.Struct) else {"default": trainer}
    trainers = {hardware: name for hardware, name in by.items() if isinstance(name, str)}
    profiles = by_key(found.profiles) if found.profiles else {}
    command = None
    if found.command:
        command = Command(
            _words(found.command.train), _words(found.command.resume), _text(found.command.cwd, "")
        )
        if not command.train:
            raise CaseError(f"{file}: HARNESS: command: train is missing", "name what to start")
    return HarnessKeys(
        trainer=MappingProxyType(trainers or _TRAINERS_BY_DEFAULT),
        world_size=None if found.world_size is None else int(found.world_size),
        nodes=1 if found.nodes is None else int(found.nodes),
        profiles=MappingProxyType(
            {hardware: _arguments(one) for hardware, one in profiles.items() if one is not None}
        ),
        command=command,
        deterministic=found.deterministic,
        checkpoint=CheckpointKeys(_ignored(file, found.checkpoint) if found.checkpoint else ()),
        metrics=MetricsKeys(_printed(file, found.metrics, trainers) if found.metrics else ()),
    )


def _ignored(file: Path, found: keys.Checkpoint) -> tuple[Ignored, ...]:
    rules = []
    for place, rule in enumerate(found.ignore):
        if not (rule.entry or rule.file):
            raise CaseError(
                f"{file}: HARNESS: checkpoint: ignore[{place}]: names neither an entry nor a file",
                "a rule leaves out something by name; nothing leaves out everything",
            )
        rules.append(Ignored(rule.entry or "*", rule.file or "", rule.reason))
    return tuple(rules)


def _printed(file: Path, found: keys.Metrics, trainers: Mapping[str, str]) -> tuple[str, ...]:
    from harness.expressions import Expression

    where = f"{file}: HARNESS: metrics: stdout"
    if "command" not in trainers.values():
        named = ", ".join(sorted(set((trainers or _TRAINERS_BY_DEFAULT).values())))
        raise CaseError(
            f"{where}: found with the trainer {named}, expected with command",
            "the others log event files: take the key out, or say trainer: command",
        )
    several = isinstance(found.stdout, list)
    texts = _words(found.stdout if isinstance(found.stdout, list) else [found.stdout])
    if not texts:
        raise CaseError(f"{where}: found an empty list, expected a regular expression", "or take the key out")
    for place, text in enumerate(texts):
        try:
            Expression.of(text)
        except ValueError as error:
            raise CaseError(
                f"{where}{f'[{place}]' if several else ''}: {error}",
                "for example 'step (?P<step>\\d+) loss (?P<loss>[-+.\\deE]+)'",
            ) from None
    return texts


def _text(value: object, default: str) -> str:
    return default if value is None else str(value)


def _words(values: Iterable[object] | None) -> tuple[str, ...]:
    return tuple(map(str, values or ()))


def _variable(value: object) -> str:
    """As a shell of Megatron-LM's would have it."""
    return str(value).lower() if isinstance(value, bool) else _text(value, "")


def _arguments(found: Mapping[str, Any] | None) -> Arguments:
    return MappingProxyType(
        {name: tuple(value) if isinstance(value, list) else value for name, value in (found or {}).items()}
    )
