"""The repository that the harness is used in: its tracks and hardware, from ``[tool.harness]``.

Standard library only (but for ``tomli`` below Python 3.11): the noxfile asks before anything is installed.
A repository that says nothing has the defaults, which are those of this project.

    [tool.harness]
    requirement = "resume-harness==1.0"       # what cells install; by default what nox itself runs with

    [tool.harness.tracks]                     # replaces lts and dev
    nightly = {group = "train"}               # a dependency group; by default that of the track's name
    container = {group = false}               # no environment is made: the one that is here

    [tool.harness.hardware]                   # replaces a100, h100, …; cpu is always there
    l40s = {platform = "l40s_node", device-names = ["L40S"]}
"""

from __future__ import annotations

import difflib
import functools
import json
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from harness.errors import UsageError

DISTRIBUTION = "resume-harness"
_FILE = "pyproject.toml"
#: What a track may be called: it is a part of the names of goldens, in which _ stands between the parts.
_TRACK = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,63}")
_HARDWARE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,63}")
_PLATFORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TAKEN = ("all", "default", "run")  # words that select, or that stand for something else

Row = TypeVar("Row")


@dataclass(frozen=True)
class Hardware:
    """One kind of machine.

    Args:
        platform: its name in the file names of goldens.
        device_names: words of which a GPU's product name holds one; none for the CPU.
    """

    platform: str
    device_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Track:
    """A pinned set of dependencies.

    Args:
        torch: the version that goldens of the track are recorded with; empty: its group pins none.
        group: the dependency group of ``pyproject.toml``; None: no environment is made.
        gpu_group: what is installed beside it where there are GPUs; empty for nothing more.
        build_group: what compiles that, installed before it; empty for nothing.
    """

    torch: str = ""
    group: str | None = ""
    gpu_group: str = ""
    build_group: str = ""


HARDWARE: Mapping[str, Hardware] = {
    "a100": Hardware("dgx_a100", ("A100",)),
    "h100": Hardware("dgx_h100", ("H100",)),
    "h200": Hardware("dgx_h200", ("H200",)),
    "b200": Hardware("dgx_b200", ("B200",)),
    "gb200": Hardware("dgx_gb200", ("GB200",)),
    "gb300": Hardware("dgx_gb300", ("GB300",)),
    "mi300x": Hardware("mi300x", ("MI300X",)),
    "cpu": Hardware("cpu"),
}
TRACKS: Mapping[str, Track] = {
    "lts": Track("2.8.0", "lts", "lts-gpu", "megatron"),
    "dev": Track("2.13.0", "dev", "dev-gpu", "megatron"),
}


@dataclass(frozen=True)
class Repository:
    """What a repository says of itself.

    Args:
        root: its folder.
        tracks, hardware: by name, in their order.
        requirement: what the environment of a cell installs for the harness; empty: what is running now.
        groups: the dependency groups that its ``pyproject.toml`` defines.
        package: whether it is a package that cells install, as uv decides it: there is a ``[build-system]``.
        name: of its ``[project]``; empty without one.
    """

    root: Path
    tracks: Mapping[str, Track] = field(default_factory=lambda: TRACKS)
    hardware: Mapping[str, Hardware] = field(default_factory=lambda: HARDWARE)
    requirement: str = ""
    groups: tuple[str, ...] = ()
    package: bool = False
    name: str = ""

    def words(self) -> tuple[str, ...]:
        """What is installed in the environment of every cell, beside the track's group."""
        own = ("--editable=.",) if self.package else ()
        return own if self.name == DISTRIBUTION else (*own, self.requirement or installed_as())


@functools.cache
def repository() -> Repository:
    """That of the folder in which the process was when this was first asked.

    Raises:
        UsageError: its ``pyproject.toml`` cannot be read, or says something else than it may.
    """
    return read(root_of(Path.cwd()))


def root_of(folder: Path) -> Path:
    """The nearest folder from here upwards that is a checkout or has a ``[tool.harness]``; else this one."""
    folder = folder.absolute()
    for here in (folder, *folder.parents):
        if (here / ".git").exists() or "[tool.harness" in _text(here / _FILE):
            return here
    return folder


def from_the_root(folder: Path) -> str:
    """What to do where ``folder`` is not here but in the repository's root; else empty."""
    root = root_of(Path.cwd())
    if folder.is_absolute() or folder.is_dir() or not (root / folder).is_dir():
        return ""
    return f"cd {shlex.quote(str(root))}: {folder} is there"


def read(root: Path) -> Repository:
    """What ``pyproject.toml`` in ``root`` says; raises UsageError."""
    path = root / _FILE
    text = _text(path)
    try:
        told = _toml(text)
    except (ValueError, ModuleNotFoundError) as error:
        if "[tool.harness" not in text:  # nothing of ours; whoever needs the rest will say so
            return Repository(root)
        if isinstance(error, ModuleNotFoundError):
            raise UsageError(f"{path}: cannot be read by Python 3.10 alone", "pip install tomli") from error
        raise UsageError(f"{path}: is not TOML: {error}") from error
    groups = told.get("dependency-groups", {})
    groups = groups if isinstance(groups, dict) else {}
    project = told.get("project", {})
    tool = _table(told.get("tool", {}), f"{path}: [tool]")
    own = _table(tool.get("harness", {}), f"{path}: [tool.harness]")
    _known(own, ("tracks", "hardware", "requirement", "megatron-lm"), f"{path}: [tool.harness]")
    requirement = own.get("requirement", "")
    if not isinstance(requirement, str):
        found = f"{path}: [tool.harness]: requirement: found {requirement!r}, expected a text"
        raise UsageError(found, f'such as "{DISTRIBUTION} @ git+https://…"')
    tracks: Mapping[str, Track] = {name: _with_groups(one, groups) for name, one in TRACKS.items()}
    hardware: Mapping[str, Hardware] = HARDWARE
    if "tracks" in own:
        where = f"{path}: [tool.harness.tracks]"
        tracks = _rows(own["tracks"], where, _TRACK, functools.partial(_track, groups))
    if "hardware" in own:
        where = f"{path}: [tool.harness.hardware]"
        hardware = _rows(own["hardware"], where, _HARDWARE, _hardware)
        hardware = {**{k: v for k, v in hardware.items() if k != "cpu"}, "cpu": HARDWARE["cpu"]}
    _apart(tracks, hardware, path)
    name = project.get("name", "") if isinstance(project, dict) else ""
    return Repository(root, tracks, hardware, requirement, tuple(groups), "build-system" in told, str(name))


def installed_as() -> str:
    """The requirement that installs the harness which is running: its version, or where it came from.

    Source: the Python packaging guide's *Recording the direct URL origin of installed distributions*.
    """
    try:
        found = distribution(DISTRIBUTION)
    except PackageNotFoundError:  # beside the noxfile of its own checkout
        return f"--editable={Path(__file__).parents[1]}"
    try:
        origin = json.loads(found.read_text("direct_url.json") or "{}")
    except ValueError:
        origin = {}
    url = str(origin.get("url", ""))
    if not url:
        return f"{DISTRIBUTION}=={found.version}"
    if origin.get("dir_info", {}).get("editable"):
        return f"--editable={unquote(urlsplit(url).path)}"
    vcs = origin.get("vcs_info", {})
    if vcs:
        inside = f"#subdirectory={origin['subdirectory']}" if origin.get("subdirectory") else ""
        url = f"{vcs.get('vcs', 'git')}+{url}@{vcs.get('commit_id', '')}{inside}"
    return f"{DISTRIBUTION} @ {url}"


# -- reading -----------------------------------------------------------------------------------


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"{path}: cannot be read: {said}") from error


def _toml(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:  # nox and the harness bring it, and what the workflows call needs neither
        import tomli as tomllib
    return tomllib.loads(text)


def _table(value: object, where: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise UsageError(f"{where}: found {value!r}, expected a table")


def _known(table: Mapping[str, object], keys: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in keys:
            near = difflib.get_close_matches(key, keys, 1)
            meant = f"did you mean {near[0]!r}?" if near else ""
            raise UsageError(f"{where}: found key {key!r}, expected {' or '.join(keys)}", meant)


def _rows(
    value: object, where: str, name_of: re.Pattern[str], make: Callable[[str, dict[str, Any], str], Row]
) -> dict[str, Row]:
    """A table of tables, or a list of names, which then say all."""
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        value = {name: {} for name in value}
    table = _table(value, where)
    if not table:
        raise UsageError(f"{where}: found nothing, expected a name at least")
    found = {}
    for name, row in table.items():
        if not name_of.fullmatch(name) or name in _TAKEN:
            expected = "letters, digits, - and ., and none of " + ", ".join(_TAKEN)
            raise UsageError(f"{where}: found the name {name!r}, expected {expected}")
        found[name] = make(name, _table(row, f"{where}: {name}"), f"{where}: {name}")
    return found


def _track(groups: Mapping[str, object], name: str, row: dict[str, Any], where: str) -> Track:
    _known(row, ("group", "gpu-group", "build-group", "torch"), where)
    group = row.get("group", name)
    if group is not False and not isinstance(group, str):
        found = f"{where}: group: found {group!r}, expected the name of a dependency group"
        raise UsageError(found, "or false: no environment is made")
    for key in ("gpu-group", "build-group", "torch"):
        if not isinstance(row.get(key, ""), str):
            raise UsageError(f"{where}: {key}: found {row[key]!r}, expected a text")
    if group is False:
        return Track(row.get("torch", ""), None)
    torch = row.get("torch") or _pinned(group, groups)
    return Track(torch, group, row.get("gpu-group", ""), row.get("build-group", ""))


def _with_groups(track: Track, groups: Mapping[str, object]) -> Track:
    """One of ours, where the repository has not got all of its groups."""
    gpu, build = (name if name in groups else "" for name in (track.gpu_group, track.build_group))
    return Track(_pinned(track.group or "", groups) or track.torch, track.group, gpu, build if gpu else "")


def _pinned(group: str, groups: Mapping[str, object], depth: int = 9) -> str:
    """The version of torch that a group pins."""
    listed = groups.get(group, ())
    for one in listed if isinstance(listed, list) else ():
        if isinstance(one, dict) and depth:
            found = _pinned(str(one.get("include-group", "")), groups, depth - 1)
            if found:
                return found
        elif isinstance(one, str) and (pin := re.match(r"torch\s*==\s*([\w.]+)", one)):
            return pin[1]
    return ""


def _hardware(name: str, row: dict[str, Any], where: str) -> Hardware:
    _known(row, ("platform", "device-names"), where)
    default = HARDWARE.get(name, Hardware(name, (name.upper(),)))
    platform = row.get("platform", default.platform)
    if not isinstance(platform, str) or not _PLATFORM.fullmatch(platform):
        expected = "a word, as it stands in the names of goldens"
        raise UsageError(f"{where}: platform: found {platform!r}, expected {expected}")
    words = row.get("device-names", list(default.device_names))
    if name == "cpu":
        if row:
            raise UsageError(f"{where}: found {row!r}, expected nothing: what the CPU is is known")
    elif not (isinstance(words, list) and words and all(isinstance(w, str) and w.isalnum() for w in words)):
        expected = "a list of words of a GPU's product name"
        raise UsageError(
            f"{where}: device-names: found {words!r}, expected {expected}",
            'e.g. ["L40S"], as nvidia-smi has it',
        )
    return Hardware(platform, tuple(words))


def _apart(tracks: Mapping[str, Track], hardware: Mapping[str, Hardware], path: Path) -> None:
    """Every name selects by itself; every platform has its own goldens."""
    for name in tracks:
        if name in hardware:
            raise UsageError(f"{path}: {name!r} is a track and hardware, expected two names: both select")
    seen: dict[str, str] = {}
    for name, one in hardware.items():
        if one.platform in seen:
            both = f"{seen[one.platform]} and {name}"
            raise UsageError(f"{path}: {both} have the platform {one.platform!r}, expected one each")
        seen[one.platform] = name
