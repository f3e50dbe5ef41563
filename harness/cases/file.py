"""YAML of a case file → dicts, lists and texts: a scalar stays the text of the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.errors import CaseError

_SIZE_LIMIT = 1 << 20  # bytes; the largest case file in the wild has 7 kB
_NODES_LIMIT = 20_000  # of a YAML tree, aliases counted as often as they are used


def read_tree(file: Path) -> dict[str, Any]:
    """The keys of a case file and what is below them: dicts, lists, texts, booleans and None.

    Raises:
        CaseError: the file, the line, what was found, what was expected.
    """
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
        raise CaseError(f"{file}: holds {kind_of(found)}, expected keys such as MODEL_ARGS")
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
                    raise CaseError(f"{file}: line {line}: << merges {kind_of(mapping)}, expected a mapping")
                merged = {**mapping, **merged}
            continue
        name = _plain(file, key, left)
        if not isinstance(name, str):
            raise CaseError(f"{file}: line {line}: a key is {kind_of(name)}, expected text")
        if name in found:
            raise CaseError(f"{file}: line {line}: {name} stands in it twice", "remove one of them")
        found[name] = _plain(file, value, left)
    return {**merged, **found}


def kind_of(value: object) -> str:
    """What stands in a file instead of what was expected, in words."""
    kinds = {dict: "a mapping", list: "a list", type(None): "nothing", bool: "a boolean"}
    return kinds.get(type(value), f"the text {str(value)[:40]!r}")
