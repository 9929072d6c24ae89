"""The model as a program of its own: torch.export and ONNX, with keys and values as inputs."""
