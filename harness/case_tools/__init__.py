"""What ``harness cases …`` does: list and lint."""
