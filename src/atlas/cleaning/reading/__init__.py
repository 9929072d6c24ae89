"""Raw files to documents: what they are packed in, their encoding, their format."""
