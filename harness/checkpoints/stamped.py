"""Files whose names carry a time, a host or a job: beside each other for what they hold, the name apart.

``reader-1795741880.json`` of one run is ``reader-1795741999.json`` of the other. Where each side has one file
of such a name, they are one file, ``reader-#.json``; its name is one more entry of it, and differs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.checkpoints.rules import Rule, with_ids

if TYPE_CHECKING:
    from harness.checkpoints.checkpoint import Checkpoint

#: The entry of a file that is its name.
NAME = "file name"


def paired(one: Checkpoint, two: Checkpoint) -> tuple[Checkpoint, Checkpoint]:
    """Both, their files of such names called alike; the name of an only file is no part of any entry's."""
    if len(one.files) == len(two.files) == 1:
        return one, two
    # Files that hold nothing by themselves may be called anything.
    files = [{entry.file for entry in side.entries.values()} & {*side.files} for side in (one, two)]
    mine, theirs = files[0] - files[1], files[1] - files[0]
    counts = [Counter(map(with_ids, names)) for names in (mine, theirs)]
    known = {*one.files, *two.files}
    alike = {name for name in counts[0] if counts[0][name] == counts[1][name] == 1 and name not in known}
    return tuple(  # type: ignore[return-value]
        _called(side, {file: with_ids(file) for file in names if with_ids(file) in alike})
        for side, names in ((one, mine), (two, theirs))
    )


def as_observed(checkpoint: Checkpoint, rules: Iterable[Rule]) -> Checkpoint:
    """One side by itself, where it was seen that the names differ from run to run."""
    patterns = {rule.file for rule in rules if rule.where == "observed" and rule.entry == NAME}
    found = [file for file in checkpoint.files if with_ids(file) in patterns]
    once = Counter(map(with_ids, found))
    return _called(checkpoint, {file: with_ids(file) for file in found if once[with_ids(file)] == 1})


def _called(checkpoint: Checkpoint, names: Mapping[str, str]) -> Checkpoint:
    if not names or len(checkpoint.files) == 1:
        return checkpoint
    from harness.checkpoints.entries import Entry

    entries = {}
    for name, entry in checkpoint.entries.items():
        file = names.get(entry.file)
        if file is None or not name.startswith(f"{entry.file}:"):
            entries[name] = entry
            continue
        called = file + name.removeprefix(entry.file)
        entries[called] = replace(entry, name=called, file=file)
    for old, new in names.items():
        data = re.sub(r"[-_./]", " ", old).encode("utf-8", "surrogatepass")  # a stamp is a word of it
        name = f"{new}:{NAME}"
        entries[name] = Entry(name, "unknown", "text", (len(data),), data=data, key=NAME, file=new)
    files = tuple(sorted(names.get(file, file) for file in checkpoint.files))
    return replace(checkpoint, entries=entries, files=files)
