"""``model_config.yaml`` → :class:`Case`: validated at the border, immutable inside.

Megatron-LM's keys keep their meaning, and every scalar of its arguments stays the text of the file,
as its own scripts pass it on. What is ours is below one optional key, ``HARNESS``.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

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
_PLACEHOLDER = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\$([A-Za-z_][A-Za-z0-9_]*)")
_IN_BRACKETS = re.compile(r"\[[^\]]+\]")
_SIZE_LIMIT = 1 << 20  # bytes; the largest case file in the wild has 7 kB
_NODES_LIMIT = 20_000  # of a YAML tree, aliases counted as often as they are used
_ITERATIONS, _INTERVAL = "--train-iters", "--save-interval"
#: Variables by which a case of Megatron-LM says so; the second is spelt like that.
_NONDETERMINISTIC = ("NVTE_ALLOW_NONDETERMINISTIC_ALGO", "NON_DETERMINSTIC_RESULTS")
_PARALLEL = ("--tensor-model-parallel-size", "--pipeline-model-parallel-size", "--context-parallel-size")

Arguments = Mapping[str, Any]


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
    raw = _read(file)
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


# -- reading -----------------------------------------------------------------------------------


def _read(file: Path) -> dict[str, Any]:
    import yaml

    try:
        size = file.stat().st_size
        if not file.is_file():
            raise CaseError(f"{file}: is no regular file, expected a case")
        if size > _SIZE_LIMIT:
            raise CaseError(f"{file}: has {size >> 20} MiB, which is not read (limit: 1 MiB)")
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CaseError(f"{file}: is not there, expected a case", "check the path") from None
    except UnicodeDecodeError as error:
        raise CaseError(f"{file}: is not UTF-8 text: {error.reason}") from error
    except OSError as error:
        raise CaseError(f"{file}: cannot be read: {error.strerror or error}") from error
    try:
        node = yaml.compose(text, Loader=yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader)
        found = _plain(file, node, [_NODES_LIMIT])
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise CaseError(f"{file}: {where}is not YAML: {getattr(error, 'problem', error)}") from error
    except RecursionError:
        raise CaseError(f"{file}: is nested too deeply to be read") from None
    if not isinstance(found, dict) or not found:
        raise CaseError(f"{file}: holds {_what(found)}, expected keys such as MODEL_ARGS")
    return found


def _plain(file: Path, node: Any, left: list[int]) -> Any:  # noqa: ANN401 - a YAML node
    """A YAML tree as dicts, lists and texts: a scalar stays the text of the file, ``''`` for null.

    ``True`` and ``False`` for plain ``true`` and ``false``. Aliases are followed as often as they
    are used, and counted, so that a small file cannot become a big tree.
    """
    import yaml

    left[0] -= 1
    if left[0] < 0:
        raise CaseError(f"{file}: its aliases unfold to more than {_NODES_LIMIT} values")
    if node is None:
        return None
    if isinstance(node, yaml.ScalarNode):
        # "on" and "yes" are words to Megatron-LM's yq (YAML 1.2), and booleans to PyYAML (1.1).
        if node.tag.endswith(":bool") and str(node.value).lower() in ("true", "false"):
            return str(node.value).lower() == "true"
        return None if node.tag.endswith(":null") else str(node.value)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(file, child, left) for child in node.value]
    found: dict[str, Any] = {}
    merged: dict[str, Any] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if key.tag.endswith(":merge"):
            for base in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                mapping = _plain(file, base, left)
                if not isinstance(mapping, dict):
                    raise CaseError(f"{file}: line {line}: << merges {_what(mapping)}, expected a mapping")
                merged = {**mapping, **merged}
            continue
        name = _plain(file, key, left)
        if not isinstance(name, str):
            raise CaseError(f"{file}: line {line}: a key is {_what(name)}, expected text")
        if name in found:
            raise CaseError(f"{file}: line {line}: {name} stands in it twice", "remove one of them")
        found[name] = _plain(file, value, left)
    return {**merged, **found}


def _what(value: object) -> str:
    kinds = {dict: "a mapping", list: "a list", type(None): "nothing", bool: "a boolean"}
    return kinds.get(type(value), f"the text {str(value)[:40]!r}")


@dataclass(frozen=True)
class _Reader:
    """Takes values out of a case's tree; every refusal names the file and the key."""

    file: Path
    raw: Mapping[str, Any]

    def wrong(self, key: str, value: object, expected: str) -> CaseError:
        return CaseError(f"{self.file}: {key}: found {_what(value)}, expected {expected}")

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


# -- arguments ---------------------------------------------------------------------------------


def to_argv(arguments: Arguments) -> list[str]:
    """Arguments as words, as Megatron-LM's scripts make them.

    ``true`` is a bare flag, ``false`` (ours, for profiles) and an empty text leave the argument out,
    ``[a b]`` is split. Any other text stays one word, without the quotes that may be inside it.
    """
    words: list[str] = []
    for key, value in arguments.items():
        if value is False or value == "":
            continue
        words.append(key)
        if isinstance(value, tuple):
            words += value
        elif isinstance(value, str):
            words += _split(value)
    return words


def _split(text: str) -> list[str]:
    """One argument's text as words; none for a flag."""
    with contextlib.suppress(ValueError):  # quotes that do not match are kept
        text = " ".join(shlex.split(text))
    if text == "true":
        return []
    return text[1:-1].split() if _IN_BRACKETS.fullmatch(text) else [text]


def substitute(words: Iterable[str], values: Mapping[str, str]) -> list[str]:
    """Replace ``${NAME}`` (and ``$NAME``) in each word; a word stays one word.

    Raises:
        CaseError: a name that has no value.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in values:
            raise CaseError(
                f"{match[0]}: {name} has no value here", f"set {name} in the environment, or in the case"
            )
        return values[name]

    return [_PLACEHOLDER.sub(value, word) for word in words]
