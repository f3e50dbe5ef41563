"""transformers' Trainer: the random state is not loaded, as in transformers#17032."""

from transformers import Trainer

assert Trainer._load_rng_state  # of another release it may have another name
Trainer._load_rng_state = lambda self, checkpoint: None
