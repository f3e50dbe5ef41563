"""Start the ranks of a phase, watch them, end them all.

:mod:`harness.launch.launcher` is the harness's side; the others run in the warm parent and its ranks. Nothing
is imported here: the parent starts for every cell, and it waits for each import.
"""
