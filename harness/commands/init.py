"""``harness init``: what a repository needs, and the case of a script."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from harness.errors import EXIT_PASSED, UsageError


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """``harness init [SCRIPT]``."""
    text = "write what a repository needs (noxfile, track, folders), and the case of a script"
    init = commands.add_parser("init", help=text, description=f"{text}. Nothing is overwritten.".capitalize())
    init.set_defaults(do=_init)
    init.add_argument("script", metavar="SCRIPT", type=Path, nargs="?", help="a training script to look at")
    init.add_argument(
        "--workflows",
        metavar="OWNER/NAME@REF",
        default="",
        help="where on GitHub the workflows are that CI calls; default: where the harness was installed from",
    )


def _init(arguments: argparse.Namespace) -> int:
    from harness.init.case import guess
    from harness.init.files import Done, case_file, ci_files, repository_files
    from harness.init.script import look
    from harness.repository import root_of

    root = root_of(Path.cwd())
    script = look(arguments.script, root) if arguments.script else None
    if script and root.resolve() not in script.path.resolve().parents:
        raise UsageError(f"{script.path}: lies outside of {root}", "go to the repository that it belongs to")
    found = guess(script, root) if script else None
    ci = ci_files(root, arguments.workflows)
    name, case = case_file(root, script.path, found.text) if script and found else ("", None)
    own = repository_files(root, script.imports if script else ())
    done: list[Done] = [*own, *ci, *([case] if case else [])]
    for one in done:
        print(f"{one.verb:5} {one.path}" + (f": {one.said}" if one.said else ""))
    if not ci:
        print("no workflow for CI: --workflows OWNER/NAME@REF says where on GitHub ours are")
    if script and found:
        print(f"\n{script.path}: {script.framework}")
        for line in found.guessed:
            print(f"  guessed   {line}")
        for line in found.unseen:
            print(f"  not seen  {line}")
        if found.unseen:
            again = f"in the script, and `harness init {arguments.script}` writes the case anew"
            print(
                f"\nmend what was not seen: {'the case has these options' if script.known else again}; then"
            )
        else:
            print("\nlook at the case; then")
        if root.resolve() != Path.cwd().resolve():
            print(f"  cd {shlex.quote(str(root))}")
        print(f"  harness run {name}                  # is resuming sound?")
        print(f"  harness run {name} --golden-update  # record its golden")
        print('  nox -s "case(cpu)"                 # the same in an environment of its own')
    else:
        print("\nharness init SCRIPT writes the case of a training script")
    return EXIT_PASSED
