"""One loader per kind of model: Atlas, GGUF, Hugging Face."""
