"""Text from a model: sampling, token by token."""
