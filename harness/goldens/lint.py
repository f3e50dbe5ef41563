"""Account for a whole store of goldens, ours or Megatron-LM's: what each file holds, what is wrong.

Two layouts are understood. In Megatron-LM's, goldens lie beside ``model_config.yaml``; in ours,
below a folder named as the case. Links to folders are not followed, so a loop of them ends nothing.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from harness.case_tools.known import KnownCase, KnownCases, known_cases, root_of
from harness.errors import GoldenError, NothingToDo
from harness.goldens import names, reading
from harness.goldens.names import GoldenName
from harness.goldens.reading import Content
from harness.metrics.known import about
from harness.trainers.megatron import recipes as megatron_recipes
from harness.trainers.megatron.recipes import Recipes

CASE_FILE = "model_config.yaml"
PROVENANCE = ".provenance.json"


@dataclass(frozen=True)
class Finding:
    """Something wrong.

    Args:
        file: relative to the store.
        key: ``metric``, ``metric/step`` or ``track/platform``; None for the file itself.
        kind: one word or two, for machines.
        message: a sentence about it.
    """

    file: str
    key: str | None
    kind: str
    message: str

    def sentence(self) -> str:
        """One line for a person."""
        return f"{self.file}: {self.key}: {self.message}" if self.key else f"{self.file}: {self.message}"


@dataclass
class Report:
    """All of a store.

    Args:
        path: the store.
        files: goldens by what they hold: ``curves``, ``inference``, ``unreadable``.
        cases: cases by whether they are run: ``run``, ``not run``, ``unreadable``.
        findings: in the order of the files.
    """

    path: str
    files: Counter[str] = field(default_factory=Counter)
    cases: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "path": self.path,
            "files": dict(sorted(self.files.items())),
            "cases": dict(sorted(self.cases.items())),
            "findings": [asdict(finding) for finding in self.findings],
        }

    def summary(self) -> str:
        """How many of what."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.files.items()))
        cases = ", ".join(f"{count} {kind}" for kind, count in sorted(self.cases.items()))
        total, wrong = sum(self.files.values()), len(self.findings)
        found = f"{wrong} finding{'' if wrong == 1 else 's'}" if wrong else "nothing is wrong"
        return (
            f"{self.path}: {total} goldens ({kinds or 'none'}), "
            f"{sum(self.cases.values())} cases ({cases or 'none'}): {found}"
        )


def lint(path: Path, cases: Path | None = None) -> Report:
    """Read every golden below ``path``.

    Args:
        path: a store, a part of one, one file, or a checkout of Megatron-LM.
        cases: the folder of cases, where the goldens do not lie beside them.

    Raises:
        GoldenError: there is nothing at ``path``.
        NothingToDo: there is neither a golden nor a case below it.
    """
    if not path.exists():
        what = "is a symbolic link that leads nowhere" if path.is_symlink() else "is not there"
        raise GoldenError(f"{path}: {what}, expected a store of goldens", "check the path")
    checkout = megatron_recipes.find(path)
    recipes = megatron_recipes.read(checkout) if checkout else Recipes()
    root = root_of(path)
    report = Report(str(path))
    linter = _Linter(root, cases_of(path, cases), recipes, report)
    linter.store(root if path.is_dir() else path)
    if not report.files and not report.cases and not report.findings:
        raise NothingToDo(f"{path}: holds neither a golden nor a case", "check the path")
    return report


def cases_of(path: Path, cases: Path | None) -> KnownCases:
    """The cases below ``path``; with none there, those of ``cases`` or of its neighbour."""
    found = known_cases(path)
    for folder in (cases, root_of(path).absolute().parent / "test_cases"):
        if not found.all and folder is not None and folder.is_dir():
            found = known_cases(folder)
    return found


@dataclass
class _Linter:
    root: Path
    cases: KnownCases
    recipes: Recipes
    report: Report

    def store(self, path: Path) -> None:
        """Everything below ``path``."""
        for case in self.cases.all:
            self.report.cases[case.state] += 1
        for recipe, message in self.recipes.problems:
            self._find(self.root, None, "recipe", f"recipe {recipe}: {message}")
        for folder, files in json_files(path, self._odd):
            self._folder(folder, files)
        if path.is_dir():
            self._without_golden()

    def _find(self, path: Path, key: str | None, kind: str, message: str) -> None:
        try:
            name = path.relative_to(self.root).as_posix()
        except ValueError:
            name = str(path)
        self.report.findings.append(Finding(name, key, kind, message))

    def _odd(self, path: Path) -> None:
        if reading.is_link_to_nowhere(path):
            self._find(path, None, "link", "is a symbolic link that leads nowhere")
        elif path.is_symlink():
            self._find(path, None, "link", "is a symbolic link that leads to a folder, and is not followed")
        else:
            self._find(path, None, "not-a-file", "is a folder, expected a file")

    # -- one folder --------------------------------------------------------------------------

    def _folder(self, folder: Path, files: list[str]) -> None:
        contents: dict[str, Content] = {}
        for file in files:
            path = folder / file
            name = names.parse(file)
            if file.endswith(PROVENANCE):
                self._provenance(path, files)
            elif name is not None:
                contents[file] = self._golden(path, name)
            else:
                self._other(path)
        for file, content in contents.items():
            first = contents.get(file.replace("_2nd.json", ".json"))
            if file.endswith("_2nd.json") and first is not None:
                self._pair(folder / file, first, content)

    def _golden(self, path: Path, name: GoldenName) -> Content:
        content = reading.read(path)
        self.report.files[content.kind] += 1
        case = self.cases.of(path.parent)
        half = self._half(name, case)
        for problem in content.problems:
            if name.second_run and problem.kind == "not-finite" and _before(content, problem.key, half):
                continue  # a resumed run has no values there
            self._find(path, problem.key, problem.kind, problem.message)
        if content.kind == "inference" and case is not None and case.state == "run":
            self._find(path, None, "lists", "holds lists, and its case trains: expected curves")
        if content.kind == "curves":
            self._ends(path, name, content, case)
        self._used(path, name, case)
        return content

    @staticmethod
    def _half(name: GoldenName, case: KnownCase | None) -> int:
        iterations = case.iterations(name.platform) if case else None
        return (iterations or 100) // 2

    def _ends(self, path: Path, name: GoldenName, content: Content, case: KnownCase | None) -> None:
        """Whether the series go as far as the case trains, and as far as each other."""
        iterations = case.iterations(name.platform) if case and case.state == "run" else None
        longest = max((curve.end for curve in content.curves.values()), default=0)
        for metric, curve in content.curves.items():
            last = max(curve.values, default=curve.end)
            if curve.values and iterations is not None and last + curve.interval <= iterations:
                said = f"ends at step {last}, and the case trains {iterations} iterations"
                self._find(path, metric, "cut-short", said)
            elif last + curve.interval <= longest:
                said = f"ends at step {last}, and others in the file at step {longest}"
                self._find(path, metric, "cut-short", said)

    def _used(self, path: Path, name: GoldenName, case: KnownCase | None) -> None:
        folder = path.parent.name
        if name.second_run:
            said = "is the series of a resumed run, and nothing is compared with it"
        elif not name.used:
            said = f"no run opens a golden of that name, expected {name.file}"
            if name.track is None:
                said = "no run opens a golden whose name has no track"
        elif case is None and not self.cases.all:
            return  # a store that lies alone
        elif case is None:
            said = f"there is no case {folder}"
        elif self.recipes.products and not self.recipes.of(folder, name.track, name.platform):
            on = f" on {name.platform}" if name.platform else ""
            said = f"no recipe runs {folder} for {name.track}{on}"
        else:
            return
        self._find(path, None, "unused", said)

    def _other(self, path: Path) -> None:
        """A JSON file that is no golden by its name: prompts, mostly, which the case file names."""
        config = path.parent / CASE_FILE
        try:
            if config.stat().st_size < reading.SIZE_LIMIT and path.name in config.read_text():
                return
        except (OSError, UnicodeDecodeError):
            pass
        self._find(path, None, "unused", "is no golden by its name, and no case beside it names it")

    def _provenance(self, path: Path, files: list[str]) -> None:
        if path.name.replace(PROVENANCE, ".json") not in files:
            self._find(path, None, "unused", "there is no golden beside it")
        try:
            big = path.stat().st_size > reading.SIZE_LIMIT
            found = None if big else json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            self._find(path, None, "not-json", f"cannot be read: {error}")
            return
        if not isinstance(found, dict) or not isinstance(found.get("fingerprint"), dict):
            self._find(path, "fingerprint", "not-a-provenance", "holds no fingerprint")
        elif found["fingerprint"] and not (found.get("state") or found.get("values")):
            said = "holds no state digests, so of a run only the curves are compared with it"
            self._find(path, "state", "no-state", said)

    def _pair(self, path: Path, first: Content, second: Content) -> None:
        """A resumed run's series must be its first run's, where both have a value."""
        for metric in first.curves.keys() & second.curves.keys():
            if about(metric).cost or about(metric).judged == "finite":  # repeats differ in them too
                continue
            one, two = first.curves[metric].finite(), second.curves[metric].finite()
            apart = [step for step in sorted(one.keys() & two.keys()) if one[step] != two[step]]
            if apart:
                step = apart[0]
                self._find(
                    path, f"{metric}/{step}", "stale-pair",
                    f"found {two[step]!r}, expected {one[step]!r} of its first run; "
                    f"{len(apart)} steps differ",
                )  # fmt: skip

    # -- cases -------------------------------------------------------------------------------

    def _without_golden(self) -> None:
        for case in self.cases.all:
            if case.state == "unreadable":
                self._find(case.path, None, "case", case.reason)
            if case.state != "run":
                continue
            stores = [folder for folder in (case.path, self.root / case.name) if folder.is_dir()]
            there = {file.name for folder in stores for file in folder.glob("golden_values*")}
            wanted = self.recipes.of(case.name)
            for product in wanted:
                exact = f"golden_values_{product.track}_{product.platform}.json"
                if not there & {exact, f"golden_values_{product.track}.json"}:
                    key, said = f"{product.track}/{product.platform}", f"{product.recipe} runs it there"
                    self._find(case.path, key, "no-golden", f"{said}, and there is no golden for it")
            if not wanted and not there:
                self._find(case.path, None, "no-golden", "the case has no golden")


def _before(content: Content, key: str | None, half: int) -> bool:
    """Whether all that is missing from a series lies in the first half."""
    curve = content.curves.get((key or "").rpartition("/")[0])
    if curve is None:
        return False
    # One more: a resumed run has no time of its first iteration.
    return all(step <= half + 1 for step, value in curve.values.items() if value is None)


def json_files(path: Path, odd: Callable[[Path], None]) -> Iterator[tuple[Path, list[str]]]:
    """Folders with their JSON files, sorted; what is not followed or no file goes to ``odd``."""
    if path.is_file():
        yield path.parent, [path.name]
        return
    for here, folders, files in os.walk(path):
        folder = Path(here)
        for name in sorted(folders):
            if name.endswith(".json") or (folder / name).is_symlink():
                odd(folder / name)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name[-5:] != ".json")
        wanted = []
        for name in sorted(files):
            if reading.is_link_to_nowhere(folder / name):
                odd(folder / name)
            elif name.endswith(".json"):
                wanted.append(name)
        if wanted:
            yield folder, wanted
