"""One step: the gradient of a batch, and what it does to the weights, in one process or in many."""
