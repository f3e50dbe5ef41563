"""A checkout of Megatron-LM under the gate, on CPUs: small cases recorded, and then green."""
