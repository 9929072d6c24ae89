"""Questions answered by experiments."""
