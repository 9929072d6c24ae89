"""At least two params of each stage, each with a new value and the stages that it reruns.

A changed param does not always change the outputs of its stage, and unchanged outputs rerun nothing
further: with fewer rows in a CSV, for example, the model is still the same.
"""

from typing import Any

from tests.pipeline.checkout import STAGES

RERUNS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "corpus.name": ("python-docs", STAGES),
    "corpus.files.path": ("data/other", STAGES),
    "corpus.stories.seed": (2, ("fetch",)),
    "clean.val": (0.1, STAGES[1:]),
    "clean.duplicates": (None, ("clean",)),
    "clean.filters": (["short"], ("clean",)),
    "clean.jaccard_threshold": (0.8, ("clean",)),
    "clean.repeated_lines": (0.9, ("clean",)),
    "clean.seed": (2, STAGES[1:]),
    "clean.unicode_normalization": (None, ("clean",)),
    "tokenizer.kind": ("char", STAGES[2:]),
    "tokenizer.vocab_size": (410, STAGES[2:]),
    "tokenize.separate_documents": (False, STAGES[3:]),
    "tokenize.windows": ("padded", ("tokenize", "train", "evaluate", "export")),
    "model.d_model": (64, STAGES[4:]),
    "model.qk_norm": ("head", STAGES[4:]),
    "model.positions": ("none", STAGES[4:]),
    "train.lr": (3e-4, STAGES[4:]),
    "train.steps": (60, STAGES[4:]),
    "train.log_every": (20, ("train",)),
    "train.optimizer": ("muon", STAGES[4:]),
    "train.freeze": (["embedding"], STAGES[4:]),
    "train.sequence_length": (16, STAGES[4:]),
    "train.schedule": ("linear", STAGES[4:]),
    "train.sample_tokens": (None, ("train",)),
    "evaluate.prompts": (["river"], ("evaluate",)),
    "evaluate.batch_size": (4, ("evaluate",)),
    "evaluate.top_k": (5, ("evaluate",)),
    "export.name": ("other", ("export",)),
    "export.formats": (["gguf:f16"], ("export",)),
    "export.check_tokens": (5, ("export",)),
    "export.check_windows": (2, ("export",)),
}
