"""Atlas: from raw text to a small language model that llama.cpp runs."""
