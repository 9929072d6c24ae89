"""A page on a run: what was run, what came out of it, and how to make it again."""
