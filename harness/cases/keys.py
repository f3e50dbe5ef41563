"""The keys of ``model_config.yaml``, and what may stand there: a case is held to it, and so is an editor.

In a case every scalar is the text of the file (``harness/cases/file.py``). That it may look like a number is
said for those who read YAML in another way: ``docs/schemas/model_config.json`` is made of these types.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from harness.cases.file import kind_of, read_tree
from harness.errors import CaseError
from harness.fitting import Misfit, fitted
from harness.matrix import HARDWARE, MEGATRON_ON_CPU

_END = r"$(?!\n)"  # in Python the first alone takes a line end for the end


def _expected(words: str, description: str | None = None, **more: Any) -> Meta:
    return Meta(description=description, extra={"expected": words}, **more)


_text = functools.partial(_expected, "a text")
_words = functools.partial(_expected, "a list of arguments (never a shell string)")
_mapping = functools.partial(_expected, "a mapping")

Text = Annotated[str | int | float, _text()]
Variable = Annotated[str, Meta(pattern=rf"^[A-Za-z_][A-Za-z0-9_]*{_END}")]
Variables = dict[Variable, Annotated[str | int | float | bool | None, _text()]]
#: As argparse has them, or as Hydra does: with ``+``, ``++`` or ``~`` before them, or of several parts.
Argument = Annotated[
    str,
    Meta(
        pattern=r"^(?:--?[A-Za-z0-9][A-Za-z0-9._-]*|(?:\+\+?|~)[A-Za-z_][A-Za-z0-9_./@-]*"
        rf"|[A-Za-z_][A-Za-z0-9_/-]*(?:[.@][A-Za-z0-9_/-]+)+){_END}"
    ),
]
Arguments = dict[
    Argument,
    Annotated[str | int | float | bool | list[Text] | None, _expected("a value, true, or a list")],
]
Count = Annotated[str, Meta(pattern=rf"^0*[1-9][0-9]{{0,8}}{_END}")] | Annotated[int, Meta(ge=1)]

if TYPE_CHECKING:
    Trainers: TypeAlias = msgspec.Struct
    Profiles: TypeAlias = msgspec.Struct
else:  # their keys are the rows of a table

    def _of(
        name: str, keys: Iterable[str], annotation: object, default: object, doc: str
    ) -> type[msgspec.Struct]:
        names = {f"of_{key}" if key.isidentifier() else f"of_{i}": key for i, key in enumerate(keys)}
        return msgspec.defstruct(
            name,
            [(field, annotation, default) for field in names],
            namespace={"__doc__": doc},
            rename=names,
            forbid_unknown_fields=True,
        )

    Trainers = _of(
        "Trainers",
        ("default", *HARDWARE),
        Annotated[Text | UnsetType, _expected("the name of a trainer")],
        UNSET,
        "A trainer by hardware, with `default`.",
    )
    Profiles = _of(
        "Profiles",
        dict.fromkeys((*HARDWARE, MEGATRON_ON_CPU)),
        Annotated[Arguments | None, _mapping()],
        None,
        "Arguments by hardware, overlaid on MODEL_ARGS; `false` takes one away. "
        f"`{MEGATRON_ON_CPU}`: in the place of `cpu`, where the trainer there is megatron.",
    )


def by_key(found: msgspec.Struct) -> dict[str, Any]:
    """What stands in one of the two above, by key."""
    return dict(zip(found.__struct_encode_fields__, msgspec.structs.astuple(found), strict=True))


class Command(msgspec.Struct, forbid_unknown_fields=True):
    """What the trainer `command` starts; `resume` is as `train` where it is not said."""

    train: Annotated[list[Text], _words(extra_json_schema={"minItems": 1})] = []
    resume: Annotated[list[Text] | None, _words()] = None
    cwd: Annotated[Text | None, _text("the folder to start in; by default that of the case file")] = None


class Ignore(msgspec.Struct, forbid_unknown_fields=True):
    """Entries of a checkpoint that are no state: patterns as in a shell, and why; one pattern is enough."""

    reason: Annotated[str, _text(min_length=1)]
    entry: Annotated[str | None, _text("of the names inside their file; all by default")] = None
    file: Annotated[str | None, _text("of the files, relative to the checkpoint; all by default")] = None


class Checkpoint(msgspec.Struct, forbid_unknown_fields=True):
    """How saved state is compared."""

    ignore: Annotated[
        list[Annotated[Ignore, _expected("a mapping with a reason, and an entry or a file")]],
        _expected("a list of rules, each with a reason, and an entry or a file"),
    ] = []


class Metrics(msgspec.Struct, forbid_unknown_fields=True):
    """Where metrics are, beside event files and `metrics.jsonl`."""

    stdout: Annotated[
        str | Annotated[list[str], Meta(min_length=1)],
        _expected(
            "a regular expression, or a list of them",
            description="of the lines that the command prints, with groups `(?P<step>…)` and `(?P<loss>…)`",
        ),
    ]


class Harness(msgspec.Struct, forbid_unknown_fields=True):
    """All that is ours."""

    trainer: Annotated[Text | Trainers | None, _expected("the name of a trainer, or a mapping")] = None
    world_size: Annotated[Count | None, _expected("a whole number above 0")] = None
    nodes: Annotated[
        Count | None,
        _expected("a whole number above 0", "of a cluster, that each phase runs on; all have as many ranks"),
    ] = None
    profiles: Annotated[Profiles | None, _mapping()] = None
    command: Annotated[Command | None, _mapping(extra_json_schema={"required": ["train"]})] = None
    deterministic: Annotated[bool | None, _expected("true or false")] = None
    checkpoint: Annotated[Checkpoint | None, _mapping()] = None
    metrics: Annotated[Metrics | None, _expected("a mapping with stdout")] = None


class CaseFile(msgspec.Struct, rename="upper"):
    """One training configuration, with Megatron-LM's keys; what is ours is below HARNESS."""

    env_vars: Annotated[Variables | None, _mapping("variables for every rank")] = None
    model_args: Annotated[
        Arguments | None, _mapping("the trainer's arguments: a value, `true` for a bare flag, or a list")
    ] = None
    model_args_2: Annotated[
        Arguments | None, _mapping("those of the resumed phase, where they are others")
    ] = None
    test_type: Annotated[Text | None, _text("`ckpt-resume` by default; the others are Megatron-LM's")] = None
    mode: Annotated[Text | None, _text("`pretraining` by default")] = None
    metrics: Annotated[
        list[Text] | None,
        _expected(
            "a list of texts",
            description="the metrics that are compared, with the golden and with the uninterrupted run; "
            "without it, all that they have",
        ),
    ] = None
    launcher: Annotated[
        Literal["torchrun", "ft_launcher"] | None,
        _expected("torchrun or ft_launcher", description="`torchrun` or `ft_launcher`"),
    ] = None
    test_evaluation: Annotated[Text | None, _text("Megatron-LM's; `xpass` is not run")] = None
    before_script: Annotated[
        Text | None, _text("shell of Megatron-LM's; run only with `--allow-scripts`")
    ] = None
    after_script: Annotated[Text | None, _text("likewise")] = None
    harness: Annotated[Harness | None, _mapping("all that is ours")] = None


_OURS = "HARNESS"
#: Keys of Megatron-LM's that say nothing about what the harness does.
_THEIRS = re.compile(r"[A-Z][A-Z0-9_]*")
#: Those of them that look like misspelt ones and are not.
THEIRS_ALIKE = re.compile(r"BASE_MODEL_ARGS|MODEL_ENV_VARS|MODEL_ARGS_(?:[3-9]|[1-9][0-9]+)")


def read_keys(file: Path) -> tuple[CaseFile, tuple[str, ...], tuple[str, ...]]:
    """What a case file says, its keys that mean nothing to the harness, and what may not be meant so.

    Raises:
        CaseError: the file, the key, what was found, what was expected.
    """
    tree, warnings = read_tree(file, strict=(_OURS,))
    known = CaseFile.__struct_encode_fields__
    others = tuple(key for key in tree if key not in known)
    for key in others:
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
        if not THEIRS_ALIKE.fullmatch(key) and (near or not _THEIRS.fullmatch(key)):
            raise CaseError(
                f"{file}: {key}: no such key is known",
                f"did you mean {near[0]}?" if near else f"keys: {', '.join(known)}",
            )
    return fitted(tree, CaseFile, lambda misfit: _refusal(file, misfit)), others, warnings


def _refusal(file: Path, misfit: Misfit) -> CaseError:
    where = f"{file}: {_place(misfit.where)}"
    if misfit.what == "unknown":
        near = difflib.get_close_matches(misfit.found, misfit.keys, n=1)
        hint = f"did you mean {near[0]}?" if near else f"expected {', '.join(misfit.keys)}"
        return CaseError(f"{where}: no such key is known", hint)
    if misfit.what == "name":
        named = f"{file}: {_place(misfit.where[:-1])}: {misfit.found!r}"
        if misfit.where[0] == "ENV_VARS":
            return CaseError(f"{named} cannot be the name of a variable")
        return CaseError(
            f"{named} is no argument", "arguments begin with --, Hydra's with + or a dotted name"
        )
    if misfit.what == "missing":
        return CaseError(f"{where}: is missing, expected {misfit.expected}")
    of_a_few = misfit.where == ("LAUNCHER",) and isinstance(misfit.found, str)
    found = repr(misfit.found) if of_a_few else kind_of(misfit.found)
    return CaseError(f"{where}: found {found}, expected {misfit.expected}")


def _place(keys: Sequence[str | int]) -> str:
    """``HARNESS: command: train[1]``."""
    return "".join(f"[{key}]" if isinstance(key, int) else f": {key}" for key in keys)[2:]
