"""What the model learned: loss over whole splits, and samples."""
