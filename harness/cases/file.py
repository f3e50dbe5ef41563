"""YAML of a case file → dicts, lists and texts: a scalar stays the text of the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.errors import CaseError

_SIZE_LIMIT = 1 << 20  # bytes; the largest case file in the wild has 7 kB
_NODES_LIMIT = 20_000  # of a YAML tree, aliases counted as often as they are used


def read_tree(file: Path, *, strict: Sequence[str] = ()) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The keys of a case file and what is below them, and what of it may not be meant so.

    Args:
        file: the case file.
        strict: keys that may not stand in it twice, nor any below them; of others the last value counts, as
            Megatron-LM's own tools have it, and a sentence says so.

    Returns:
        Dicts, lists, texts, booleans and None; sentences that begin with the line.

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
        tree = _Tree(file, strict)
        found = tree.plain(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise CaseError(f"{file}: {where}is not YAML: {getattr(error, 'problem', error)}") from error
    except RecursionError:
        raise CaseError(f"{file}: is nested too deeply to be read") from None
    if not isinstance(found, dict) or not found:
        raise CaseError(f"{file}: holds {kind_of(found)}, expected keys such as MODEL_ARGS")
    return found, tuple(dict.fromkeys(tree.twice))


class _Tree:
    """A YAML tree as dicts, lists and texts: a scalar stays the text of the file, ``''`` for null.

    Booleans for plain ``true`` and ``false``. Aliases are followed as often as they
    are used, and counted, so that a small file cannot become a big tree.
    """

    def __init__(self, file: Path, strict: Sequence[str]) -> None:
        self.file, self.strict, self.left = file, strict, _NODES_LIMIT
        self.twice: list[str] = []

    def plain(self, node: Any, *, above: str = "") -> Any:  # noqa: ANN401 - a YAML node
        """What stands there; ``above``: the key of the file that it is below."""
        import yaml

        self.left -= 1
        if self.left < 0:
            raise CaseError(f"{self.file}: its aliases unfold to more than {_NODES_LIMIT} values")
        if node is None:
            return None
        if isinstance(node, yaml.ScalarNode):
            # "on" and "yes" are words to Megatron-LM's yq (YAML 1.2), and booleans to PyYAML (1.1); its
            # scripts know `true` in small letters only, and pass `True` on as a word.
            said = str(node.value) if above not in self.strict else str(node.value).lower()
            if node.tag.endswith(":bool") and said in ("true", "false"):
                return said == "true"
            return None if node.tag.endswith(":null") else str(node.value)
        if isinstance(node, yaml.SequenceNode):
            return [self.plain(child, above=above) for child in node.value]
        return self._mapping(node, above)

    def _mapping(self, node: Any, above: str) -> dict[str, Any]:  # noqa: ANN401 - a YAML node
        import yaml

        found: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag.endswith(":merge"):
                for base in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    mapping = self.plain(base, above=above)
                    if not isinstance(mapping, dict):
                        said = f"<< merges {kind_of(mapping)}, expected a mapping"
                        raise CaseError(f"{self.file}: line {line}: {said}")
                    merged = {**mapping, **merged}
                continue
            name = self.plain(key)
            if not isinstance(name, str):
                raise CaseError(f"{self.file}: line {line}: a key is {kind_of(name)}, expected text")
            if name in found:
                self._repeated(name, line, lines[name], above or name)
            lines[name] = line
            found[name] = self.plain(value, above=above or name)
        # What is said in place of a merged value stands where it is said.
        return {**{name: value for name, value in merged.items() if name not in found}, **found}

    def _repeated(self, name: str, line: int, first: int, above: str) -> None:
        said = f"line {line}: {name} stands in it twice"
        if above in self.strict:
            raise CaseError(f"{self.file}: {said}", "remove one of them")
        self.twice.append(f"{said}, first in line {first}: the last value counts")


def kind_of(value: object) -> str:
    """What stands in a file instead of what was expected, in words."""
    kinds = {dict: "a mapping", list: "a list", type(None): "nothing", bool: "a boolean"}
    return kinds.get(type(value), f"the text {str(value)[:40]!r}")
