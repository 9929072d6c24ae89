"""Models in the formats that others open: GGUF, and the proof that llama.cpp agrees."""
