"""A model and its training from params.yaml, the token shards and the machine."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

from atlas.cleaning.splits import Split
from atlas.errors import AtlasError
from atlas.model.config import ModelConfig
from atlas.model.initialise import initialise
from atlas.model.language_model import LanguageModel
from atlas.model.make import make_model
from atlas.params import Params, TrainParams
from atlas.tokens.index import TokenIndex
from atlas.tokens.split import TokenSplit
from atlas.tokens.windows import EvaluationWindows, TrainingWindows
from atlas.training.loop import Training
from atlas.training.safety.checkpoint import Checkpoints
from atlas.training.safety.memory import available_bytes, check_memory
from atlas.training.steps.compilation import compilation_pays
from atlas.training.steps.learner import Learner
from atlas.training.steps.world import World
from atlas.training.validation import Validation


def new_model(params: Params, index: TokenIndex, world: World) -> LanguageModel:
    """A model of params.yaml's shape for the vocabulary of the tokens, with its first weights.

    Raises:
        AtlasError: its training would not fit into memory.
    """
    everything = index.splits["train"].tokens
    config = ModelConfig(
        **params.model.model_dump(),
        vocab_size=index.vocab_size,
        eos=index.eos,
        separator=index.separator,
        add_bos_token=index.windows == "padded",
        tokenizer_sha256=index.tokenizer_sha256,
        learned_tokens=min(params.train.tokens or everything, everything),
    )
    check_memory(config, params.train, world, available_bytes(world))
    model = make_model(config)
    initialise(model, params.train.seed, params.train.init)
    return model.to(world.device)


def make_training(
    model: LanguageModel,
    params: Params,
    splits: Mapping[Split, TokenSplit],
    checkpoints: Checkpoints,
    world: World,
    *,
    events: Path | None = None,
    sample: Callable[[], str] | None = None,
) -> Training:
    """A training that is ready to run.

    Raises:
        AtlasError: the text is too short for the context, or ends within the warm-up.
    """
    train, length = params.train, params.model.context_length
    data = TrainingWindows(splits["train"], length, train.batch_size, train.seed)
    steps = steps_of(train, data.per_epoch)
    tokens = steps * train.batch_size * length
    learner = Learner(
        model,
        train,
        steps,
        world,
        compiled=compilation_pays(model.config, tokens, world.device),
    )
    at_once = train.batch_size // train.accumulation
    validation = Validation(
        EvaluationWindows(splits["val"], length, at_once),
        EvaluationWindows(splits["train"], length, at_once),
    )
    return Training(learner, data, validation, checkpoints, events, sample)


def steps_of(train: TrainParams, windows: int) -> int:
    """How many steps a training has, with so many windows in an epoch.

    Raises:
        AtlasError: it ends within its warm-up.
    """
    if not train.epochs:
        return train.steps
    steps = math.ceil(train.epochs * windows / train.batch_size)
    if train.warmup_steps > steps:
        raise AtlasError(
            f"train.warmup_steps ({train.warmup_steps}) is more than the {steps} steps of "
            f"{train.epochs} epochs: the learning rate would never reach train.lr"
        )
    return steps
