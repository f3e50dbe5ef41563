"""This machine: what it has, who has it now, and which code and libraries run on it."""
