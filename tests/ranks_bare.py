"""The small trainer without its preload: nothing heavy is imported, so it starts at once."""

from ranks import run

__all__ = ["run"]
