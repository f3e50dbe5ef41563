"""What GitHub is told: the matrix of jobs, the job summary, annotations. Standard library only.

Its rules of escaping and its limits are known here, and in :mod:`harness.alarm`, nowhere else.
"""
