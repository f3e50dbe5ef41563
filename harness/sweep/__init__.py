"""Many cells on a cluster: a job array for each kind of them, and one process that watches them all.

Nothing is imported here: a task on a node begins with this package (:mod:`harness.sweep.task`).
"""
