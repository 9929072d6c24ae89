"""GGUF files, run by llama.cpp through cyllama."""

import struct
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from atlas.errors import AtlasError, one_line
from atlas.inference.backends.base import MAX_CONTEXT_LENGTH, PLAIN_CHAT, ForeignModel
from atlas.inference.batch import InferenceBackend
from atlas.model.logits import Logits
from atlas.pipeline.gguf_file import GGUFFile, read_gguf
from atlas.pipeline.processes import loading_llama_cpp, threads
from atlas.tokens.byte_level import byte_letters

with loading_llama_cpp():
    from cyllama.llama import llama_cpp

SPACE = "\u2581"  # in a piece of sentencepiece
BYTE, CONTROL = 1 << 5, 1 << 3  # token attributes of llama.cpp
CHAT_TEMPLATE = "tokenizer.chat_template"
MAX_UBATCH = 512  # tokens computed at once, llama.cpp's own default
BYTE_LEVEL = "gpt2"  # tokenizer.ggml.model of vocabularies that spell bytes as letters


class LlamaModel(llama_cpp.LlamaModel):  # type: ignore[misc]
    """A model in llama.cpp; cyllama 0.2.18 needs ``n_vocab`` to copy logits but lacks it."""

    @cached_property
    def n_vocab(self) -> int:
        """V, the number of tokens."""
        size: int = self.get_vocab().n_vocab
        return size


def load_gguf(path: Path) -> LlamaModel:
    """Load a file into llama.cpp."""
    llama_cpp.disable_logging()
    params = llama_cpp.LlamaModelParams()
    # A mapped file that is cut short while it is in use ends the process (SIGBUS), and one that is
    # overwritten changes the weights.
    params.use_mmap = False
    try:
        return LlamaModel(str(path), params)
    except Exception:  # llama.cpp gives the reason only in its long log
        raise AtlasError(
            f"{path}: llama.cpp can't load it; `atlas inspect {path}` shows its contents"
        ) from None


def check_runnable(path: Path) -> GGUFFile:
    """Read the header; reject what llama.cpp would load but can't run."""
    file = read_gguf(path)
    architecture = file.get("general.architecture")
    length = file.get(f"{architecture}.context_length")
    if not isinstance(architecture, str) or not isinstance(length, int):
        problem = "no general.architecture with a context_length: not a language model"
    elif length < 1:
        problem = f"{architecture}.context_length is {length}"
    elif not file.length("tokenizer.ggml.tokens"):
        problem = "no tokenizer"
    elif not isinstance(file.get(CHAT_TEMPLATE, ""), str):
        problem = f"{CHAT_TEMPLATE} is not a text"
    elif file.byte_order != sys.byteorder:
        problem = f"its numbers are {file.byte_order}-endian"
    else:
        return file
    raise AtlasError(
        f"{path}: llama.cpp can't run it ({problem}); `atlas inspect {path}` shows its contents"
    )


def new_context(
    model: LlamaModel, slots: int, context_length: int, *, exact: bool
) -> llama_cpp.LlamaContext:
    """Make a context for several texts of up to ``context_length`` tokens each.

    If ``exact``, keys, values and attention are in float32, as in PyTorch, instead of float16. That
    takes twice the memory, and logits differ from PyTorch's by only about 1e-5.
    """
    params = llama_cpp.LlamaContextParams()
    params.n_seq_max = slots
    params.n_ctx = params.n_batch = slots * context_length
    # The buffers of this many tokens would take gigabytes for a long context.
    params.n_ubatch = max(slots, min(context_length, MAX_UBATCH))
    if exact:
        params.type_k = params.type_v = 0  # GGML_TYPE_F32
        params.flash_attn_type = 0  # off
    context = llama_cpp.LlamaContext(model, params)
    context.set_n_threads(threads(), threads())
    return context


def copy_logits(
    context: llama_cpp.LlamaContext, indices: Collection[int], vocab_size: int
) -> Logits:
    """The logits (N, V) after N tokens of the last batch."""
    logits = np.empty((len(indices), vocab_size), np.float32)
    numbers = struct.Struct(f"{vocab_size}f")
    for row, index in zip(logits, indices, strict=True):
        # cyllama copies logits to a list; struct reads a list three times as fast as NumPy.
        numbers.pack_into(row.data, 0, *context.get_logits_ith(index))
    return logits


class GGUFModel(ForeignModel):
    """Any GGUF file that llama.cpp runs, with the tokenizer in it."""

    engine = "llama.cpp"

    def __init__(self, path: Path) -> None:
        file = check_runnable(path)
        self._model = load_gguf(path)
        self._vocabulary = self._model.get_vocab()
        self.name = path.stem
        self.vocab_size = self._model.n_vocab
        length = file.get(f"{file.get('general.architecture')}.context_length")
        self.context_length = min(length, MAX_CONTEXT_LENGTH)
        ids = range(self.vocab_size)
        self.end_ids = frozenset(each for each in ids if self._vocabulary.is_eog(each))
        byte_level = file.get("tokenizer.ggml.model") == BYTE_LEVEL
        letters = byte_letters() if byte_level else {SPACE: b" "}
        try:
            self._pieces = [self._piece(each, letters) for each in ids]
        except ValueError as error:  # also of a piece that is not UTF-8
            raise AtlasError(f"{path}: damaged tokenizer ({one_line(error)})") from None
        self.chat_template = file.get(CHAT_TEMPLATE) or PLAIN_CHAT
        bos, eos = self._vocabulary.token_bos(), self._vocabulary.token_eos()
        self.bos = bos if bos >= 0 else None
        bos_text, eos_text = (
            self._vocabulary.get_text(token) if token >= 0 else "" for token in (bos, eos)
        )
        self.special_tokens = {"bos_token": bos_text, "eos_token": eos_text}
        get_attr, get_text = self._vocabulary.get_attr, self._vocabulary.get_text
        self.special_names = {get_text(each) for each in ids if get_attr(each) & CONTROL}

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """The ids of a text."""
        valid = text.encode("utf-8", errors="replace").decode()
        options = {"add_special": add_special, "parse_special": parse_special}
        try:
            return list(self._vocabulary.tokenize(valid, **options))
        except Exception as error:
            raise AtlasError(
                f"{self.name}: llama.cpp can't encode this text: {one_line(error)[:200]}"
            ) from None

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""
        return b"".join(self._pieces[each] for each in ids).decode("utf-8", errors="replace")

    def piece_bytes(self, token: int) -> bytes:
        """The bytes of one id."""
        return self._pieces[token]

    def backend(self, slots: int) -> InferenceBackend:
        """A backend with room for this many texts at once."""
        return LlamaBackend(self._model, slots, self.context_length)

    def _piece(self, token: int, letters: Mapping[str, bytes]) -> bytes:
        """The bytes of one id; none for a special token. ``letters`` stand for other bytes."""
        attributes = self._vocabulary.get_attr(token)
        text: str = self._vocabulary.get_text(token)
        if attributes & CONTROL:
            return b""
        if attributes & BYTE:
            return bytes([int(text[1:-1], 16)])  # <0x2D>
        return b"".join(letters.get(each) or each.encode() for each in text)


class LlamaBackend(InferenceBackend):
    """A llama.cpp context with one sequence per slot."""

    def __init__(
        self, model: LlamaModel, slots: int, context_length: int, *, exact: bool = False
    ) -> None:
        super().__init__(slots, context_length)
        self._context = new_context(model, slots, context_length, exact=exact)
        self._vocab_size = model.n_vocab
        self._lengths = [0] * slots

    def prefill(self, texts: Mapping[int, Sequence[int]]) -> Logits:
        """Replace the texts of slots."""
        self._clear(texts)
        return self._decode([(slot, each) for slot, ids in texts.items() for each in ids])

    def score(self, slot: int, ids: Sequence[int]) -> Logits:
        """Replace the text of a slot."""
        self._clear([slot])
        return self._decode([(slot, each) for each in ids], every=True)

    def step(self, tokens: Mapping[int, int]) -> Logits:
        """Append a token to the given slots."""
        return self._decode(list(tokens.items()))

    def _clear(self, slots: Iterable[int]) -> None:
        for slot in slots:
            self._context.memory_seq_rm(slot, -1, -1)
            self._lengths[slot] = 0

    def _decode(self, tokens: Sequence[tuple[int, int]], *, every: bool = False) -> Logits:
        """Logits after the last token of each slot, or after every token."""
        last = {slot: index for index, (slot, _) in enumerate(tokens)}
        read = range(len(tokens)) if every else last.values()
        batch = llama_cpp.LlamaBatch(n_tokens=len(tokens), embd=0, n_seq_max=1)
        for index, (slot, token) in enumerate(tokens):
            batch.add(token, self._lengths[slot], [slot], every or last[slot] == index)
            self._lengths[slot] += 1
        try:
            self._context.decode(batch)
        except Exception as error:
            raise AtlasError(f"llama.cpp can't run the model: {one_line(error)[:200]}") from None
        return copy_logits(self._context, read, self._vocab_size)
