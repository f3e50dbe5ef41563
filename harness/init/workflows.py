"""The workflow, or the pipeline, of a repository that uses the harness: a short file that calls ours."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Literal

from harness.errors import UsageError

_ADDRESS = re.compile(
    r"(?P<repository>[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+)@(?P<ref>[A-Za-z0-9][A-Za-z0-9._/-]*)"
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")

_GITHUB = """\
# Cells of the harness: every night and by hand on all hardware, with the page and the alarm; for a pull
# request on cpu.
# What the called workflows do: docs/github.md of {repository}.
name: resume

on:
  schedule:
    - cron: "17 1 * * *"
  workflow_dispatch:
  pull_request:

permissions: {{}}

concurrency:
  group: resume-${{{{ github.event.pull_request.number || 'night' }}}}
  cancel-in-progress: ${{{{ github.event_name == 'pull_request' }}}}

jobs:
  cells:
    name: cells
    uses: {repository}/.github/workflows/cells.yml@{ref}
    permissions:
      contents: read # to check out
    with:
      requirement: {requirement}
      hardware: ${{{{ github.event_name == 'pull_request' && 'cpu' || '{hardware}' }}}}
      tracks: "{tracks}"

  watch:
    name: watch
    needs: cells
    if: always() && github.event_name != 'pull_request'
    uses: {repository}/.github/workflows/watch.yml@{ref}
    permissions:
      contents: read # to check out
      actions: read # to fetch what the watch remembered last night
      issues: write # the alarm
    with:
      requirement: {requirement}
      hardware: "{hardware}"
      tracks: "{tracks}"
    secrets:
      webhook: ${{{{ secrets.HARNESS_WEBHOOK_URL }}}}
"""

_GITLAB = """\
# Cells of the harness: by a schedule and by hand on all hardware, for a merge request on cpu.
# What the included file does: docs/gitlab.md of {repository}.
include:
  - remote: https://raw.githubusercontent.com/{repository}/{ref}/gitlab/cells.yml

variables:
  HARNESS_REQUIREMENT: {requirement}
  HARNESS_HARDWARE: "{hardware}"
  HARNESS_TRACKS: "{tracks}"
"""


def workflows(
    address: str,
    service: Literal["github", "gitlab"],
    requirement: str,
    tracks: Iterable[str] = (),
    hardware: Iterable[str] = (),
) -> dict[str, str]:
    """The files to write, by their paths below the repository's root.

    Args:
        address: of the repository on GitHub that holds our workflows, ``OWNER/NAME@REF``. REF is best a
            commit: it is what runs.
        service: where the repository's CI runs.
        requirement: what pip installs for the harness.
        tracks, hardware: names; of all, where none is given.

    Raises:
        UsageError: one of them cannot be written there.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise UsageError(f"address {address!r}: expected OWNER/NAME@REF, REF a commit, a tag or a branch")
    if not requirement.strip() or not requirement.isprintable() or "${{" in requirement:
        said = f"requirement {requirement!r}: expected what pip installs for the harness"
        raise UsageError(said, f"e.g. resume-harness @ git+https://github.com/{address}")
    parts = {
        "repository": found["repository"],
        "ref": found["ref"],
        "requirement": json.dumps(requirement, ensure_ascii=False),  # a text of YAML's, too
        "tracks": _words(tracks, "track"),
        "hardware": _words(hardware, "hardware"),
    }
    if service == "gitlab":
        return {".gitlab-ci.yml": _GITLAB.format(**parts)}
    return {".github/workflows/resume.yml": _GITHUB.format(**parts)}


def _words(names: Iterable[str], kind: str) -> str:
    said = list(dict.fromkeys(names))
    for name in said:
        if not _NAME.fullmatch(name):
            raise UsageError(f"{kind} {name!r}: expected letters, digits, - and .")
    return " ".join(said) or "all"
