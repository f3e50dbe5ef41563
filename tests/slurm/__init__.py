"""A real Slurm on this machine, made for the tests, and what is run on it."""
