"""The proof of an export: a runtime's tokens, logits and greedy text against our own."""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from atlas.errors import AtlasError
from atlas.export.check.nasty_strings import NASTY_STRINGS
from atlas.export.runtime_process import RuntimeModule
from atlas.inference.slots import slots_of
from atlas.model.language_model import LanguageModel
from atlas.tokens.tokenizer import Tokenizer

LLAMA_CPP = RuntimeModule("llama.cpp", "atlas.export.check.llama_runtime")
TRANSFORMERS = RuntimeModule("transformers", "atlas.export.check.transformers_runtime")
ONNXRUNTIME = RuntimeModule("onnxruntime", "atlas.export.check.onnx_runtime", tokenizes=False)
TORCH_EXPORT = RuntimeModule("torch.export", "atlas.export.check.torch_runtime", tokenizes=False)
PROMPT_TOKENS = 16


@dataclass(frozen=True)
class Expected:
    """What our own model and tokenizer say.

    Attributes:
        texts: to tokenize, and their ids.
        sequences: ids, (T,) each, and the logits after each of them, (T, V).
        prompts: ids, and the ids that continue them greedily.
        greedy_tokens: the most that continue a prompt.
        context_length: of the model.
    """

    texts: list[tuple[str, list[int]]]
    sequences: list[tuple[list[int], npt.NDArray[np.float32]]]
    prompts: list[tuple[list[int], list[int]]]
    greedy_tokens: int
    context_length: int


@dataclass(frozen=True)
class Agreement:
    """How a runtime's results compare.

    Attributes:
        texts: number of texts tokenized.
        tokens: their ids in all.
        token_mismatches: texts of which an id differs.
        logit_difference: the largest, over all positions and tokens.
        greedy_tokens: ids continued greedily.
        greedy_mismatches: prompts whose continuation differs before a tie, which is where our
            two likeliest logits are closer than the tolerance.
        greedy_ties: continuations that part at such a tie.
    """

    texts: int
    tokens: int
    token_mismatches: int
    logit_difference: float
    greedy_tokens: int
    greedy_mismatches: int
    greedy_ties: int


@torch.no_grad()
def expect(
    model: LanguageModel,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    prompts: int,
    greedy_tokens: int,
) -> Expected:
    """Computes what a runtime should say, from held-out texts and the nasty strings.

    A vocabulary of words is compared on texts alone: where it knows no word, llama.cpp finds
    one that it begins with.

    Args:
        model: on the CPU, in float32.
        tokenizer: of the model.
        texts: held out.
        prompts: how many of them give logits and a greedy continuation.
        greedy_tokens: length of a continuation, cut at the end of the context.
    """
    length = model.config.context_length
    strange = () if tokenizer.kind == "word" else NASTY_STRINGS
    together = [*texts, *strange]
    ids = [each.tolist() for each in tokenizer.encode_batch(together)]
    encoded = list(zip(together, ids, strict=True))
    sequences = [ids[:length] for _, ids in encoded[: min(prompts, len(texts))] if ids]
    starts = [sequence[: min(PROMPT_TOKENS, length // 2)] for sequence in sequences]
    longest = min(greedy_tokens, length - max(len(start) for start in starts))
    return Expected(
        texts=encoded,
        sequences=[(ids, model(torch.tensor([ids]))[0].numpy()) for ids in sequences],
        prompts=[(start, _continue_greedily(model, start, longest)) for start in starts],
        greedy_tokens=longest,
        context_length=length,
    )


def _continue_greedily(model: LanguageModel, prompt: list[int], tokens: int) -> list[int]:
    """The likeliest tokens after a prompt, beyond the end of a text as well."""
    slots = slots_of(model, count=1)
    found = [int(slots.begin(0, prompt).argmax())]
    while len(found) < tokens:
        found.append(int(slots.step({0: found[-1]}).argmax()))
    return found


def compare(
    file: Path,
    expected: Expected,
    model: LanguageModel,
    tolerance: float,
    runtime: RuntimeModule = LLAMA_CPP,
) -> Agreement:
    """Runs an exported file or folder in its runtime and compares.

    Args:
        file: that was exported.
        expected: of it.
        model: that it was made from.
        tolerance: difference of logits that arithmetic explains.
        runtime: that runs it.

    Raises:
        AtlasError: the runtime crashed or refused the file.
    """
    texts = expected.texts if runtime.tokenizes else []
    request = {
        "model": str(file.resolve()),
        "context_length": expected.context_length,
        "texts": [text for text, _ in texts],
        "sequences": [ids for ids, _ in expected.sequences],
        "prompts": [ids for ids, _ in expected.prompts],
        "greedy_tokens": expected.greedy_tokens,
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        answer = runtime.ask(request, folder, file=file)
        differences = [
            float(np.abs(np.load(folder / f"logits-{number}.npy") - logits).max())
            for number, (_, logits) in enumerate(expected.sequences)
        ]
    mismatches = sum(ids != theirs for (_, ids), theirs in zip(texts, answer["texts"], strict=True))
    partings = [
        _parting(model, prompt, ours, theirs, tolerance)
        for (prompt, ours), theirs in zip(expected.prompts, answer["continuations"], strict=True)
    ]
    return Agreement(
        texts=len(texts),
        tokens=sum(len(ids) for _, ids in texts),
        token_mismatches=mismatches,
        logit_difference=max(differences),
        greedy_tokens=sum(len(ours) for _, ours in expected.prompts),
        greedy_mismatches=partings.count("mismatch"),
        greedy_ties=partings.count("tie"),
    )


@torch.no_grad()
def _parting(
    model: LanguageModel, prompt: list[int], ours: list[int], theirs: list[int], tolerance: float
) -> str:
    """Whether two continuations are the same, and if not, whether chance explains it."""
    apart = [step for step, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b]
    if not apart:
        return "same"
    step = apart[0]
    logits = model(torch.tensor([[*prompt, *ours[:step]]]))[0, -1]
    gap = float(logits[ours[step]] - logits[theirs[step]])
    return "tie" if gap <= 2 * tolerance else "mismatch"


def refuse_disagreement(
    file: Path,
    agreement: Agreement,
    tolerance: float = math.inf,
    runtime: RuntimeModule = LLAMA_CPP,
) -> None:
    """Stops an export that its runtime reads differently.

    Without a tolerance, as for the smaller types, only the tokens must be equal.

    Raises:
        AtlasError: tokens, logits or greedy text differ by more than arithmetic explains.
    """
    problems = []
    if agreement.token_mismatches:
        problems.append(f"{agreement.token_mismatches} of {agreement.texts} texts tokenize apart")
    if not agreement.logit_difference <= tolerance:  # NaN is no agreement either
        problems.append(f"logits differ by {agreement.logit_difference:g}, allowed {tolerance:g}")
    if agreement.greedy_mismatches and tolerance < math.inf:
        problems.append(f"{agreement.greedy_mismatches} greedy continuations differ")
    if problems:
        raise AtlasError(
            f"{file}: {runtime.runtime} does not agree: {'; '.join(problems)}; not exported"
        )
