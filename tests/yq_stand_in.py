"""A stand-in for mikefarah's yq, where Megatron-LM's scripts call it; no test of yq itself.

It knows the expressions of ``run_ci_test.sh`` and ``_run_training.sh`` and no others. What it makes of them
was read in yq's source: a repeated key stays in the list of entries as often as it stands in the file, a
merged one does not, and an empty text is left out.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

Pairs = list[tuple[str, object]]


def plain(node: yaml.Node | None) -> object:
    """Pairs for a mapping, so that what is repeated stays; the text of the file for everything else."""
    if node is None:
        return ""
    if isinstance(node, yaml.ScalarNode):
        return None if node.tag.endswith(":null") else node.value
    if isinstance(node, yaml.SequenceNode):
        return [plain(child) for child in node.value]
    own = {str(key.value) for key, _ in node.value if not key.tag.endswith(":merge")}
    found: Pairs = []
    for key, value in node.value:
        if key.tag.endswith(":merge"):
            bases = value.value if isinstance(value, yaml.SequenceNode) else [value]
            found += [pair for base in bases for pair in mapping(plain(base)) if pair[0] not in own]
        else:
            found.append((str(key.value), plain(value)))
    return found


def mapping(value: object) -> Pairs:
    return [pair for pair in value if isinstance(pair, tuple)] if isinstance(value, list) else []


def at(tree: object, *keys: str) -> object:
    """The last value of a key, or None."""
    for key in keys:
        values = [value for name, value in mapping(tree) if name == key]
        tree = values[-1] if values else None
    return tree


def shown(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return "null" if value is None else str(value)


def edited(expression: str, tree: object) -> Pairs:
    """``.MODEL_ARGS."--exit-interval" = 4``; what is not there yet is put at the end."""
    match = re.fullmatch(r'\.(\w+)\."([^"]+)" = (?:(\d+)|\.(\w+)\."([^"]+)")', expression)
    if match is None:
        raise SystemExit(f"stand-in of yq: -i {expression}: is not known")
    value = match[3] or at(tree, match[4], match[5])
    found: Pairs = []
    for name, one in mapping(tree):
        if name == match[1]:
            there = any(key == match[2] for key, _ in mapping(one))
            pairs = [(key, value if key == match[2] else old) for key, old in mapping(one)]
            found.append((name, pairs if there else [*pairs, (match[2], value)]))
        else:
            found.append((name, one))
    return found


def written(pairs: Pairs, indent: str = "") -> Iterator[str]:
    for name, value in pairs:
        if mapping(value):
            yield f"{indent}{json.dumps(name)}:"
            yield from written(mapping(value), indent + "  ")
        else:
            yield f"{indent}{json.dumps(name)}: {'' if value is None else json.dumps(value)}"


def answer(expression: str, tree: object) -> Iterator[str]:
    if re.fullmatch(r"\.(BEFORE|AFTER)_SCRIPT", expression):
        yield "null"  # what a case's own shell does to a machine is nobody's test
    elif match := re.fullmatch(r'\.([A-Z_]+)(?:\."?([\w-]+)"?)?(?: // "(.*)")?', expression):
        keys = [key for key in match.groups()[:2] if key]
        found = at(tree, *keys)
        yield shown(found if found is not None else match[3])
    elif match := re.fullmatch(r'has\("(\w+)"\)', expression):
        yield "true" if any(name == match[1] for name, _ in mapping(tree)) else "false"
    elif ".ENV_VARS | to_entries" in expression:
        for name, value in mapping(at(tree, "ENV_VARS")):
            yield f"{name}={'' if value is None else shown(value)}"
    elif "to_entries" in expression:
        key = os.environ["KEY"] if "env(KEY)" in expression else "MODEL_ARGS"
        between = ": " if "env(KEY)" in expression else "="
        for name, value in mapping(at(tree, key)):
            if value != "":
                yield f"{name}{between}{'' if value is None else shown(value)}"
    else:
        raise SystemExit(f"stand-in of yq: {expression}: is not known")


def main() -> None:
    """``yq [-i] EXPRESSION [FILE]``."""
    inplace = sys.argv[1] == "-i"
    expression, *files = sys.argv[2:] if inplace else sys.argv[1:]
    if inplace:
        file = Path(files[0])
        file.write_text("\n".join(written(edited(expression, plain(yaml.compose(file.read_text()))))) + "\n")
        return
    text = Path(files[0]).read_text() if files else sys.stdin.read()
    for line in answer(expression, plain(yaml.compose(text))):
        print(line)


if __name__ == "__main__":
    main()
