"""What goes with exported files: a model card, and what Ollama needs."""
