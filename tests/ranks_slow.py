"""The small trainer, slow to import."""

import time

from ranks import run

__all__ = ["run"]

time.sleep(20)
