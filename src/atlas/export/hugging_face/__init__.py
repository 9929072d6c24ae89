"""A Hugging Face folder: config, weights and tokenizer that transformers loads."""
