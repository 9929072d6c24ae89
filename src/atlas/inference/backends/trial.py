"""Try a file from elsewhere in a process of its own, before this process loads it.

llama.cpp ends its process on a file that it does not expect, and a pattern in a tokenizer.json may
never end. No list of checks finds all of that, so another process loads the file first, encodes
text and runs two tokens, within limits on time and memory::

    python -m atlas.inference.backends.trial FILE SECONDS BYTES
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

import atlas
from atlas.errors import AtlasError, one_line, one_line_errors

SECONDS, BYTES_PER_SECOND = 20, 20_000_000  # of processor time, and more for a large model
SLOWER = 10  # a busy machine gives that share of a processor at least
MEMORY = 2 << 30  # bytes, and more for a large model
PLACE = re.compile(r"^/\S+: ")  # in the source of llama.cpp
ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",
    "GGML_NO_BACKTRACE": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TQDM_DISABLE": "1",
}
# Every byte, characters that no vocabulary has, the names of special tokens, and a long word.
TEXTS = (
    "a",
    " the  lamp\n\t",
    "x" * 256,
    bytes(range(256)).decode("latin-1"),
    "é€😀\u0378",
    "<s></s>",
    "",
)


@contextmanager
def trying(file: Path, engine: str) -> Iterator[None]:
    """Load a GGUF file or a tokenizer.json in another process; its failure is one error here.

    The other process starts before the block and ends after it, so that this process can import
    meanwhile what it needs.
    """
    size = file.stat().st_size
    seconds = SECONDS + size // BYTES_PER_SECOND
    source = str(Path(atlas.__file__).parent.parent)
    command = [
        sys.executable,
        "-P",
        "-m",
        __name__,
        str(file),
        str(seconds),
        str(MEMORY + 4 * size),
    ]
    with subprocess.Popen(
        command,
        env=os.environ | ENVIRONMENT | {"PYTHONPATH": source},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            yield
            _, messages = process.communicate(timeout=SLOWER * seconds)
        except subprocess.TimeoutExpired:
            raise AtlasError(f"{file}: {engine} did not load it in time") from None
        finally:
            process.kill()  # does nothing to one that has ended
    _check_result(process.returncode, messages, file, engine, seconds)


def _check_result(status: int, messages: bytes, file: Path, engine: str, seconds: int) -> None:
    """Raise an error for the exit status of a trial that failed."""
    lines = messages.decode(errors="replace").strip().splitlines() or ["no message"]
    if status > 0:
        reason = lines[-1].removeprefix("error: ")
        raise AtlasError(
            reason if str(file) in reason else f"{file}: {engine} can't load it ({reason})"
        )
    if status == -signal.SIGXCPU:
        raise AtlasError(f"{file}: {engine} takes more than {seconds} s to load it")
    if status < 0:
        reasons = [line for line in lines if "ASSERT" in line or "what():" in line]
        reason = PLACE.sub("", one_line((reasons or lines)[-1]))[:160]
        name = signal.Signals(-status).name
        raise AtlasError(
            f"{file}: {engine} crashes on it ({name}: {reason}); get another copy of the model"
        )


def limit_process(seconds: int, memory: int) -> None:
    """Limit the processor time and the memory of this process, where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    available = psutil.virtual_memory().available
    for what, limit in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_DATA, max(MEMORY // 2, min(memory, available))),
        (resource.RLIMIT_CORE, 0),
    ):
        with suppress(ValueError, OSError):  # a lower limit is in force, or none is possible
            resource.setrlimit(what, (limit, limit))


def try_tokenizer(file: Path) -> None:
    """Load a tokenizer.json and encode texts: a pattern in it may never end."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(file))
        for text in TEXTS:
            tokenizer.decode(tokenizer.encode(text).ids)
    except BaseException as error:  # a panic in Rust is not an Exception
        reason = one_line(error)[:200]
        raise AtlasError(f"{file}: tokenizers can't load it ({reason})") from None


def try_gguf(file: Path) -> None:
    """Load a GGUF file, encode texts and run two tokens."""
    from atlas.inference.backends.gguf import GGUFModel

    model = GGUFModel(file)
    for parse_special in (False, True):
        for text in TEXTS:
            ids = model.tokenize(text, add_special=not parse_special, parse_special=parse_special)
            model.decode(ids)
    ids = model.encode(TEXTS[0])[: model.context_length]
    backend = model.backend(1)
    backend.prefill({0: ids})
    if len(ids) < model.context_length:
        backend.step({0: ids[-1]})


if __name__ == "__main__":
    with one_line_errors():
        limit_process(int(sys.argv[2]), int(sys.argv[3]))
        given = Path(sys.argv[1])
        (try_tokenizer if given.suffix == ".json" else try_gguf)(given)
