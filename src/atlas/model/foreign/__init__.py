"""Models from elsewhere: their configs and tensors, to and from those of Atlas."""
