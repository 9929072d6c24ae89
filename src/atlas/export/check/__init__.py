"""The check of exported files: each runtime, in a process of its own, against PyTorch."""
