"""Raw bytes to documents: decoding, normalising, and the split into train, val and test."""
