"""Raw files to documents: unpacking, encodings and file formats."""
