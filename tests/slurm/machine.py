"""The first process of a machine of the cluster: sets it up from inside, runs its daemon, buries its dead.

Started by :mod:`tests.slurm.cluster` in namespaces that are new. It says so with an empty line, and is told
by one line of JSON what the machine is called, what to run once, in this order, and what to run for good.
When that ends, so does the machine: the kernel kills what is left in the namespace of a first process that is
gone. Standard library only, and little of it: each machine waits for these imports.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys


def main() -> int:
    """What the daemon ended with; 1 where the machine could not be set up, or nobody told."""
    print(flush=True)
    told = json.loads(sys.stdin.readline() or "null")
    if told is None:  # who started this is gone
        return 1
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    with open("/proc/sys/kernel/hostname", "w", encoding="ascii") as file:
        file.write(told["name"])
    for argv in told["first"]:
        done = subprocess.run(argv, check=False)
        if done.returncode:
            print(f"{told['name']}: {' '.join(argv)}: ended with {done.returncode}", file=sys.stderr)
            return 1
    daemon = os.spawnvp(os.P_NOWAIT, told["daemon"][0], told["daemon"])
    while True:
        pid, status = os.wait()  # of orphans too: they become children of the first process
        if pid == daemon:
            return abs(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    sys.exit(main())
