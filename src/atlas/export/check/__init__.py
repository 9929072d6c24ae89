"""Checks of exported files: each runtime, in its own process, against PyTorch."""
