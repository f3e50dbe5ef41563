"""A Python that has imported torch already, so that a script that imports it starts at once.

``warm_python.py serve SOCKET`` imports, listens, and forks a process for each script; ``warm_python.py SOCKET
SCRIPT …`` has one run there, with its own folder, variables and output, and ends as it does. The client is
what a harness sees; standard library only.
"""

import os
import resource
import runpy
import socket
import sys
import traceback


def run(script: str, *words: str) -> None:
    """As ``python SCRIPT …`` would, in a fresh process."""
    import numpy as np

    np.random.seed()  # noqa: NPY002 - what is forked would begin with its parent's numbers
    sys.argv = [script, *words]
    sys.path[0] = os.getcwd()
    runpy.run_path(script, run_name="__main__")


def child(call: socket.socket) -> int:
    """Take a script from a client, and run it: its exit status."""
    message, (out, err), _, _ = socket.recv_fds(call, 1 << 20, 2)
    given = message.decode().split("\0")
    cut = given.index("")
    os.chdir(given[0])
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.environ.clear()
    for line in given[1:cut]:
        name, _, value = line.partition("=")
        os.environ[name] = value
    if limit := int(os.environ.pop("FILE_SIZE_LIMIT", "0")):  # bytes; a file that grows beyond is an error
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        run(*given[cut + 1 :])
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def serve(path: str) -> None:
    """Until whoever started it closes its standard input."""
    import select
    import threading

    import numpy as np  # noqa: F401
    import torch
    from torch.optim import AdamW, lr_scheduler, swa_utils  # noqa: F401

    # What the first optimizer of a process imports.
    AdamW([torch.nn.Parameter(torch.zeros(1))])
    door = socket.socket(socket.AF_UNIX)
    door.bind(path + ".part")
    door.listen()
    os.rename(path + ".part", path)
    watched: list[socket.socket | int] = [door, 0]
    while True:
        ready, _, _ = select.select(watched, [], [])
        if 0 in ready:
            return
        call, _ = door.accept()
        pid = os.fork()
        if pid == 0:
            door.close()
            status = child(call)
            sys.stdout.flush()
            sys.stderr.flush()
            call.sendall(bytes([status & 255]))
            os._exit(status)
        call.close()
        threading.Thread(target=os.waitpid, args=(pid, 0), daemon=True).start()


def ask(path: str, *words: str) -> int:
    """Have a script run: its exit status."""
    env = [f"{name}={value}" for name, value in os.environ.items()]
    with socket.socket(socket.AF_UNIX) as call:
        call.connect(path)
        socket.send_fds(call, ["\0".join([os.getcwd(), *env, "", *words]).encode()], [1, 2])
        answer = call.recv(1)
    return answer[0] if answer else 1


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        sys.exit(ask(*sys.argv[1:]))
