"""In torchrun's place: torchrun itself, whose workers are forked instead of started.

    python launch.py --nproc_per_node 8 … pretrain_gpt.py …

torchrun starts an interpreter for every rank, and each imports torch and Megatron-LM: of eight on two cores
that is most of a short run. Here both are imported once, behind the stand-in, and the ranks forked from that.
Rendezvous, logs, error files and what is said of a failure are torchrun's.
"""

from __future__ import annotations

import ast
import atexit
import gc
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

_ROOT = str(Path(__file__).parents[4])
_LOOK = 0.01  # s; how soon it is seen that a rank has ended
#: Of what is imported under another name than it is installed by.
_PACKAGES = {
    "PIL": "pillow",
    "google": "protobuf",
    "multistorageclient": "multi-storage-client",
    "nvidia_resiliency_ext": "nvidia-resiliency-ext",
    "yaml": "pyyaml",
}


def main(argv: Sequence[str]) -> None:
    """Import what the script imports, then run torchrun."""
    # This folder has modules of common names. What else lies beside the harness is not the script's either:
    # it is found first for as long as the harness itself is looked for.
    sys.path[0] = _ROOT
    from harness.trainers.megatron.on_cpu.packages import SCRIPT
    from harness.trainers.megatron.on_cpu.table import install

    install()
    sys.path.append(sys.path.pop(0))
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler

    script = os.path.abspath(torchrun.parse_args(list(argv)).training_script)
    os.environ[SCRIPT] = script
    sys.path.insert(0, os.path.dirname(script))
    preload(Path(script))
    gc.collect()
    gc.freeze()  # no collection in a rank writes to the pages that all of them share
    handler: Any = subprocess_handler.SubprocessHandler
    handler._popen = _forked  # noqa: SLF001 - the one place where it starts a rank
    status = 0
    try:
        torchrun.run(torchrun.parse_args(list(argv)))
    except ChildFailedError as failed:  # torchrun's last words: the root cause, and where its error file is
        print(failed, file=sys.stderr)
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # all ranks are gone; taking this process apart takes seconds, and says much


# -- imported once ---------------------------------------------------------------------------------


def preload(script: Path) -> None:
    """Import what the script imports; what fails otherwise than by a missing package, ranks will say."""
    for name in _imported(script):
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            sys.exit(f"harness: {missing(error) if error.name else error}")
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
    name = (error.name or "").partition(".")[0]
    return (
        f"{name}: the checkout imports it, and it is not installed for {sys.executable}: "
        f"pip install {_PACKAGES.get(name, name)}"
    )


# -- forked for each rank --------------------------------------------------------------------------


class Forked:
    """A rank, as torchrun's agent looks at the processes that it starts (``subprocess.Popen``)."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """How it has ended: a status, or a signal below 0; None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Until it has ended; raises subprocess.TimeoutExpired."""
        began = time.monotonic()
        while (code := self.poll()) is None:
            if timeout is not None and time.monotonic() - began > timeout:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(_LOOK)
        return code

    def send_signal(self, number: int) -> None:
        """To it alone."""
        if self.poll() is None:
            os.kill(self.pid, number)


def _forked(handler: Any, words: Sequence[str], env: Mapping[str, str]) -> Forked:
    """``SubprocessHandler._popen``: ``python -u script argument …`` with this environment."""
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # the agent's threads hold nothing that a rank wants
        pid = os.fork()
    if pid:
        return Forked(pid)
    status = 1
    try:
        os.setsid()
        os.environ.clear()
        os.environ.update(env)
        for number, file in ((1, handler._stdout), (2, handler._stderr)):  # noqa: SLF001
            if file is not None:
                os.dup2(file.fileno(), number)
        status = _ran([word for word in words[1:] if word != "-u"])
    except BaseException:  # noqa: BLE001 - nothing may come back out of a forked rank
        traceback.print_exc()
    finally:
        os._exit(status)


def _ran(words: list[str]) -> int:
    """A rank from its first line to its last; its exit status."""
    from torch.distributed.elastic.multiprocessing.errors import record

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    atexit._clear()  # noqa: SLF001 - what the agent has to do at its end is not a rank's
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    status = 0
    try:
        record(_run)(words)
    except SystemExit as ending:
        status = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
        if status and not isinstance(ending.code, int):
            print(ending.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - it has a traceback, and its status
        traceback.print_exc()
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - as an interpreter at its end
    atexit._run_exitfuncs()  # noqa: SLF001
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def _run(words: list[str]) -> None:
    sys.argv = words
    try:
        runpy.run_path(words[0], run_name="__main__")
    except ModuleNotFoundError as error:
        if not error.name:  # the checkout's own sentence
            raise
        raise ModuleNotFoundError(missing(error), name=error.name) from error


if __name__ == "__main__":
    main(sys.argv[1:])
