"""What people and machines are told: ``verdict.json``, the terminal."""
