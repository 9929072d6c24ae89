"""Raw bytes to documents: decoding, normalizing, and the split into train, val and test."""
