"""GPT and MoE on torch alone: what the harness trains where no other trainer is asked for."""
