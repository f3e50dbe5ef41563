"""Two tasks below srun, on two nodes: the first says each line that the second sends it; for ever."""

from __future__ import annotations

import os
import socket
import time

PORT = 29501


def main() -> None:
    """Ends with status 5 where the other is gone, and never where the other is silent."""
    if os.environ["SLURM_PROCID"] == "0":
        with (
            socket.create_server(("", PORT)) as server,
            server.accept()[0] as other,
            other.makefile() as lines,
        ):
            for line in lines:
                print(line, end="", flush=True)
        raise SystemExit(5)
    while True:
        try:
            other = socket.create_connection((os.environ["FIRST"], PORT))
            break
        except ConnectionRefusedError:  # it has not begun
            time.sleep(0.02)
    for number in range(1_000_000):
        other.sendall(f"line {number}\n".encode())
        time.sleep(0.05)


if __name__ == "__main__":
    main()
