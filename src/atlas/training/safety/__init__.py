"""What keeps a run from being lost: checkpoints, stopping, diagnoses, memory."""
