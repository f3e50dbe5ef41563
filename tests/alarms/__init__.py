"""Clean runs, which must never fail."""
