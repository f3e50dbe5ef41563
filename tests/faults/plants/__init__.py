"""Faults as patches of the native trainer, which knows nothing of them: one function each."""
