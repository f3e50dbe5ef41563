"""Goldens of a Megatron-LM tree into our own store, chosen by track and platform.

Megatron-LM keeps them beside the cases, under more than a dozen kinds of names. Nobody can say what
they were recorded with, so an imported golden has no fingerprint and is never compared exactly.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.case_tools.known import KnownCases, known_cases, root_of
from harness.errors import GoldenError
from harness.goldens import names, reading
from harness.goldens.lint import json_files
from harness.goldens.names import GoldenName
from harness.goldens.origins import origin
from harness.goldens.reading import Content, Curve
from harness.goldens.sources import provenance
from harness.goldens.store import Planned
from harness.matrix import HARDWARE, NAME, TRACKS

#: Of a series: what makes it unfit to compare with.
_UNFIT = ("not-a-series", "list-of-values", "no-values", "bad-step", "gap", "off-grid", "repeated-key")


@dataclass(frozen=True)
class Left:
    """A file that is not imported, and why."""

    file: Path
    reason: str


@dataclass(frozen=True)
class Import:
    """What importing a tree would do.

    Args:
        planned: goldens to write.
        same: files whose values the store has already.
        left: the other files.
    """

    planned: tuple[Planned, ...]
    same: tuple[Path, ...]
    left: tuple[Left, ...]


def plan(
    path: Path,
    store: Path,
    *,
    tracks: Collection[str] = (),
    hardware: Collection[str] = (),
    replace: bool = False,
    told: Mapping[str, str] | None = None,
) -> Import:
    """Read a tree and say what of it goes where.

    Args:
        path: a checkout of Megatron-LM, its folder of cases, a part of that, or one file.
        store: our own.
        tracks, hardware: only goldens that these use; all when empty.
        replace: also goldens that were recorded or approved here.
        told: what is known of where they are from, see :mod:`harness.goldens.origins`.

    Raises:
        GoldenError: there is nothing at ``path``.
    """
    if not path.exists():
        what = "is a symbolic link that leads nowhere" if path.is_symlink() else "is not there"
        raise GoldenError(f"{path}: {what}, expected goldens of Megatron-LM", "check the path")
    importer = _Importer(store, known_cases(path), tracks or TRACKS, hardware or HARDWARE, replace=replace)
    importer.told = told or {}
    odd: list[Path] = []
    root = root_of(path) if path.is_dir() else path
    for folder, files in json_files(root, odd.append):
        importer.folder(folder, files)
    importer.left += [Left(each, "is no file, or a link that is not followed") for each in odd]
    return Import(tuple(importer.planned), tuple(importer.same), tuple(importer.left))


class _Importer:
    def __init__(
        self,
        store: Path,
        cases: KnownCases,
        tracks: Collection[str],
        hardware: Collection[str],
        *,
        replace: bool,
    ) -> None:
        self.store, self.cases, self.tracks, self.replace = store, cases, tracks, replace
        self.platforms = {HARDWARE[name].platform for name in hardware}
        self.known = {hardware.platform for hardware in HARDWARE.values()}
        self.told: Mapping[str, str] = {}
        self.planned: list[Planned] = []
        self.same: list[Path] = []
        self.left: list[Left] = []

    def folder(self, folder: Path, files: list[str]) -> None:
        """The goldens of one case."""
        wanted: dict[tuple[str, str | None], list[GoldenName]] = {}
        for file in files:
            name = names.parse(file)
            if name is None:
                continue  # prompts, configurations: nobody's golden
            reason = self._not_wanted(folder, name)
            if reason or name.track is None:
                self.left.append(Left(folder / file, reason or "its name says no track"))
            else:
                wanted.setdefault((name.track, name.platform), []).append(name)
        for same in wanted.values():
            self._best(folder, sorted(same, key=_rank))

    def _not_wanted(self, folder: Path, name: GoldenName) -> str | None:
        """Why nothing of this name is imported; None when it may be."""
        case = self.cases.of(folder)
        if not NAME.fullmatch(folder.absolute().name):
            return f"{folder.name!r} cannot be the name of a case"
        if case is not None and len(self.cases.by_name[case.name]) > 1:
            return "two cases have that name: rename one of them"
        if case is not None and case.state != "run":
            return f"its case is {'not run' if case.state == 'not run' else 'broken'}: {case.reason}"
        if name.second_run:
            return "is the series of a resumed run, and nothing is compared with it"
        if name.track is None:
            return "its name says no track"
        if name.track not in self.tracks:
            return f"its track is {name.track}"
        if name.platform is not None and name.platform not in self.known:
            return f"no hardware known here is a {name.platform}"
        if name.platform is not None and name.platform not in self.platforms:
            return f"its platform is {name.platform}"
        return None

    def _best(self, folder: Path, candidates: list[GoldenName]) -> None:
        """The first that can be read is imported; the others say which was."""
        chosen: str | None = None
        for name in candidates:
            path = folder / name.given
            if chosen is not None:
                self.left.append(Left(path, f"{chosen} is the golden of that track and platform"))
            elif self._take(path, name):
                chosen = name.given

    def _take(self, path: Path, name: GoldenName) -> bool:
        content = reading.read(path)
        if content.kind != "curves":
            lists = content.kind == "inference"
            said = "holds lists (inference)" if lists else content.problems[0].message
            self.left.append(Left(path, said))
            return False
        curves, remarks = _fit(content)
        if not curves:
            self.left.append(Left(path, f"holds no series to compare with: {'; '.join(remarks)}"))
            return False
        target = self.store / path.absolute().parent.name / name.file
        if self._there(path, target, curves):
            return True
        rounded = [name for name in curves if not content.curves[name].full]
        self.planned.append(_planned(path, target, curves, remarks, rounded, self.told))
        return True

    def _there(self, path: Path, target: Path, curves: dict[str, dict[int, float]]) -> bool:
        """Whether the store has a golden that stays: the same one, or one of our own."""
        if not target.exists():
            return False
        old = {name: curve.finite() for name, curve in reading.read(target).curves.items()}
        if old == curves:
            self.same.append(path)
            return True
        try:
            how = provenance(target).get("how", "")
        except GoldenError:
            how = ""
        if how in ("recorded", "approved") and not self.replace:
            said = f"{target} was {how} here, which is worth more; --replace imports it all the same"
            self.left.append(Left(path, said))
            return True
        return False


def _rank(name: GoldenName) -> tuple[bool, bool, int, list[int], str]:
    """The name that Megatron-LM itself opens, then clusters', then releases' from the newest."""
    numbers = [int(part) for part in (name.version or "").split("_")[0].split(".") if part.isdigit()]
    return (not name.used, name.version is not None, len(name.words), [-n for n in numbers], name.given)


def _fit(content: Content) -> tuple[dict[str, dict[int, float]], list[str]]:
    """The series that can be compared with, and what was left out of them."""
    remarks = [
        f"{problem.key}: {problem.message}"
        for problem in content.problems
        if problem.kind in _UNFIT and problem.key is not None
    ]
    unfit = {
        problem.key.rpartition("/")[0] if problem.kind == "bad-step" else problem.key
        for problem in content.problems
        if problem.kind in _UNFIT and problem.key is not None
    }
    found = {}
    for name, curve in content.curves.items():
        if name in unfit:
            continue
        finite = curve.finite()
        holes = list(_holes(curve))
        if not finite or holes:
            remarks.append(f"{name}: no number at steps {reading.ranges(holes or sorted(curve.values))}")
            continue
        if len(finite) < len(curve.values):
            remarks.append(f"{name}: begins at step {min(finite)}, no number before")
        found[name] = dict(sorted(finite.items()))
    return found, remarks


def _holes(curve: Curve) -> Iterator[int]:
    """Steps without a number, after the first that has one: at the start a timer has none to give."""
    begun = False
    for step, value in sorted(curve.values.items()):
        begun = begun or value is not None
        if begun and value is None:
            yield step


def _planned(
    path: Path,
    target: Path,
    curves: dict[str, dict[int, float]],
    remarks: Iterable[str],
    rounded: Iterable[str],
    told: Mapping[str, str],
) -> Planned:
    from harness.goldens import provenance_of
    from harness.metrics import Series

    series = {name: Series.of(name, values, list(values.values())) for name, values in curves.items()}
    about = provenance_of({}, {}, how="imported") | {"from": "/".join(path.absolute().parts[-3:])}
    for unknown in ("protocol", "repeats", "state"):
        del about[unknown]
    if source := origin(path, told):
        about["source"] = source
    return Planned(target, series, about, path, tuple(remarks), tuple(rounded))
