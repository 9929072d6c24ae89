"""Train 50 steps in as many processes as torchrun starts, for test_distributed.

    python -m tests.training.processes TOKENS RUN STOP_AT [RANK]

The main process writes its log and the sum of each weight to RUN/result.json. At step STOP_AT
(0 for never) the last process gets a signal. With a rank, LoRA trains a change of the weights.
"""

import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import torch

from atlas.errors import Stopped
from atlas.model.weights import initialize, make_model
from atlas.tokens.shards import TokenSplit
from atlas.training.checkpoint import Checkpoints, full_weights
from atlas.training.distributed import distributed_context
from atlas.training.lora import add_lora
from atlas.training.trainer import Trainer
from tests.small import small_config, small_params

CHANGES = {"steps": 50, "log_every": 1, "eval_every": 25, "lr": 0.01, "optimizer": "muon"}


def main() -> None:
    tokens, run, stop_at = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    params = small_params(**{f"train.{key}": value for key, value in CHANGES.items()})
    if rank := int((*sys.argv, 0)[4]):
        lora = params.train.lora.model_copy(update={"rank": rank})
        changes = {"lora": lora, "optimizer": "adamw"}
        params = params.model_copy(update={"train": params.train.model_copy(update=changes)})
    with distributed_context(torch.device("cpu")) as context:
        model = make_model(small_config())
        initialize(model, params.train.seed)
        add_lora(model, params.train.lora, params.train.seed)
        splits = {split: TokenSplit(tokens, split) for split in ("train", "val")}
        training = Trainer(model, params, splits, Checkpoints(run), context)
        learn = training.train_step.update

        def interrupted(batch, step, watch=None):
            if step + 1 == stop_at and context.rank == context.size - 1:
                os.kill(os.getpid(), signal.SIGINT)
            return learn(batch, step, watch)

        training.train_step.update = interrupted
        state = training.fit()
        weights = full_weights(model, context)
        if context.is_main:
            result = {
                "losses": [row["loss"] for row in state.train_rows],
                "norms": [row["gradient_norm"] for row in state.train_rows],
                "val": [row["loss"] for row in state.val_rows],
                "weights": {name: weight.double().sum().item() for name, weight in weights.items()},
            }
            (run / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    torch.set_num_threads(1)
    with suppress(Stopped):
        main()
