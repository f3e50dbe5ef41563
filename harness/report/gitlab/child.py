"""The child pipeline: a job per (hardware, track), and for a night one more that makes the page.

What the repository's own pipeline is set to (``HARNESS_REQUIREMENT``, ``HARNESS_CASES``) reaches the jobs as
variables that GitLab hands down; only names that were checked are written into the file. Scripts are POSIX
shell: which shell there is, is the image's affair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from harness.matrix import HARDWARE
from harness.report.runners import filled

_BIN = '"$CI_PROJECT_DIR.harness/bin/'
#: Beside the checkout, apart from the image's own Python: a track without a group trains with that one.
_INSTALL = [
    'python3 -m venv --clear "$CI_PROJECT_DIR.harness"',
    f'{_BIN}python" -m pip install "nox[uv]" "$HARNESS_REQUIREMENT"',
]
_PATH = 'export PATH="$CI_PROJECT_DIR.harness/bin:$PATH"'
_RUN = """\
listed="$CI_PROJECT_DIR.harness/sessions"
harness gitlab sessions "$HARNESS_CASES" --hardware "$HARDWARE" --track "$TRACK" > "$listed"
set --
while read -r session; do set -- "$@" "$session"; done < "$listed"
nox -s "$@"
"""
_EXPECTED = (
    '--expect "$HARNESS_CASES" --hardware "$HARDWARE" --track "$TRACK" --since "$CI_PIPELINE_CREATED_AT"'
)
_PAGE = """\
mkdir -p nights results
day="nights/$(printf %.10s "$CI_PIPELINE_CREATED_AT")"
rm -rf -- "$day" # of an earlier pipeline of this day
set --
for night in nights/*; do
  if [ -d "$night" ]; then set -- "$@" "$night"; fi
done
page=0
harness report "$@" results --since "$CI_PIPELINE_CREATED_AT" || page=$?
cp -R results "$day" # ten are kept for the page's history
set -- nights/*
while [ "$#" -gt 10 ]; do rm -rf -- "$1"; shift; done
"""
_ALARM = """\
set -- --expect "$HARNESS_CASES" --since "$CI_PIPELINE_CREATED_AT" --night "$CI_PIPELINE_ID"
for name in $HARDWARE; do set -- "$@" --hardware "$name"; done
for name in $TRACKS; do set -- "$@" --track "$name"; done
# Without a webhook there is nobody to tell; red is red all the same.
if [ -z "${HARNESS_WEBHOOK_URL:-}" ]; then set -- "$@" --dry-run; fi
harness alarm results --state night-watch.json "$@"
exit "$page"
"""


@dataclass(frozen=True)
class Runners:
    """Where the jobs run; ``{hardware}`` and ``{track}`` stand for a job's names.

    Args:
        tags: of a GPU's runner.
        cpu_tags: of the other runners; none for those that take jobs without tags.
        image: of a container.
    """

    tags: Sequence[str]
    cpu_tags: Sequence[str]
    image: str


def child(pairs: Sequence[tuple[str, str]], runners: Runners, *, night: bool) -> str:
    """The pipeline as YAML.

    Args:
        pairs: (hardware, track) of each job.
        runners: where they run.
        night: whether all of it makes a night: then the page is made, and the alarm sounded.
    """
    content: dict[str, Any] = {"stages": ["cells", "night"] if night else ["cells"]}
    content["default"] = {"interruptible": not night}
    for hardware, track in pairs:
        content[f"{hardware} {track}"] = _cells(hardware, track, runners)
    if night:
        content["night"] = _night(pairs, runners)
    head = "# Made by `harness gitlab child`.\n"
    return head + yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=1000)


def _cells(hardware: str, track: str, runners: Runners) -> dict[str, Any]:
    gpu = bool(HARDWARE[hardware].device_names)
    variables = {"HARDWARE": hardware, "TRACK": track, "NOX_SCRIPT_MODE": "none"}
    if not gpu:
        variables["UV_TORCH_BACKEND"] = "cpu"  # PyPI's torch for Linux brings some GB of CUDA
    return {
        "stage": "cells",
        "image": filled(runners.image, hardware, track),
        **_tags(runners.tags if gpu else runners.cpu_tags, hardware, track),
        "timeout": "12h" if gpu else "3h",
        "variables": variables,
        "script": [*_INSTALL, _PATH, _RUN],
        "after_script": [
            "rm -rf -- results/*/*/*/checkpoints",
            f'{_BIN}harness" gitlab junit results {_EXPECTED} > harness-junit.xml',
        ],
        "artifacts": {
            "when": "always",
            "paths": ["results"],
            "expire_in": "30 days",
            "reports": {"junit": "harness-junit.xml"},
        },
    }


def _night(pairs: Sequence[tuple[str, str]], runners: Runners) -> dict[str, Any]:
    hardware, track = (" ".join(dict.fromkeys(pair[part] for pair in pairs)) for part in (0, 1))
    return {
        "stage": "night",
        "when": "always",
        "image": "python:3.11",
        **_tags(runners.cpu_tags, "cpu", "night"),
        "variables": {"HARDWARE": hardware, "TRACKS": track},
        "script": [*_INSTALL, _PATH, _PAGE, _ALARM],
        # The history, and what the alarm remembers.
        "cache": {"key": "harness-night", "when": "always", "paths": ["nights", "night-watch.json"]},
        "artifacts": {
            "when": "always",
            "paths": [
                "results/**/*.html",
                "results/**/verdict.json",
                "results/**/tensorboard",
                "results/**/metrics.jsonl",
            ],
            "expire_in": "90 days",
        },
    }


def _tags(template: Sequence[str], hardware: str, track: str) -> dict[str, list[str]]:
    return {"tags": [filled(one, hardware, track) for one in template]} if template else {}


class _Dumper(yaml.SafeDumper):
    """Lines as lines."""

    def ignore_aliases(self, _data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
