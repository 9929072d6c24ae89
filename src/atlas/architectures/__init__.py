"""Which combinations of model options the runtimes that people use can express."""
