"""Anybody's script: two argument lists, and a folder to save into.

Nothing is imported here: :mod:`harness.trainers.command.preemption` starts for every phase.
"""
