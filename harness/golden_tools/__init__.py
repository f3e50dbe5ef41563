"""What ``harness goldens …`` does: list, show, diff, lint, import and approve."""
