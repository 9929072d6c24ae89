"""Export to GGUF, Hugging Face, ONNX and torch.export, with a check in each runtime."""
