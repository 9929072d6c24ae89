"""A run that does not fit into memory is refused, with a change that would fit."""

import platform
import subprocess
import sys

import psutil
import pytest
import torch

from atlas.errors import AtlasError
from atlas.model.counts import count, training_bytes
from atlas.params.schema import LoraParams
from atlas.training.distributed import DistributedContext
from atlas.training.memory import (
    available_memory,
    check_memory,
    explain_out_of_memory,
    peak_memory,
    suggest_change,
)
from tests.small import small_config, small_params
from tests.training.conftest import ALONE, CPU

CONFIG = small_config(n_layer=4)


def train(batch_size=16, grad_accum_steps=1, activation_checkpointing=False):
    return small_params(
        **{
            "train.batch_size": batch_size,
            "train.grad_accum_steps": grad_accum_steps,
            "train.activation_checkpointing": activation_checkpointing,
        }
    ).train


def needed(windows, activation_checkpointing=False):
    return sum(
        training_bytes(CONFIG, windows, activation_checkpointing=activation_checkpointing).values()
    )


def test_a_run_that_fits_is_accepted():
    check_memory(CONFIG, train(), ALONE, needed(16))
    check_memory(CONFIG, train(), DistributedContext(CPU, 0, 4), needed(4))
    check_memory(CONFIG, train(grad_accum_steps=8), ALONE, needed(2))
    other = small_config(kind="two_layer", window=4)
    check_memory(other, train(), ALONE, 16 * count(other).total_parameters)
    with pytest.raises(AtlasError, match="a smaller model"):
        check_memory(other, train(), ALONE, 16 * count(other).total_parameters - 1)


def test_fsdp_shards_what_belongs_to_the_weights():
    parts = training_bytes(CONFIG, 4)
    held = parts["weights"] + parts["gradients"] + parts["optimizer"]
    shared = DistributedContext(CPU, 0, 4, "fsdp")
    check_memory(CONFIG, train(), shared, held // 4 + parts["activations"])
    with pytest.raises(AtlasError, match="GB are free"):
        check_memory(
            CONFIG, train(), DistributedContext(CPU, 0, 4), held // 4 + parts["activations"]
        )
    assert available_memory(shared) < 0.3 * available_memory(ALONE)


def test_a_run_that_does_not_fit_is_refused_with_parts_that_would():
    message = r"train.batch_size: 16 windows at once need about .* GB are free; try {}$"
    for available, advice in {
        needed(16) - 1: "train.grad_accum_steps=2",
        needed(2): "train.grad_accum_steps=8",
        needed(1) - 1: "train.activation_checkpointing=true train.grad_accum_steps=8",
        1000: "a smaller model, such as half of model.d_model or of model.n_layer",
    }.items():
        with pytest.raises(AtlasError, match=message.format(advice)):
            check_memory(CONFIG, train(), ALONE, available)


def test_frozen_weights_need_no_gradient_and_no_moments():
    parts = training_bytes(CONFIG, 16)
    few = train().model_copy(update={"freeze": ("embedding",)})
    frozen = 400 * 32 * 4
    check_memory(CONFIG, few, ALONE, needed(16) - 3 * frozen)
    with pytest.raises(AtlasError):
        check_memory(CONFIG, few, ALONE, needed(16) - 3 * frozen - 1)
    lora = LoraParams(rank=2, alpha=1.0, targets=("query",))
    adapted = train().model_copy(update={"lora": lora})
    added = 4 * 2 * (32 + 32) * 4
    enough = parts["weights"] + 4 * added + parts["activations"]
    check_memory(CONFIG, adapted, ALONE, enough)
    with pytest.raises(AtlasError):
        check_memory(CONFIG, adapted, ALONE, enough - 1)


@pytest.mark.parametrize(
    "available", [needed(3), needed(1), needed(2, activation_checkpointing=True)]
)
def test_the_proposed_change_fits(available):
    words = dict(
        word.split("=") for word in suggest_change(CONFIG, train(), ALONE, available).split()[1:]
    )
    tried = train(
        grad_accum_steps=int(words["train.grad_accum_steps"]),
        activation_checkpointing="train.activation_checkpointing" in words,
    )
    check_memory(CONFIG, tried, ALONE, available)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_running_out_is_one_line(error):
    with (
        pytest.raises(
            AtlasError, match=r"16 windows at once need more .* train.grad_accum_steps=2 "
        ),
        explain_out_of_memory(train(), CPU),
    ):
        raise error
    with (
        pytest.raises(AtlasError, match=r"train.activation_checkpointing=true"),
        explain_out_of_memory(train(grad_accum_steps=16), CPU),
    ):
        raise error
    with (
        pytest.raises(AtlasError, match=r"try a smaller model"),
        explain_out_of_memory(train(grad_accum_steps=16, activation_checkpointing=True), CPU),
    ):
        raise error


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="another"), explain_out_of_memory(train(), CPU):
        raise RuntimeError("another")


def test_a_batch_that_cannot_be_allocated_is_one_line():
    with (
        pytest.raises(AtlasError, match="more memory than cpu has"),
        explain_out_of_memory(train(), CPU),
    ):
        torch.empty(2**50)


def test_this_machine_has_memory():
    assert available_memory(ALONE) > 2**20
    held = torch.ones(2**24)
    now = psutil.Process().memory_info().rss
    assert held.nbytes < now < 1.1 * peak_memory(CPU) < 2**40  # the system counts in blocks


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt")
def test_freed_memory_is_used_again():
    """In a process of its own, as the setting stays. A fault is a page of new memory."""
    code = """
import resource, sys, torch
from atlas.training.memory import reuse_memory
if sys.argv[1] == "reuse":
    reuse_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def allocate():
    before = faults()
    torch.zeros(1 << 26)
    return faults() - before
print(min(allocate() for _ in range(6)))  # other threads may take what was free
"""
    new, reused = (
        int(
            subprocess.run(
                [sys.executable, "-c", code, mode], capture_output=True, check=True
            ).stdout
        )
        for mode in ("default", "reuse")
    )
    assert reused < new / 4
