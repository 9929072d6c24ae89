"""Load any model and generate text with it."""
