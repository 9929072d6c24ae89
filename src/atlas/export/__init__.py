"""A model in every format that its users open, proven in the runtimes that read them."""
