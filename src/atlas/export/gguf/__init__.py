"""The GGUF file of a model: its tensors, tokenizer and metadata under llama.cpp's names."""
