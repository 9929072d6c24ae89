"""Generation speed of our engines, transformers and llama.cpp with the same weights.

    python -m bench.generate                        # models/model
    python -m bench.generate --preset small --tokens 24 --rounds 3

All continue the same prompts greedily by the same number of tokens, one text and 16 at once, in
float32: our llama.cpp and PyTorch engines as `atlas generate` and the server run them, `generate`
of transformers on the exported folder, and llama.cpp's own greedy sampler on the exported F32 file.
They take turns in one process, each with OMP_NUM_THREADS threads or one per core; the first round
is a warm-up. Their outputs are compared, too. A preset has random weights.
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

from atlas.export.bundle import ModelBundle, ModelMetadata
from atlas.export.gguf.writer import write_gguf
from atlas.export.hugging_face import write_hugging_face
from atlas.inference.backends.gguf import LlamaBackend, LlamaModel, load_gguf
from atlas.inference.batch import InferenceBackend, RunningBatch, TokenSequence
from atlas.inference.generate import torch_backend
from atlas.inference.sampling import GREEDY
from atlas.model.transformer import Decoder
from atlas.model.weights import initialize, save_weights
from atlas.params.presets import with_presets
from atlas.params.runtime_support import architecture_of, class_of
from atlas.pipeline.processes import threads
from atlas.tokens.tokenizer import Tokenizer
from bench.shared import ROOT, config_for

BATCHES = (1, 16)
PROMPT_TOKENS = 16
Texts = list[list[int]]
Contestant = Callable[[Texts, int], Texts]


def main() -> None:
    """Print the tokens/s of all contestants."""
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
        bundle = ModelBundle.load(
            folder / "model" if options.preset else options.model,
            options.model.parent / "tokenizer",
            ModelMetadata("bench"),
        )
        contestants = load_contestants(bundle, folder)
    room = bundle.config.context_length - PROMPT_TOKENS
    if options.tokens > room:
        sys.exit(f"error: --tokens {options.tokens}: the context of this model has room for {room}")
    count = bundle.model.parameter_count()
    print(f"{count:,} weights, {threads()} threads, {options.tokens} tokens, medians")
    for batch in BATCHES:
        compare(contestants, random_prompts(batch, bundle.config.vocab_size), options)


def load_contestants(bundle: ModelBundle, folder: Path) -> dict[str, Contestant]:
    """Export the model and load it into every contestant."""
    options = bundle.config.model_dump()
    architecture, kind = architecture_of(options), class_of(options)
    if architecture is None or kind is None:
        sys.exit("error: this needs a model that both llama.cpp and transformers can run")
    file, length = folder / "model.gguf", bundle.config.context_length
    write_gguf(file, bundle, architecture, "f32")
    write_hugging_face(folder / "folder", bundle, kind)
    return {
        "atlas llama.cpp": atlas(LlamaBackend(load_gguf(file), max(BATCHES), length, exact=True)),
        "atlas torch": atlas(torch_backend(bundle.model, max(BATCHES))),
        "transformers": transformers(folder / "folder"),
        "llama.cpp": llama(file, length),
    }


def atlas(backend: InferenceBackend) -> Contestant:
    """An engine of ours with our sampling."""

    def run(prompts: Texts, tokens: int) -> Texts:
        sequences = [TokenSequence(prompt, tokens, GREEDY) for prompt in prompts]
        for _ in RunningBatch(backend, end_ids=()).run(sequences):
            pass
        return [sequence.output_ids for sequence in sequences]

    return run


def transformers(folder: Path) -> Contestant:
    """``generate`` of transformers with its own cache."""
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False
    ).eval()

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
    """llama.cpp with its own greedy sampler; Python only passes tokens on."""
    llama_cpp.disable_logging()
    model = LlamaModel(str(file))
    params = llama_cpp.LlamaContextParams()
    params.n_seq_max = max(BATCHES)
    params.n_ctx = max(BATCHES) * context_length
    params.n_batch = params.n_ubatch = max(BATCHES) * PROMPT_TOKENS
    context = llama_cpp.LlamaContext(model, params)
    context.set_n_threads(threads(), threads())
    greedy = llama_cpp.LlamaSampler(llama_cpp.LlamaSamplerChainParams())
    greedy.add_greedy()

    def run(prompts: Texts, tokens: int) -> Texts:
        context.kv_cache_clear()
        rows = range(len(prompts))
        batch = llama_cpp.LlamaBatch(n_tokens=len(prompts) * PROMPT_TOKENS, embd=0, n_seq_max=1)
        for row in rows:
            for position, token in enumerate(prompts[row]):
                batch.add(token, position, [row], position == PROMPT_TOKENS - 1)
        context.decode(batch)
        newest = [greedy.sample(context, row * PROMPT_TOKENS + PROMPT_TOKENS - 1) for row in rows]
        written = [[token] for token in newest]
        for position in range(PROMPT_TOKENS, PROMPT_TOKENS + tokens - 1):
            batch = llama_cpp.LlamaBatch(n_tokens=len(prompts), embd=0, n_seq_max=1)
            for row in rows:
                batch.add(newest[row], position, [row], True)
            context.decode(batch)
            newest = [greedy.sample(context, row) for row in rows]
            for row in rows:
                written[row].append(newest[row])
        return written

    return run


def compare(
    contestants: dict[str, Contestant], prompts: Texts, options: argparse.Namespace
) -> None:
    """Run all contestants in turn and print their speeds."""
    speeds: dict[str, list[float]] = {name: [] for name in contestants}
    outputs: dict[str, Texts] = {}
    for number in range(options.rounds + 1):
        for name, run in contestants.items():
            started = time.perf_counter()
            outputs[name] = run(prompts, options.tokens)
            seconds = time.perf_counter() - started
            if number:
                speeds[name].append(len(prompts) * options.tokens / seconds)
    first = next(iter(contestants))
    print(f"\n{len(prompts)} at once")
    for name, values in speeds.items():
        ratios = sorted(a / b for a, b in zip(speeds[first], values, strict=True))
        same = sum(a == b for a, b in zip(outputs[name], outputs[first], strict=True))
        print(
            f"{name:16}{statistics.median(values):8,.0f} tokens/s ({min(values):,.0f} to "
            f"{max(values):,.0f}); {first} over it {statistics.median(ratios):5.2f} "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f}); {same} of {len(prompts)} texts the same"
        )


def random_prompts(count: int, vocab_size: int) -> Texts:
    """Random ids."""
    generator = torch.Generator().manual_seed(1)
    shape = (count, PROMPT_TOKENS)
    prompts: Texts = torch.randint(3, vocab_size, shape, generator=generator).tolist()
    return prompts


def store_preset(folder: Path, preset: str, tokenizer: Tokenizer) -> None:
    """Store a model with the shape of a preset, random weights and an existing vocabulary."""
    config = config_for(with_presets(ROOT, [preset]).model.model_dump(), tokenizer)
    model = Decoder(config)
    initialize(model, 1)
    folder.mkdir()
    config.write(folder)
    save_weights(model, folder / "model.safetensors")


if __name__ == "__main__":
    main()
