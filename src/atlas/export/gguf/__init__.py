"""The GGUF format: weights, tokenizer and metadata in one file that llama.cpp runs."""
