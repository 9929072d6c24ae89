"""Models with their tokenizers, opened from whatever they were stored as."""
