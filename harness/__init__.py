"""Prove that distributed LLM training survives being stopped and resumed."""

__version__ = "0.1.0"
