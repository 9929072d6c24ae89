"""Studies: one question, the experiments that answer it, one table and one plot."""
