"""Training, in this order: trainer (the loop), train_step, optimizers, schedule, metrics."""
