"""A GGUF file, run by llama.cpp.

A GGUF file in llama.cpp, through cyllama.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from cyllama.llama import llama_cpp

from atlas.errors import AtlasError
from atlas.inference.backends.loaded_model import (
    MOST_CONTEXT,
    Message,
    OpenedModel,
    refuse_no_beginning,
    template_of,
)
from atlas.inference.slots import Slots
from atlas.model.logits import Logits
from atlas.pipeline.processes import threads


class LlamaModel(llama_cpp.LlamaModel):  # type: ignore[misc]
    """cyllama 0.2.18 asks the model for ``n_vocab`` when it copies logits, and has none."""

    @property
    def n_vocab(self) -> int:
        """V, the number of tokens."""
        size: int = self.get_vocab().n_vocab
        return size


MARK = "\u2581"  # a blank in a piece of sentencepiece
BYTE, CONTROL = 1 << 5, 1 << 3  # llama.cpp's attributes of a token
BYTE_LEVEL = "gpt2"  # tokenizer.ggml.model of vocabularies whose pieces spell bytes as letters
TEMPLATE = "tokenizer.chat_template"


class GGUFModel(OpenedModel):
    """Any GGUF file that llama.cpp runs."""

    form = "GGUF"

    def __init__(self, path: Path) -> None:
        """Loads a file.

        Raises:
            AtlasError: llama.cpp can't.
        """
        llama_cpp.disable_logging()
        try:
            self._model = LlamaModel(str(path))
        except Exception:  # its message is in the log, which says too much
            raise AtlasError(
                f"{path}: llama.cpp can't load it; `atlas inspect {path}` shows what is in it"
            ) from None
        self._vocabulary = self._model.get_vocab()
        self._metadata: dict[str, str] = self._model.metadata()
        self.name = path.stem
        self.vocab_size = self._model.n_vocab
        self.context_length = min(int(self._model.n_ctx_train), MOST_CONTEXT)
        ids = range(self.vocab_size)
        self.ends = frozenset(each for each in ids if self._vocabulary.is_eog(each))
        self._pieces = [self._piece(each) for each in ids]

    def encode(self, text: str) -> list[int]:
        """The ids of a prompt, as the file says that one begins."""
        return self._encode(text, add_special=True, parse_special=False)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""
        return b"".join(self._pieces[each] for each in ids).decode("utf-8", errors="replace")

    def piece_bytes(self, identity: int) -> bytes:
        """The bytes of one id."""
        return self._pieces[identity]

    def slots(self, count: int) -> Slots:
        """Places in which to continue so many texts at once."""
        return GGUFSlots(self._model, count, self.context_length)

    def conversation(self, messages: Sequence[Message]) -> list[int]:
        """In the template of the file, if it has one."""
        if TEMPLATE not in self._metadata:
            return super().conversation(messages)
        from transformers.utils.chat_template_utils import render_jinja_template

        begin, end = self._vocabulary.token_bos(), self._vocabulary.token_eos()
        with template_of(self.name):
            (text,), _ = render_jinja_template(
                conversations=[list(messages)],
                chat_template=self._metadata[TEMPLATE],
                add_generation_prompt=True,
                bos_token=self._vocabulary.get_text(begin) if begin >= 0 else "",
                eos_token=self._vocabulary.get_text(end) if end >= 0 else "",
            )
        return self._encode(text, add_special=False, parse_special=True)

    def _encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        sound = text.encode("utf-8", errors="replace").decode()
        ids = self._vocabulary.tokenize(sound, add_special=add_special, parse_special=parse_special)
        begin = self._vocabulary.token_bos()
        return refuse_no_beginning(self.name, list(ids), begin if begin >= 0 else None)

    def _piece(self, identity: int) -> bytes:
        """The bytes of an id; of a special one, none."""
        attributes = self._vocabulary.get_attr(identity)
        text: str = self._vocabulary.get_text(identity)
        if attributes & CONTROL:
            return b""
        if attributes & BYTE:
            return bytes([int(text[1:-1], 16)])  # <0x2D>
        if self._metadata.get("tokenizer.ggml.model") == BYTE_LEVEL:
            letters = _bytes_of_letters()
            return b"".join(letters.get(each, each.encode()) for each in text)
        return text.replace(MARK, " ").encode()


class GGUFSlots(Slots):
    """Sequences of one context of llama.cpp."""

    def __init__(self, model: LlamaModel, count: int, context_length: int) -> None:
        super().__init__(count, context_length)
        params = llama_cpp.LlamaContextParams()
        params.n_seq_max = count
        params.n_ctx = count * context_length
        params.n_batch = params.n_ubatch = max(count, context_length)
        self._context = llama_cpp.LlamaContext(model, params)
        self._context.set_n_threads(threads(), threads())
        self._vocab_size = model.n_vocab
        self._lengths = [0] * count

    def begin(self, slot: int, ids: Sequence[int]) -> Logits:
        """Reads a text in place of what a slot had."""
        self._context.memory_seq_rm(slot, -1, -1)
        self._lengths[slot] = 0
        logits: Logits = self._read([(slot, each) for each in ids])[0]
        return logits

    def step(self, tokens: Mapping[int, int]) -> Logits:
        """Reads a token more in each of some slots."""
        return self._read(list(tokens.items()))

    def _read(self, tokens: Sequence[tuple[int, int]]) -> Logits:
        """Logits after the last token of each slot."""
        last = {slot: place for place, (slot, _) in enumerate(tokens)}
        batch = llama_cpp.LlamaBatch(n_tokens=len(tokens), embd=0, n_seq_max=1)
        for place, (slot, token) in enumerate(tokens):
            batch.add(token, self._lengths[slot], [slot], last[slot] == place)
            self._lengths[slot] += 1
        self._context.decode(batch)
        rows: Logits = np.stack(
            [np.array(self._context.get_logits_ith(place), np.float32) for place in last.values()]
        )
        return rows


def _bytes_of_letters() -> dict[str, bytes]:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return {letter: bytes([byte]) for byte, letter in bytes_to_unicode().items()}
