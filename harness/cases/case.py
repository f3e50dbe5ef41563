"""``model_config.yaml`` → :class:`Case`: validated at the border, immutable inside.

Megatron-LM's keys keep their meaning, and every scalar of its arguments stays the text of the file,
as its own scripts pass it on. What is ours is below one optional key, ``HARNESS``.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from harness.cases.arguments import Arguments
from harness.cases.file import kind_of, read_tree
from harness.errors import CaseError, UsageError
from harness.matrix import CASE_FILE, HARDWARE, NAME, cases_by_name

#: The keys of Megatron-LM's case files that are understood.
_KEYS = (
    "ENV_VARS", "MODEL_ARGS", "MODEL_ARGS_2", "TEST_TYPE", "MODE", "METRICS", "LAUNCHER",
    "TEST_EVALUATION", "BEFORE_SCRIPT", "AFTER_SCRIPT", "HARNESS",
)  # fmt: skip
#: Keys of theirs that say nothing about what the harness does; kept in :attr:`Case.others`.
_THEIRS = re.compile(r"[A-Z][A-Z0-9_]*")
#: Those of them that look like misspelt ones and are not.
_THEIRS_ALIKE = re.compile(r"BASE_MODEL_ARGS|MODEL_ENV_VARS|MODEL_ARGS_(?:[3-9]|[1-9][0-9]+)")
_OURS = ("trainer", "world_size", "profiles", "command", "deterministic")
_TRAINERS_BY_DEFAULT = {"cpu": "native", "default": "megatron"}
_LAUNCHERS = ("torchrun", "ft_launcher")
_ITERATIONS, _INTERVAL = "--train-iters", "--save-interval"
#: Variables by which a case of Megatron-LM says so; the second is spelt like that.
_NONDETERMINISTIC = ("NVTE_ALLOW_NONDETERMINISTIC_ALGO", "NON_DETERMINSTIC_RESULTS")
_PARALLEL = ("--tensor-model-parallel-size", "--pipeline-model-parallel-size", "--context-parallel-size")


@dataclass(frozen=True)
class Command:
    """Two argument lists of anybody's script; ``resume`` defaults to ``train``."""

    train: tuple[str, ...]
    resume: tuple[str, ...] = ()


@dataclass(frozen=True)
class HarnessKeys:
    """What is below ``HARNESS``.

    Args:
        trainer: by hardware, with ``default``.
        world_size: number of ranks; None: derived from the parallel sizes.
        profiles: arguments overlaid on MODEL_ARGS, by hardware.
        command: what the trainer ``command`` starts.
        deterministic: whether the same run has the same bits; None: as Megatron-LM's keys say.
    """

    trainer: Mapping[str, str] = field(default_factory=lambda: _TRAINERS_BY_DEFAULT)
    world_size: int | None = None
    profiles: Mapping[str, Arguments] = field(default_factory=dict)
    command: Command | None = None
    deterministic: bool | None = None


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

    def trainer(self, hardware: str) -> str:
        """The name of the trainer there."""
        by = self.harness.trainer
        return by.get(hardware) or by.get("default") or _TRAINERS_BY_DEFAULT["default"]

    def arguments(self, hardware: str, *, resumed: bool = False) -> Arguments:
        """The arguments there: MODEL_ARGS (MODEL_ARGS_2 of a resumed phase), then the profile's."""
        second = self.model_args_2 if resumed else None
        found = dict(self.model_args if second is None else second)
        for key, value in self.harness.profiles.get(hardware, {}).items():
            found.pop(key, None) if value is False else found.update({key: value})
        return found

    def world_size(self, hardware: str) -> int:
        """Number of ranks: ``HARNESS.world_size``, else the product of the parallel sizes."""
        if self.harness.world_size is not None:
            return self.harness.world_size
        arguments, size = self.arguments(hardware), 1
        for key in _PARALLEL:
            size *= self._number(arguments, key, 1)
        return size

    def train_iters(self, hardware: str) -> int:
        """N."""
        return self._number(self.arguments(hardware), _ITERATIONS, 100)

    def resume_at(self, hardware: str) -> int:
        """k: the last save at or before N/2 (N/2 where the case names no interval)."""
        n = self.train_iters(hardware)
        every = self._number(self.arguments(hardware), _INTERVAL, max(1, n // 2))
        return n // 2 // every * every

    def save_interval(self, hardware: str) -> int:
        """Iterations between two saves."""
        n = self.train_iters(hardware)
        return self._number(self.arguments(hardware), _INTERVAL, max(1, n // 2))

    def deterministic(self, hardware: str) -> bool:  # noqa: ARG002 - a profile may come to say so
        """Whether the same run is expected to have the same bits."""
        if self.harness.deterministic is not None:
            return self.harness.deterministic
        return all(self.env_vars.get(name, "0") != "1" for name in _NONDETERMINISTIC)

    def _number(self, arguments: Arguments, key: str, default: int) -> int:
        value = arguments.get(key, default)
        try:
            number = int(str(value))
        except ValueError:
            number = 0
        if number < 1:
            raise CaseError(
                f"{self.directory / CASE_FILE}: {key}: found {value!r}, expected a whole number above 0"
            )
        return number


# -- finding -----------------------------------------------------------------------------------


def find_case(what: str, folder: Path) -> Case:
    """The case called ``what`` below ``folder``, or at the path ``what``.

    Raises:
        UsageError: there is none.
        CaseError: its file is broken.
    """
    path = Path(what)
    # os.path: a name too long for a file is simply none.
    if "/" in what or os.path.isfile(path) or os.path.isfile(path / CASE_FILE):
        return load_case(path)
    if not NAME.fullmatch(what):
        raise UsageError(f"case {what!r}: cannot be the name of a case", "give a name or a path")
    found = cases_by_name(folder)
    if what not in found:
        near = difflib.get_close_matches(what, found, n=1)
        hint = f"did you mean {near[0]}?" if near else f"cases: {', '.join(sorted(found)[:8]) or 'none'}"
        raise UsageError(f"case {what!r}: is not in {folder}", hint)
    return load_case(found[what])


def load_case(path: Path) -> Case:
    """Read a case.

    Args:
        path: its folder, or its file.

    Raises:
        CaseError: the file, the key, what was found, what was expected.
    """
    file = (path / CASE_FILE if path.is_dir() else path).absolute()
    raw = read_tree(file)
    for key in raw:
        if key in _KEYS or _THEIRS_ALIKE.fullmatch(key):
            continue
        near = difflib.get_close_matches(key, _KEYS, n=1, cutoff=0.75)
        if near or not _THEIRS.fullmatch(key):
            raise CaseError(
                f"{file}: {key}: no such key is known",
                f"did you mean {near[0]}?" if near else f"keys: {', '.join(_KEYS)}",
            )
    reader = _Reader(file, raw)
    name, family = file.parent.name, file.parent.parent.name
    if not NAME.fullmatch(name):
        raise CaseError(f"{file}: its folder's name {name!r} cannot be the name of a case")
    launcher = reader.text("LAUNCHER", "torchrun")
    if launcher not in _LAUNCHERS:
        raise CaseError(f"{file}: LAUNCHER: found {launcher!r}, expected {' or '.join(_LAUNCHERS)}")
    return Case(
        name=name,
        family=family,
        directory=file.parent,
        env_vars=MappingProxyType(reader.texts("ENV_VARS")),
        model_args=reader.arguments("MODEL_ARGS", raw.get("MODEL_ARGS")),
        model_args_2=(
            reader.arguments("MODEL_ARGS_2", raw["MODEL_ARGS_2"]) if raw.get("MODEL_ARGS_2") else None
        ),
        test_type=reader.text("TEST_TYPE", "ckpt-resume"),
        mode=reader.text("MODE", "pretraining"),
        metrics=tuple(reader.list("METRICS", raw.get("METRICS"))),
        launcher=launcher,
        test_evaluation=reader.text("TEST_EVALUATION", ""),
        before_script=reader.text("BEFORE_SCRIPT", ""),
        after_script=reader.text("AFTER_SCRIPT", ""),
        harness=reader.harness(),
        others=tuple(key for key in raw if key not in _KEYS),
    )


# -- keys --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Reader:
    """Takes values out of a case's tree; every refusal names the file and the key."""

    file: Path
    raw: Mapping[str, Any]

    def wrong(self, key: str, value: object, expected: str) -> CaseError:
        return CaseError(f"{self.file}: {key}: found {kind_of(value)}, expected {expected}")

    def text(self, key: str, default: str) -> str:
        value = self.raw.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.wrong(key, value, "a text")
        return value

    def mapping(self, key: str, value: Any) -> Mapping[str, Any]:  # noqa: ANN401 - from a file
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.wrong(key, value, "a mapping")
        return value

    def list(self, key: str, value: Any) -> Sequence[str]:  # noqa: ANN401 - from a file
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.wrong(key, value, "a list of texts")
        return value

    def texts(self, key: str) -> dict[str, str]:
        found = {}
        for name, value in self.mapping(key, self.raw.get(key)).items():
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise CaseError(f"{self.file}: {key}: {name!r} cannot be the name of a variable")
            if isinstance(value, (dict, list)):
                raise self.wrong(f"{key}: {name}", value, "a text")
            found[name] = {None: "", True: "true", False: "false"}.get(value, value)
        return found

    def arguments(self, key: str, value: Any) -> Arguments:  # noqa: ANN401 - from a file
        found: dict[str, Any] = {}
        for name, given in self.mapping(key, value).items():
            if not re.fullmatch(r"--?[A-Za-z0-9][A-Za-z0-9._-]*", name):
                raise CaseError(f"{self.file}: {key}: {name!r} is no argument", "arguments begin with --")
            if isinstance(given, dict):
                raise self.wrong(f"{key}: {name}", given, "a value, true, or a list")
            found[name] = tuple(self.list(f"{key}: {name}", given)) if isinstance(given, list) else given
        return MappingProxyType(found)

    def harness(self) -> HarnessKeys:
        ours = self.mapping("HARNESS", self.raw.get("HARNESS"))
        self.known("HARNESS", ours, _OURS)
        trainer = ours.get("trainer")
        if isinstance(trainer, str):
            trainer = {"default": trainer}
        trainer = dict(self.mapping("HARNESS: trainer", trainer)) or dict(_TRAINERS_BY_DEFAULT)
        self.known("HARNESS: trainer", trainer, ("default", *HARDWARE))
        for hardware, name in trainer.items():
            if not isinstance(name, str):
                raise self.wrong(f"HARNESS: trainer: {hardware}", name, "the name of a trainer")
        profiles = self.mapping("HARNESS: profiles", ours.get("profiles"))
        self.known("HARNESS: profiles", profiles, tuple(HARDWARE))
        return HarnessKeys(
            trainer=MappingProxyType(trainer),
            world_size=self.world_size(ours.get("world_size")),
            profiles=MappingProxyType(
                {h: self.arguments(f"HARNESS: profiles: {h}", p) for h, p in profiles.items()}
            ),
            command=self.command(ours.get("command")),
            deterministic=self.boolean("HARNESS: deterministic", ours.get("deterministic")),
        )

    def known(self, where: str, found: Iterable[str], expected: Sequence[str]) -> None:
        for key in found:
            if key not in expected:
                near = difflib.get_close_matches(key, expected, n=1)
                hint = f"did you mean {near[0]}?" if near else f"expected {', '.join(expected)}"
                raise CaseError(f"{self.file}: {where}: {key}: no such key is known", hint)

    def world_size(self, value: Any) -> int | None:  # noqa: ANN401 - from a file
        if value is None:
            return None
        if not (isinstance(value, str) and value.isascii() and value.isdigit() and int(value) > 0):
            raise self.wrong("HARNESS: world_size", value, "a whole number above 0")
        return int(value)

    def boolean(self, key: str, value: Any) -> bool | None:  # noqa: ANN401 - from a file
        if value is not None and not isinstance(value, bool):
            raise self.wrong(key, value, "true or false")
        return value

    def command(self, value: Any) -> Command | None:  # noqa: ANN401 - from a file
        if value is None:
            return None
        found = self.mapping("HARNESS: command", value)
        self.known("HARNESS: command", found, ("train", "resume"))
        for key, words in found.items():
            if isinstance(words, str):
                raise self.wrong(
                    f"HARNESS: command: {key}", words, "a list of arguments (never a shell string)"
                )
        lists = {key: tuple(self.list(f"HARNESS: command: {key}", words)) for key, words in found.items()}
        if not lists.get("train"):
            raise CaseError(f"{self.file}: HARNESS: command: train is missing", "name what to start")
        return Command(lists["train"], lists.get("resume", ()))
