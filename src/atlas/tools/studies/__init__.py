"""Studies: one question, the experiments that answer it, a table and a plot."""
