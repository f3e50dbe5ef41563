"""How the ranks of the native trainer talk: torch's own collectives, or shared memory on one host."""
