"""Sound scripts whose checkpoints hold circumstances, which are no loss; and real losses beside them."""
