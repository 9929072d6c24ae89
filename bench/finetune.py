"""Measure fine-tuning against transformers, and LoRA against peft: tokens/s and peak memory.

    pip install peft
    python -m bench.finetune                     # about 6 minutes on two cores
    python -m bench.finetune --batches 1 --rounds 9 --tune-peers

All train a Llama of the shape of SmolLM2-135M (random weights, float32, windows of 256 tokens) on
the same batches: forward, loss, backward, clipping to a norm of 1, fused AdamW. LoRA has rank 8 on
all seven matrices of a block, without dropout. Atlas runs its `TrainStep` as in a run of 250,000
tokens, compiled if a C++ compiler is there. transformers computes its own loss from `labels`, with
fused attention, as its Trainer does. Unless you ask, peers run as they come: not compiled, in
memory pages of 4 KB (Atlas asks for 2 MB). Each contestant is a process of its own. The two of a
pair take turns, one step at a time; medians, the ratio of each round and the largest resident
memory are printed.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import IO, Any

import torch
from torch import Tensor, nn

from atlas.model.counts import count
from atlas.model.transformer import Decoder
from atlas.model.weights import initialize
from atlas.params.schema import load_params
from atlas.tokens.windows import TokenBatch
from atlas.training.distributed import DistributedContext
from atlas.training.lora import add_lora
from atlas.training.memory import reuse_memory
from atlas.training.train_step import TrainStep, should_compile
from bench.model import config_of
from bench.shared import ROOT

VOCAB_SIZE, WIDTH, LAYERS, HEADS, KEY_HEADS, HIDDEN = 49_152, 576, 30, 9, 3, 1536
LENGTH = 256  # tokens of a window
RANK, ALPHA = 8, 16
TOKENS = 250_000  # of a run, for the choice to compile
CLIP = 1.0
LR = 1e-4
THEIR_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
Step = Callable[[Tensor], float]


def main() -> None:
    """Compare each pair at each batch size, or be one of the contestants."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8], help="windows per step")
    parser.add_argument("--rounds", type=int, help="default: 5, or 2 of large batches")
    parser.add_argument("--tune-peers", action="store_true", help="torch.compile and large pages")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        name, mode = options.worker
        work(name, mode, options.batches[0], compiled=options.tune_peers)
        return
    print(
        f"float32, {torch.get_num_threads()} threads, windows of {LENGTH} tokens; load of the "
        f"machine before: {os.getloadavg()[0]:.1f}"
    )
    for mode, peer in (("full", "transformers"), ("lora", "peft")):
        for batch in options.batches:
            rounds = options.rounds or (5 if batch < 4 else 2)
            compare(mode, peer, batch, rounds, tune_peers=options.tune_peers)


def compare(mode: str, peer: str, batch: int, rounds: int, *, tune_peers: bool) -> None:
    """Print speeds, memory and ratios of one pair."""
    pair = {name: Contestant(name, mode, batch, tune_peers=tune_peers) for name in (peer, "atlas")}
    seconds: dict[str, list[float]] = {name: [] for name in pair}
    for _ in range(rounds):
        for name, contestant in pair.items():
            seconds[name].append(contestant.step())
    tokens = batch * LENGTH
    title = "LoRA" if mode == "lora" else "full fine-tuning"
    print(f"{title}, batch {batch}; tokens/s, median (best)")
    peaks = {name: contestant.end() for name, contestant in pair.items()}
    for name, each in seconds.items():
        first = pair[name].report
        print(
            f"  {name:13} {tokens / statistics.median(each):7,.1f} ({tokens / min(each):,.1f})  "
            f"{peaks[name] / 1e9:.2f} GB  {first['trained']:,} of {first['weights']:,} weights "
            f"trained, {'compiled' if first['compiled'] else 'eager'}, first steps "
            f"{first['seconds']:.0f} s"
        )
    ratios = sorted(a / b for a, b in zip(seconds[peer], seconds["atlas"], strict=True))
    print(
        f"  atlas against {peer}: {statistics.median(ratios):.2f} times as fast (rounds "
        f"{ratios[0]:.2f} to {ratios[-1]:.2f}), {peaks['atlas'] / peaks[peer]:.2f} of its memory",
        flush=True,
    )


class Contestant:
    """A process that trains, one step whenever asked."""

    def __init__(self, name: str, mode: str, batch: int, *, tune_peers: bool) -> None:
        command = [sys.executable, "-m", "bench.finetune", "--worker", name, mode]
        command += ["--batches", str(batch), *(["--tune-peers"] if tune_peers else [])]
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"}
        environment["THP_MEM_ALLOC_ENABLE"] = str(int(name == "atlas" or tune_peers))
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.report = self._read()

    def step(self) -> float:
        """Take one step; return its seconds."""
        stdin: IO[str] = self._process.stdin  # type: ignore[assignment]
        print("step", file=stdin, flush=True)
        return float(self._read()["seconds"])

    def end(self) -> int:
        """End the process; return the bytes of its peak memory."""
        stdin: IO[str] = self._process.stdin  # type: ignore[assignment]
        stdin.close()
        peak = int(self._read()["peak"])
        self._process.wait()
        return peak

    def _read(self) -> dict[str, Any]:
        stdout: IO[str] = self._process.stdout  # type: ignore[assignment]
        line = stdout.readline()
        if not line:
            sys.exit(f"error: {' '.join(self._process.args)} has ended")  # type: ignore[arg-type]
        answer: dict[str, Any] = json.loads(line)
        return answer


def work(name: str, mode: str, batch: int, *, compiled: bool) -> None:
    """Train as one contestant, a step for each line of stdin; answer in JSON."""
    torch.manual_seed(1)
    ids = torch.randint(0, VOCAB_SIZE, (batch, LENGTH + 1))
    if name == "atlas":
        model, compiled, step = ours(mode, batch)
    else:
        model, step = theirs(mode, compiled=compiled)
    started = time.perf_counter()
    for _ in range(2):  # the first compiles and makes the state of the optimizer
        step(ids)
    answer(
        seconds=time.perf_counter() - started,
        compiled=compiled,
        weights=sum(p.numel() for p in model.parameters()),
        trained=sum(p.numel() for p in model.parameters() if p.requires_grad),
    )
    for _ in sys.stdin:
        started = time.perf_counter()
        step(ids)
        answer(seconds=time.perf_counter() - started)
    answer(peak=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def answer(**values: float) -> None:
    """Print one line for the parent."""
    print(json.dumps(values), flush=True)


def ours(mode: str, batch: int) -> tuple[nn.Module, bool, Step]:
    """Train with our TrainStep."""
    config = config_of(
        d_model=WIDTH,
        n_layer=LAYERS,
        n_head=HEADS,
        n_kv_head=KEY_HEADS,
        d_ff=HIDDEN,
        context_length=LENGTH,
        vocab_size=VOCAB_SIZE,
        positions="rope",
        norm="rmsnorm",
        feed_forward="swiglu",
        tied_head=True,
        qk_norm=None,
        dropout=0.0,
    )
    params = load_params(ROOT / "params.yaml").train
    lora = params.lora.model_copy(update={"rank": RANK if mode == "lora" else None, "alpha": ALPHA})
    train = params.model_copy(
        update={
            "lora": lora,
            "batch_size": batch,
            "grad_accum_steps": 1,
            "optimizer": "adamw",
            "activation_checkpointing": False,
            "max_grad_norm": CLIP,
            "lr": LR,
            "precision": "float32",
        }
    )
    device = torch.device("cpu")
    reuse_memory()  # as `dvc repro train` does
    model = Decoder(config)
    initialize(model, 1)
    add_lora(model, lora, 1)
    compiled = should_compile(TOKENS * count(config).training_flops, device)
    train_step = TrainStep(model, train, train.steps, DistributedContext(device), compiled=compiled)

    def step(ids: Tensor) -> float:
        mask = torch.ones_like(ids[:, 1:], dtype=torch.bool)
        tokens = TokenBatch(ids[:, :-1], ids[:, 1:], mask)
        return train_step.update(tokens, train.steps // 2).loss

    return model, compiled, step


def theirs(mode: str, *, compiled: bool) -> tuple[nn.Module, Step]:
    """Train with transformers, or with peft on top of it, in a plain loop."""
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=WIDTH,
        intermediate_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=True,
        attn_implementation="sdpa",
        use_cache=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    model: Any = transformers.LlamaForCausalLM(config)
    if mode == "lora":
        from peft import LoraConfig, get_peft_model

        lora = LoraConfig(
            r=RANK, lora_alpha=ALPHA, target_modules=THEIR_TARGETS, task_type="CAUSAL_LM"
        )
        model = get_peft_model(model, lora)
    model.train()
    if compiled:
        model.compile(dynamic=False)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=LR, weight_decay=0.1, fused=True)

    def step(ids: Tensor) -> float:
        # `labels` are shifted by the model; the last position has none, as in its Trainer.
        loss = model(input_ids=ids[:, :-1], labels=ids[:, :-1]).loss
        loss.backward()
        nn.utils.clip_grad_norm_(weights, CLIP)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return model, step


if __name__ == "__main__":
    main()
