"""Faults planted in Megatron-LM's own code, in a copy of the user's checkout; what the gate says of them."""
