"""One training: the loop over epochs, a step, its state, what watches over it, and what it reports."""
