"""The training loop: schedule, optimizer, validation, checkpoints."""
