"""The sentence, and what runs it: train, save, stop, resume, compare; say what was lost."""
