"""What a repository needs for its cells: noxfile, track, folders, ``.gitignore``. No change is lost."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Literal

from harness.init.workflows import workflows
from harness.matrix import CASE_FILE, NAME
from harness.repository import DISTRIBUTION, TRACKS, installed_as, read

#: The lowest nox that ``harness.nox`` works with.
NOX = "nox[uv]>=2026.10.20"
_NOXFILE = """\
# /// script
# dependencies = [{nox}, {requirement}]
# ///
from harness.nox import sessions
sessions()
"""
_PYPROJECT = """\
[dependency-groups]
{group} = [{pins}]

[tool.harness.tracks]  # a track is a pinned set of dependencies: this one is the group of its name
{group} = {{}}
"""
_IGNORED = ("/results/", "/.nox/")
_CASES, _GOLDENS = "test_cases", "goldens"
#: What is imported by another name than it is installed by, where it is not installed here.
_DISTRIBUTIONS = {"yaml": "pyyaml", "PIL": "pillow", "sklearn": "scikit-learn", "cv2": "opencv-python"}


@dataclass(frozen=True)
class Done:
    """What became of a file.

    Args:
        verb: ``wrote``, ``added`` to it, or ``kept``: it was there.
        path: relative to the repository.
        said: what somebody should know of it; empty for nothing.
    """

    verb: Literal["wrote", "added", "kept"]
    path: str
    said: str = ""


#: In a case that ``harness init`` wrote, and writes anew until somebody changes it.
_SEAL = "sha256:"


def write(root: Path, relative: str, text: str, *, said: str = "", instead: str = "") -> Done:
    """Write a new file; one that is there is kept, and ``instead`` says what to do then."""
    path = root / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        same = path.is_file() and path.read_text(encoding="utf-8", errors="replace") == text
        return Done("kept", relative, "" if same else instead)
    return Done("wrote", relative, said)


def repository_files(root: Path, imports: Sequence[str]) -> list[Done]:
    """All that is not a case: written where it is missing.

    Args:
        imports: the packages that the scripts import, for the track's dependencies.
    """
    requirement = installed_as()
    noxfile = _NOXFILE.format(nox=_toml(NOX), requirement=_toml(requirement))
    local = requirement.startswith("--editable=") or " @ file:" in requirement
    if requirement.startswith("--editable="):
        here = requirement.removeprefix("--editable=")
        noxfile = noxfile.replace(_toml(requirement), _toml(f"{DISTRIBUTION} @ file://{here}"))
    said = f"{requirement} is on this machine only: name one that others find" if local else ""
    lines = "; ".join(noxfile.splitlines()[-2:])
    return [
        write(root, "noxfile.py", noxfile, said=said, instead=f"add to it: {lines}"),
        _track(root, imports),
        _ignore(root),
        *(write(root, f"{name}/.gitkeep", "") for name in (_CASES, _GOLDENS) if not _filled(root / name)),
    ]


def ci_files(root: Path, address: str) -> list[Done]:
    """The file for CI: GitHub's, or GitLab's where the repository is there or has one.

    Args:
        address: ``OWNER/NAME@REF`` of the repository that holds our workflows; empty: where the harness
            that is running was installed from. Where that is not known, nothing is written.

    Raises:
        UsageError: it is no address.
    """
    requirement = installed_as()
    found = re.search(r"git\+https://github\.com/([^/]+/[^/@]+?)(?:\.git)?@(\w+)", requirement)
    address = address or (f"{found[1]}@{found[2]}" if found else "")
    if not address:
        return []
    if "git+" not in requirement and "==" not in requirement:
        requirement = f"{DISTRIBUTION} @ git+https://github.com/{address}"
    config = root / ".git" / "config"
    origin = config.read_text(encoding="utf-8", errors="replace") if config.is_file() else ""
    gitlab = "gitlab" in origin or (root / ".gitlab-ci.yml").exists()
    texts = workflows(address, "gitlab" if gitlab else "github", requirement)
    instead = "call ours from it: docs/github.md and docs/gitlab.md of resume-harness"
    return [write(root, name, text, instead=instead) for name, text in texts.items()]


def case_file(root: Path, script: Path, text: str) -> tuple[str, Done]:
    """Write a script's case; its name, and what became of its file."""
    family = re.sub(r"[^A-Za-z0-9._+-]+", "-", root.absolute().name).strip("-.") or "mine"
    name = re.sub(r"[^A-Za-z0-9._+-]+", "-", script.stem).strip("-.")
    name = name if NAME.fullmatch(name) else "train"
    name = name if _is_of(root, f"{_CASES}/{family}/{name}", script) else _longer(root, script, name)
    path = root / _CASES / family / name / CASE_FILE
    text = _sealed(text)
    there = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    if there != text and _untouched(there):
        path.unlink()
    instead = "remove it to have it written anew"
    return name, write(root, path.relative_to(root).as_posix(), text, instead=instead)


def _sealed(text: str) -> str:
    """With a digest of what follows in its first line: as long as that is right, nobody has changed it."""
    head, _, body = text.partition("\n")
    return f"{head} {_SEAL}{hashlib.sha256(body.encode()).hexdigest()[:12]}\n{body}"


def _untouched(text: str) -> bool:
    head, seal, _ = text.partition("\n")[0].partition(_SEAL)
    return bool(seal) and _sealed(f"{head.rstrip()}\n{text.partition(chr(10))[2]}") == text


def _is_of(root: Path, case: str, script: Path) -> bool:
    """Whether the case, where it is there, may be that of this script: its name is in it."""
    path = root / case / CASE_FILE
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    others = re.findall(r"[\w./ +-]+\.py\b", text)
    mine = os.path.relpath(script.absolute(), root.absolute())
    return not others or any(one.strip() == mine for one in others)


def _longer(root: Path, script: Path, name: str) -> str:
    """``b-train`` of ``b/train.py``, where ``train`` is the case of another script."""
    parts = Path(os.path.relpath(script.absolute().parent, root.absolute())).parts or (root.absolute().name,)
    longer = re.sub(r"[^A-Za-z0-9._+-]+", "-", "-".join((*parts, name))).strip("-.")
    return longer if NAME.fullmatch(longer) else name


def _track(root: Path, imports: Sequence[str]) -> Done:
    track = "dev"
    pins = ", ".join(_toml(pin) for pin in map(_pin, imports))
    text = _PYPROJECT.format(group=track, pins=pins)
    path = root / "pyproject.toml"
    if not path.exists():
        return write(root, "pyproject.toml", text, said=f"track {track}: {pins or 'installs nothing'}")
    here = read(root)
    missing = [name for name, one in here.tracks.items() if one.group and one.group not in here.groups]
    if not missing:
        return Done("kept", "pyproject.toml")
    if here.tracks is not TRACKS and set(here.tracks) != set(TRACKS):
        return Done("kept", "pyproject.toml", f"define the dependency groups: {', '.join(missing)}")
    said = "add the dependency group of a track:" + "".join(f"\n      {line}" for line in text.splitlines())
    return Done("kept", "pyproject.toml", said if not set(here.tracks) - set(missing) else "")


def _pin(package: str) -> str:
    """``torch==2.13.0``: the version that is installed here, as it is published."""
    names = packages_distributions().get(package, [_DISTRIBUTIONS.get(package, package)])
    try:
        return f"{names[0]}=={version(names[0]).partition('+')[0]}"
    except PackageNotFoundError:
        return f"torch=={TRACKS['dev'].torch}" if names[0] == "torch" else names[0]


def _ignore(root: Path) -> Done:
    path = root / ".gitignore"
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    there = {line.strip().strip("/") for line in text.splitlines()}
    lines = [line for line in _IGNORED if line.strip("/") not in there]
    if not lines:
        return Done("kept", ".gitignore")
    with path.open("a", encoding="utf-8") as stream:
        stream.write(("" if not text or text.endswith("\n") else "\n") + "\n".join(lines) + "\n")
    return Done("added" if text else "wrote", ".gitignore", ", ".join(lines))


def _filled(folder: Path) -> bool:
    return folder.is_dir() and bool(os.listdir(folder))


def _toml(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
