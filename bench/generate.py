"""How fast a model writes, beside transformers and llama.cpp with the same weights.

    python -m bench.generate                        # models/model, which the pipeline made
    python -m bench.generate --preset small --tokens 24 --rounds 3

All continue the same prompts greedily by the same number of tokens, one text and 16 at once, in
float32: Atlas as `atlas generate` and the server do, `generate` of transformers on the exported
folder, and llama.cpp on the exported F32 file with its own greedy sampler. They take turns in one
process, each with a thread a core or OMP_NUM_THREADS of them; the first round warms up and is not
counted. What they write is compared, too. A preset has random weights.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from cyllama.llama import llama_cpp
from transformers import AutoModelForCausalLM

from atlas.export.bundle import ModelBundle
from atlas.export.gguf.writer import write_gguf
from atlas.export.hugging_face.folder import write_hugging_face
from atlas.export.metadata import ModelMetadata
from atlas.inference.backends.gguf import LlamaModel
from atlas.inference.batch import RunningBatch, TokenSequence
from atlas.inference.generate import torch_backend
from atlas.inference.sampling import GREEDY
from atlas.model.config import ModelConfig
from atlas.model.decoder import Decoder
from atlas.model.initialize import initialise
from atlas.model.language_model import LanguageModel
from atlas.model.storage import save_weights
from atlas.params.presets import with_presets
from atlas.params.runtime_support import architecture_of, class_of
from atlas.pipeline.processes import threads
from atlas.tokens.tokenizer import Tokenizer
from bench.shared import ROOT

BATCHES = (1, 16)
PROMPT = 16  # tokens
Texts = list[list[int]]
Contestant = Callable[[Texts, int], Texts]


def main() -> None:
    """Prints tokens/s of all, and Atlas over each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, default=ROOT / "models/model")
    parser.add_argument("--preset", help="a model of random weights instead")
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    tokenizer = Tokenizer.load(options.model.parent / "tokenizer")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.preset:
            store_preset(folder / "model", options.preset, tokenizer)
        source = ModelBundle.load(
            folder / "model" if options.preset else options.model,
            options.model.parent / "tokenizer",
            ModelMetadata("bench"),
        )
        contestants = exported(source, folder)
    room = source.config.context_length - PROMPT
    if options.tokens > room:
        sys.exit(f"error: --tokens {options.tokens}: this model has room for {room} at most")
    count = source.model.parameter_count()
    print(f"{count:,} weights, {threads()} threads, {options.tokens} tokens, medians")
    for batch in BATCHES:
        compare(contestants, prompts(batch, source.config.vocab_size), options)


def exported(source: ModelBundle, folder: Path) -> dict[str, Contestant]:
    """The contestants, each with the model loaded."""
    described = source.config.model_dump()
    architecture, kind = architecture_of(described), class_of(described)
    if architecture is None or kind is None:
        sys.exit("error: llama.cpp and transformers must both know such a model")
    write_gguf(folder / "model.gguf", source, architecture, "f32")
    write_hugging_face(folder / "folder", source, kind)
    return {
        "atlas": atlas(source.model),
        "transformers": transformers(folder / "folder"),
        "llama.cpp": llama(folder / "model.gguf", source.config.context_length),
    }


def atlas(model: LanguageModel) -> Contestant:
    """As ``atlas generate`` and the server."""
    slots = torch_backend(model, max(BATCHES))

    def run(prompts: Texts, tokens: int) -> Texts:
        batch = RunningBatch(slots, ends=())
        texts = [TokenSequence(prompt, tokens, GREEDY) for prompt in prompts]
        for text in texts:
            batch.add(text)
        while batch.active:
            batch.step()
        return [text.output_ids for text in texts]

    return run


def transformers(folder: Path) -> Contestant:
    """``generate`` with its own cache."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.inference_mode()
    def run(prompts: Texts, tokens: int) -> Texts:
        ids = torch.tensor(prompts)
        whole = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=False,
        )
        written: Texts = whole[:, ids.shape[1] :].tolist()
        return written

    return run


def llama(file: Path, context_length: int) -> Contestant:
    """llama.cpp's own decoding and greedy sampler; Python hands tokens over alone."""
    llama_cpp.disable_logging()
    model = LlamaModel(str(file))
    params = llama_cpp.LlamaContextParams()
    params.n_seq_max = max(BATCHES)
    params.n_ctx = max(BATCHES) * context_length
    params.n_batch = params.n_ubatch = max(BATCHES) * PROMPT
    context = llama_cpp.LlamaContext(model, params)
    context.set_n_threads(threads(), threads())
    greedy = llama_cpp.LlamaSampler(llama_cpp.LlamaSamplerChainParams())
    greedy.add_greedy()

    def run(prompts: Texts, tokens: int) -> Texts:
        context.kv_cache_clear()
        rows = range(len(prompts))
        batch = llama_cpp.LlamaBatch(n_tokens=len(prompts) * PROMPT, embd=0, n_seq_max=1)
        for row in rows:
            for position, token in enumerate(prompts[row]):
                batch.add(token, position, [row], position == PROMPT - 1)
        context.decode(batch)
        newest = [greedy.sample(context, row * PROMPT + PROMPT - 1) for row in rows]
        written = [[token] for token in newest]
        for position in range(PROMPT, PROMPT + tokens - 1):
            batch = llama_cpp.LlamaBatch(n_tokens=len(prompts), embd=0, n_seq_max=1)
            for row in rows:
                batch.add(newest[row], position, [row], True)
            context.decode(batch)
            newest = [greedy.sample(context, row) for row in rows]
            for row in rows:
                written[row].append(newest[row])
        return written

    return run


def compare(contestants: dict[str, Contestant], given: Texts, options: argparse.Namespace) -> None:
    """Lets all write the same, in turn, and prints how fast they were."""
    speeds: dict[str, list[float]] = {name: [] for name in contestants}
    written: dict[str, Texts] = {}
    for number in range(options.rounds + 1):
        for name, run in contestants.items():
            started = time.perf_counter()
            written[name] = run(given, options.tokens)
            seconds = time.perf_counter() - started
            if number:
                speeds[name].append(len(given) * options.tokens / seconds)
    print(f"\n{len(given)} at once")
    for name, found in speeds.items():
        ratios = sorted(a / b for a, b in zip(speeds["atlas"], found, strict=True))
        same = sum(a == b for a, b in zip(written[name], written["atlas"], strict=True))
        print(
            f"{name:13}{statistics.median(found):8,.0f} tokens/s ({min(found):,.0f} to "
            f"{max(found):,.0f}); Atlas over it {statistics.median(ratios):5.2f} "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f}); {same} of {len(given)} texts the same"
        )


def prompts(count: int, vocab_size: int) -> Texts:
    """Random ids."""
    generator = torch.Generator().manual_seed(1)
    found: Texts = torch.randint(3, vocab_size, (count, PROMPT), generator=generator).tolist()
    return found


def store_preset(folder: Path, preset: str, tokenizer: Tokenizer) -> None:
    """Stores a model of a preset's shape, with random weights and a vocabulary that is there."""
    config = ModelConfig(
        **with_presets(ROOT, [preset]).model.model_dump(),
        vocab_size=tokenizer.vocab_size,
        eos=tokenizer.eos,
        separator=None,
        add_bos_token=False,
        tokenizer_sha256=tokenizer.sha256,
        learned_tokens=0,
    )
    model = Decoder(config)
    initialise(model, 1)
    folder.mkdir()
    config.write(folder)
    save_weights(model, folder / "model.safetensors")


if __name__ == "__main__":
    main()
