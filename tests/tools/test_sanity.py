"""Sanity checks pass for sound models and name the fault of broken ones."""

import pytest
import torch
from torch import nn

from atlas.errors import AtlasError
from atlas.tools import sanity
from atlas.tools.sanity import gradient_flow, overfit, print_flow
from tests.small import small_params

PARAMS = small_params(**{"train.lr": 0.01, "model.dropout": 0.5, "train.weight_decay": 9.0})


@pytest.fixture
def breaking(monkeypatch):
    """Break the models built from now on."""

    def apply(how):
        make = sanity.build_model

        def broken(*given):
            model = make(*given)
            how(model)
            return model

        monkeypatch.setattr(sanity, "build_model", broken)

    return apply


@pytest.mark.parametrize("windows", [4, 10])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_sound_model_memorizes_windows(token_folder, windows, optimizer, capsys):
    """Regardless of dropout and weight decay in params.yaml."""
    train = PARAMS.train.model_copy(update={"optimizer": optimizer})
    taken = overfit(PARAMS.model_copy(update={"train": train}), token_folder, windows, 400)
    assert taken < 400
    shown = capsys.readouterr().out
    assert f"{windows} windows, {32 * windows} tokens to memorize" in shown
    assert f"step {taken}: loss 0.0" in shown


def test_a_model_that_cannot_learn_is_named(token_folder, breaking):
    breaking(lambda model: model.requires_grad_(False) and model.norm.requires_grad_(True))
    with pytest.raises(AtlasError, match=r"after 30 steps the loss is still .* another train.lr"):
        overfit(PARAMS, token_folder, 4, 30)


def test_a_loss_that_is_not_finite_is_named(token_folder, breaking):
    breaking(lambda model: nn.init.constant_(model.norm.weight, float("nan")))
    with pytest.raises(AtlasError, match=r"the loss is nan at step 1\. Lower train.lr"):
        overfit(PARAMS, token_folder, 4, 30)


def test_every_weight_of_a_sound_model_has_a_gradient(token_folder, capsys):
    flows = gradient_flow(PARAMS, token_folder)
    assert len(flows) == 20
    assert not any(flow.verdict for flow in flows)
    assert all(flow.gradient > 0 and flow.weight > 0 for flow in flows)
    print_flow(flows)
    assert "every weight has a sound gradient" in capsys.readouterr().out


@pytest.mark.parametrize("change", [{"init": "zero"}, {"precision": "float16"}])
def test_zero_init_and_half_precision_are_sound(token_folder, change):
    train = PARAMS.train.model_copy(update=change)
    flows = gradient_flow(PARAMS.model_copy(update={"train": train}), token_folder)
    assert not any(flow.verdict for flow in flows)
    assert max(flow.gradient for flow in flows) < 1


def silence(model):
    nn.init.zeros_(model.blocks[1].attention.output.weight)


def freeze(model):
    model.blocks[0].feed_forward.up.requires_grad_(False)


def shrink(model):
    model.blocks[0].attention.value.weight.data *= 1e-12


def fade(model):
    model.blocks[1].feed_forward.down.register_full_backward_pre_hook(
        lambda _module, gradient: (gradient[0] * 1e-12,)
    )


def overflow(model):
    model.blocks[0].attention.key.weight.register_hook(lambda gradient: gradient + torch.inf)


@pytest.mark.parametrize(
    ("how", "name", "verdict"),
    [
        (silence, "blocks.1.attention.value.weight", "all zero"),
        (freeze, "blocks.0.feed_forward.up.weight", "no gradient reaches it"),
        (shrink, "blocks.0.attention.value.weight", "exploding"),
        (fade, "blocks.1.feed_forward.down.weight", "vanishing"),
        (overflow, "blocks.0.attention.key.weight", "not finite"),
    ],
)
def test_a_fault_is_named_where_it_is(token_folder, breaking, capsys, how, name, verdict):
    breaking(how)
    flows = gradient_flow(PARAMS, token_folder)
    verdicts = {flow.name: flow.verdict for flow in flows}
    assert verdicts[name] == verdict
    assert verdicts["embedding.weight"] == ""
    print_flow(flows)
    assert "weights have a problem" in capsys.readouterr().out


def test_a_bigram_model_has_no_gradient(token_folder):
    params = small_params(**{"model.kind": "bigram", "export.formats": []})
    with pytest.raises(AtlasError, match=r"model\.kind is bigram"):
        gradient_flow(params, token_folder)
