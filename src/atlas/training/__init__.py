"""Training: the loop, what it logs, and how it is started."""
