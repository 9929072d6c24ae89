"""A GGUF file in llama.cpp, through cyllama."""

from cyllama.llama import llama_cpp


class LlamaModel(llama_cpp.LlamaModel):  # type: ignore[misc]
    """cyllama 0.2.18 asks the model for ``n_vocab`` when it copies logits, and has none."""

    @property
    def n_vocab(self) -> int:
        """V, the number of tokens."""
        size: int = self.get_vocab().n_vocab
        return size
