"""A checkout of Megatron-LM as it is, and its recipes."""
