"""One optimizer step: micro-batches, precision, checkpointing, train_step."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from atlas.errors import Stopped
from atlas.model.loss import cross_entropy_sum, mean_loss, tally
from atlas.model.transformer import Decoder
from atlas.model.weights import initialize
from atlas.tokens.batches import BatchLoader
from atlas.tokens.windows import TokenBatch
from atlas.training import train_step
from atlas.training.train_step import Precision, should_compile
from tests.small import small_config
from tests.training.conftest import ALONE, CPU
from tests.training.runs import logs, stop_after


def first_batch(run):
    return next(BatchLoader(run.data, CPU, 0).read())


def gradients_of(run, batch):
    run.train_step.backward(batch)
    return [parameter.grad.clone() for parameter in run.train_step.model.parameters()]


@pytest.mark.parametrize("filled", [0, 9])
def test_parts_add_up_to_the_whole_batch(new_trainer, filled):
    """Even if the micro-batches have different numbers of tokens."""
    found = []
    for parts in (1, 2, 4, 8):
        run = new_trainer(f"parts{parts}", dropout=0.0, grad_accum_steps=parts, batch_size=8)
        batch = first_batch(run)
        batch.targets[:3, 32 - filled :] = -100
        found.append(gradients_of(run, batch))
    for other in found[1:]:
        for ours, theirs in zip(found[0], other, strict=True):
            assert torch.allclose(ours, theirs, atol=1e-6)


def test_the_gradient_is_of_the_mean_over_tokens(new_trainer):
    run = new_trainer(dropout=0.0)
    batch = first_batch(run)
    found = gradients_of(run, batch)
    run.train_step.model.zero_grad()
    F.cross_entropy(
        run.train_step.model(batch.inputs).flatten(0, 1), batch.targets.flatten()
    ).backward()
    for ours, parameter in zip(found, run.train_step.model.parameters(), strict=True):
        assert torch.allclose(ours, parameter.grad, atol=1e-7)


@pytest.mark.parametrize("max_grad_norm", [None, 0.1, 100.0])
def test_the_norm_is_measured_before_it_is_clipped(new_trainer, max_grad_norm, monkeypatch):
    run = new_trainer(dropout=0.0, max_grad_norm=max_grad_norm)
    batch = first_batch(run)
    norm = torch.cat([gradient.flatten() for gradient in gradients_of(run, batch)]).norm().item()
    run.train_step.model.zero_grad()
    seen = []
    parameters = list(run.train_step.model.parameters())
    monkeypatch.setattr(
        run.train_step.optimizers,
        "step",
        lambda: seen.append(torch.cat([p.grad.flatten() for p in parameters]).norm().item()),
    )
    assert run.train_step.update(batch, 0).grad_norm == pytest.approx(norm, rel=1e-5)
    expected = min(norm, max_grad_norm) if max_grad_norm else norm
    assert seen == [pytest.approx(expected, rel=1e-4)]


def test_dropout_depends_only_on_seed_and_step(new_trainer):
    def loss(step, seed=1):
        run = new_trainer(dropout=0.5, seed=seed)
        torch.rand(3)
        batch = TokenBatch(
            *(torch.ones(4, 32, dtype=torch.long) for _ in range(2)), torch.ones(4, 32)
        )
        return run.train_step.update(batch, step).loss

    assert loss(3) == loss(3)
    assert loss(3) != loss(4)


def test_recomputing_activations_changes_nothing(new_trainer):
    plain, again = (
        new_trainer("plain", steps=8),
        new_trainer("again", steps=8, activation_checkpointing=True),
    )
    plain.fit()
    again.fit()
    for ours, theirs in zip(
        plain.train_step.model.parameters(), again.train_step.model.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("bfloat16", torch.bfloat16), ("float16", torch.float16)]
)
def test_half_precision_learns_nearly_the_same(new_trainer, precision, dtype):
    whole = new_trainer("whole", dropout=0.0, steps=12, options={"n_layer": 1}).fit()
    run = new_trainer(precision, dropout=0.0, precision=precision, steps=12, options={"n_layer": 1})
    seen = set()
    run.train_step.model.blocks[0].feed_forward.up.register_forward_hook(
        lambda _module, _inputs, output: seen.add(output.dtype)
    )
    state = run.fit()
    assert seen == {dtype}
    assert {parameter.dtype for parameter in run.train_step.model.parameters()} == {torch.float32}
    assert state.best_loss == pytest.approx(whole.best_loss, rel=0.02)


def test_an_overflow_of_float16_skips_the_step_and_halves_the_scale(new_trainer):
    run = new_trainer(dropout=0.0, precision="float16", steps=8, options={"n_layer": 1})
    batch = first_batch(run)
    scaler = run.train_step.precision.scaler
    before = [parameter.clone() for parameter in run.train_step.model.parameters()]
    scaler.scale(torch.zeros(()))
    scaler.update(2.0**24)
    result = run.train_step.update(batch, 0)
    assert (result.updated, result.failed) == (False, False)
    assert scaler.get_scale() == 2.0**23
    for parameter, value in zip(run.train_step.model.parameters(), before, strict=True):
        assert torch.equal(parameter, value)
    state = run.fit()
    assert 0 < state.skipped_steps < 8
    assert all(math.isfinite(row["gradient_norm"]) for row in state.train_rows)
    assert state.best_loss < state.val_rows[0]["loss"]


def test_the_scale_is_part_of_a_checkpoint():
    first, second = Precision("float16", CPU), Precision("float16", CPU)
    first.scaler.scale(torch.zeros(()))
    assert first.lower_scale()
    second.scaler.load_state_dict(first.scaler.state_dict())
    second.scaler.scale(torch.zeros(()))
    assert second.scaler.get_scale() == 2.0**15
    whole = Precision("float32", CPU)
    whole.scaler.load_state_dict(whole.scaler.state_dict())
    assert not whole.lower_scale()


@pytest.mark.very_slow
def test_a_compiled_model_learns_the_same(new_trainer, monkeypatch):
    if not train_step.compiler_works(CPU):
        pytest.skip("no C++ compiler that torch.compile can use")
    plain = new_trainer("plain", dropout=0.0, steps=12, options={"n_layer": 1}).fit()
    monkeypatch.setenv("ATLAS_COMPILE", "1")
    run = new_trainer("compiled", dropout=0.0, steps=12, options={"n_layer": 1})
    assert run.train_step.compiled
    state = run.fit()
    for ours, theirs in zip(state.train_rows, plain.train_rows, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-4)


def test_compilation_is_chosen_by_the_length_of_a_run(monkeypatch):
    monkeypatch.setattr(train_step, "compiler_works", lambda _: True)
    assert not should_compile(1e12, CPU)
    assert should_compile(1e14, CPU)
    monkeypatch.setenv("ATLAS_COMPILE", "1")
    assert should_compile(1.0, CPU)
    monkeypatch.setattr(train_step, "compiler_works", lambda _: False)
    with pytest.raises(train_step.AtlasError, match="ATLAS_COMPILE=1: install a C"):
        should_compile(1.0, CPU)
    monkeypatch.setenv("ATLAS_COMPILE", "auto")
    assert not should_compile(1e14, CPU)
    monkeypatch.setenv("ATLAS_COMPILE", "0")
    assert not should_compile(1e14, CPU)
    monkeypatch.setenv("ATLAS_COMPILE", "yes")
    with pytest.raises(train_step.AtlasError, match="ATLAS_COMPILE=yes: must be 0, 1 or auto"):
        should_compile(1.0, CPU)


def test_compiled_modules_are_eager_in_evaluation(monkeypatch):
    """Whose shapes change, so that each would be compiled again."""
    calls = []

    def counted(function, dynamic):
        assert dynamic is False
        return lambda *inputs: (calls.append(inputs), function(*inputs))[1]

    monkeypatch.setattr(torch, "compile", counted)
    layer, x = torch.nn.Linear(2, 3), torch.ones(1, 2)
    expected = layer(x)
    train_step.compile_for_training(layer)
    assert torch.equal(layer(x), expected)
    assert len(calls) == 1
    assert torch.equal(layer.eval()(x), expected)
    assert len(calls) == 1


@pytest.mark.parametrize(("n_layer", "separate"), [(8, 0), (9, 9)])
def test_the_blocks_of_a_deep_model_are_compiled_one_by_one(
    new_trainer, monkeypatch, n_layer, separate
):
    compiled = []
    monkeypatch.setattr(train_step, "compile_for_training", compiled.append)
    monkeypatch.setattr(train_step, "compiler_works", lambda _: True)
    monkeypatch.setenv("ATLAS_COMPILE", "1")
    assert new_trainer(options={"n_layer": n_layer}).train_step.compiled
    assert len(compiled) == separate


def test_without_a_compiler_training_warns_and_is_eager(monkeypatch, caplog):
    def broken(_function):
        raise RuntimeError("no g++\nanywhere")

    monkeypatch.setattr(torch, "compile", broken)
    assert not train_step.compiler_works(CPU)
    assert "torch.compile does not work here (no g++ anywhere)" in caplog.text


def test_padding_does_not_count():
    logits = torch.randn(2, 3, 5)
    targets = torch.tensor([[1, 2, -100], [4, -100, -100]])
    by_hand = sum(-logits[b, t].log_softmax(0)[targets[b, t]] for b, t in [(0, 0), (0, 1), (1, 0)])
    assert cross_entropy_sum(logits, targets) == pytest.approx(by_hand.item(), rel=1e-6)


def test_losses_weigh_tokens_not_batches():
    model = Decoder(small_config())
    initialize(model, 0)
    inputs, targets = (torch.randint(0, 400, (3, 8)).numpy() for _ in range(2))
    long = TokenBatch(inputs, targets, np.ones((3, 8), bool))
    short = TokenBatch(*(part[:1, :2] for part in long[:3]))
    total, tokens, *_ = tally(model, [long, short])
    assert tokens == 26
    parts = [tally(model, [batch]).loss for batch in (long, short)]
    assert total == pytest.approx(sum(parts), rel=1e-6)
    expected = F.cross_entropy(
        model(torch.tensor(long[0])).flatten(0, 1), torch.tensor(long[1]).flatten()
    )
    assert mean_loss(model, [long]) == pytest.approx(expected.item(), rel=1e-5)


def test_validation_leaves_the_model_and_the_random_numbers_as_they_were():
    model = Decoder(small_config(dropout=0.5)).train()
    before = torch.get_rng_state()
    zeros = np.zeros((1, 4), np.int64)
    batch = TokenBatch(zeros, zeros, np.ones((1, 4), bool))
    assert mean_loss(model, [batch]) == mean_loss(model, [batch])
    assert model.training
    assert torch.equal(before, torch.get_rng_state())


GPU = torch.device("cuda")


@pytest.mark.parametrize(
    ("device", "found", "expected"),
    [
        (CPU, {"amx_bf16": True, "avx512_bf16": False}, True),
        (CPU, {"avx512_bf16": True}, True),
        (CPU, {"avx512_f": True, "amx_bf16": False}, False),
        (CPU, {}, False),
        (GPU, {"amx_bf16": False}, True),
        (torch.device("mps"), {"amx_bf16": True}, False),
    ],
)
def test_bfloat16_in_hardware_is_found(monkeypatch, device, found, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert train_step.has_bfloat16(device) is expected


def test_auto_takes_bfloat16_where_it_is_faster(monkeypatch, caplog):
    caplog.set_level("INFO")
    here = train_step.choose_precision("auto", 1024, ALONE)
    assert here == ("bfloat16" if train_step.has_bfloat16(CPU) else "float32")
    for in_hardware, width, expected in (
        (True, 256, "bfloat16"), (True, 255, "float32"), (False, 1024, "float32")
    ):  # fmt: skip
        monkeypatch.setattr(train_step, "has_bfloat16", lambda _, found=in_hardware: found)
        assert train_step.choose_precision("auto", width, ALONE) == expected
        assert f"train.precision=auto: {expected} (" in caplog.text
        caplog.clear()
        for name in ("float32", "bfloat16", "float16"):
            assert train_step.choose_precision(name, width, ALONE) == name
    assert not caplog.text


@pytest.mark.parametrize("first", [True, False])
def test_a_run_continues_in_the_precision_it_began_with(new_trainer, monkeypatch, caplog, first):
    caplog.set_level("INFO")
    changes = {"steps": 4, "precision": "auto", "options": {"n_layer": 1}}
    monkeypatch.setattr(train_step, "MIN_WIDTH", 32)

    def run(folder, in_hardware):
        monkeypatch.setattr(train_step, "has_bfloat16", lambda _: in_hardware)
        return new_trainer(folder, **changes)

    whole = run("whole", first)
    expected = whole.fit()
    stopped = run("run", first)
    stop_after(monkeypatch, stopped, 2)
    with pytest.raises(Stopped):
        stopped.fit()
    again = run("run", not first)
    assert logs(again.fit()) == logs(expected)
    name = "bfloat16" if first else "float32"
    assert again.train_step.precision.name == name
    assert f"train.precision=auto: {name}, as before the stop" in caplog.text
    assert "another environment" not in caplog.text
