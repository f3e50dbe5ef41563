"""Variables of whatever is started: what ranks get, and what they must not take for their own."""

from __future__ import annotations

import sys
from typing import Final

#: In the environment of all that a launch has started, so that what has left its group is found.
MARK: Final = "HARNESS_LAUNCH"
#: One thread a rank: more would change the order of sums, and there is one rank per core already.
#: The NVML check lets torch count GPUs without the driver, which no fork would survive.
FORK_ENV: Final = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",  # nothing leaves the host
}
#: An outer launcher's variables, which the ranks must not take for their own.
FOREIGN: Final = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
