"""In torchrun's place: its own agent, arguments, logs and error files, with ranks that are forked.

    python launch.py --nproc_per_node 8 … pretrain_gpt.py …

torchrun starts an interpreter for every rank, and each imports torch and Megatron-LM: of eight on two cores
that is most of a short run. Here both are imported once, behind the stand-in, and the ranks forked from that.
"""

from __future__ import annotations

import ast
import atexit
import gc
import os
import runpy
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

_ROOT = str(Path(__file__).parents[4])


#: Of what is imported under another name than it is installed by.
_PACKAGES = {
    "PIL": "pillow",
    "google": "protobuf",
    "multistorageclient": "multi-storage-client",
    "nvidia_resiliency_ext": "nvidia-resiliency-ext",
    "yaml": "pyyaml",
}


def main(argv: Sequence[str]) -> None:
    """Read torchrun's command line, import what the script imports, fork the ranks, wait for them."""
    # This folder has modules of common names. What else lies beside the harness is not the script's either:
    # it is found first for as long as the harness itself is looked for.
    sys.path[0] = _ROOT
    from harness.trainers.megatron.on_cpu.packages import SCRIPT
    from harness.trainers.megatron.on_cpu.table import install

    install()
    sys.path.append(sys.path.pop(0))
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch
    from torch.distributed.run import config_from_args, parse_args

    asked = parse_args(list(argv))
    config, _, _ = config_from_args(asked)
    script = os.path.abspath(asked.training_script)
    os.environ[SCRIPT] = script
    sys.path.insert(0, os.path.dirname(script))
    preload(Path(script))
    gc.collect()
    gc.freeze()  # no collection in a rank writes to the pages that all of them share
    status = 0
    try:
        elastic_launch(replace(config, start_method="fork"), train)(script, *asked.training_script_args)
    except ChildFailedError as failed:  # torchrun's last words: the root cause, and where its error file is
        print(failed, file=sys.stderr)
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # all ranks are gone; taking this process apart takes seconds, and says much


def preload(script: Path) -> None:
    """Import what the script imports; what fails otherwise than by a missing package, ranks will say."""
    for name in _imported(script):
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            sys.exit(f"harness: {missing(error)}")
        except Exception:  # noqa: BLE001 - whatever the checkout's modules raise
            return


def _imported(script: Path) -> Iterator[str]:
    try:
        tree = ast.parse(script.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, UnicodeDecodeError):
        return
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def missing(error: ModuleNotFoundError) -> str:
    """Which package is not installed, and what to do."""
    name = (error.name or str(error)).partition(".")[0]
    return (
        f"{name}: the checkout imports it, and it is not installed for {sys.executable}: "
        f"pip install {_PACKAGES.get(name, name)}"
    )


def train(script: str, *arguments: str) -> None:
    """A rank: run the script as ``python script arguments`` would."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the agent's handlers are not the script's
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    atexit._clear()  # noqa: SLF001 - what the agent has to do at its end is not a rank's
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.argv = [script, *arguments]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as ending:
        if ending.code not in (None, 0):
            raise
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(missing(error), name=error.name) from error
    finally:
        atexit._run_exitfuncs()  # noqa: SLF001 - a forked process does not come to them by itself


if __name__ == "__main__":
    main(sys.argv[1:])
