"""The formulas against models that are built, run and trained."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from torch.utils.flop_counter import FlopCounterMode

from atlas.model.attention import KVCache
from atlas.model.counts import cache_bytes, count, training_bytes
from tests.model.family import GRID, OPTIONS, T, V, config_of, decoder, ids_of, trained

OTHERS = [
    {"kind": "bigram"},
    {"kind": "two_layer", "window": 3},
    {"kind": "encoder_decoder", "separator": 5, "positions": "learned", "bias": True},
    {"kind": "encoder_decoder", "separator": 5, "norm_position": "post", "tied_head": False},
]


def of_part(name):
    for part in ("query_norm", "key_norm", "attention.", "feed_forward."):
        if part in name:
            return "feed_forward" if part == "feed_forward." else "attention"
    return "norms" if "norm" in name else name.split(".")[0]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(OPTIONS)
def test_the_parameters_of_each_part_of_a_decoder(options):
    model = decoder(**options)
    counted = count(model.config)
    found = dict.fromkeys(counted.parameters, 0)
    for name, parameter in model.named_parameters():
        found[of_part(name)] += parameter.numel()
    assert counted.parameters == found
    assert counted.total_parameters == model.parameter_count()


@pytest.mark.parametrize("options", OTHERS)
def test_the_parameters_of_the_other_kinds(options):
    model = trained(config_of(**options))
    assert count(model.config).total_parameters == model.parameter_count()


@pytest.mark.parametrize("options", [*GRID, *OTHERS])
def test_the_operations_of_a_forward_pass(options):
    """With explicit attention, because torch counts fused attention only on a GPU."""
    model, ids = trained(config_of(**options)), ids_of(3, T)
    with FlopCounterMode(display=False) as counter:
        match model.config.kind:
            case "decoder":
                model(ids, weights=[])
            case "encoder_decoder":
                every = torch.ones_like(ids, dtype=torch.bool)
                source = model.encode(ids, every, weights=[])
                model.decode(ids, every, source, every, weights=[])
            case _:
                model(ids)
    assert counter.get_total_flops() == count(model.config).forward_flops * ids.numel()


def test_a_training_step_is_three_forward_passes():
    model = decoder(positions="learned")
    ids = ids_of(2, T)
    with FlopCounterMode(display=False) as counter:
        model(ids, weights=[]).sum().backward()
    assert counter.get_total_flops() == pytest.approx(
        count(model.config).training_flops * ids.numel(), rel=1e-3
    )


@pytest.mark.parametrize("options", GRID)
def test_activations_kept_for_the_backward_pass(options):
    model, ids = decoder(**options), ids_of(2, T)
    model.train()
    own = {each.untyped_storage().data_ptr() for each in [*model.parameters(), *model.buffers()]}
    kept = {}  # keeps the tensors alive, so that no address is reused

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and tensor.is_floating_point():
            kept[storage.data_ptr()] = (
                storage.nbytes(),
                tensor,
            )
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = F.cross_entropy(model(ids).flatten(0, 1), ids.flatten())
    assert loss.isfinite()
    measured = sum(size for size, _ in kept.values())
    assert training_bytes(model.config, 2)["activations"] == pytest.approx(measured, rel=0.005)


def test_weights_gradients_and_moments_of_adam():
    model = decoder()
    optimizer = torch.optim.AdamW(model.parameters())
    model(ids_of(2, T)).sum().backward()
    optimizer.step()
    moments = sum(
        value.numel() * 4
        for state in optimizer.state.values()
        for name, value in state.items()
        if name != "step"
    )
    formula = training_bytes(model.config, 2)
    assert formula["optimizer"] == moments
    assert formula["weights"] == sum(p.numel() * p.element_size() for p in model.parameters())
    assert formula["gradients"] == sum(p.grad.numel() * 4 for p in model.parameters())


@pytest.mark.parametrize("n_kv_head", [1, 4])
def test_the_cache(n_kv_head):
    model = decoder(n_kv_head=n_kv_head)
    cache = KVCache.empty(model.config, 3, model.embedding.weight)
    size = sum(each.nbytes for layer in cache.layers for each in (layer.keys, layer.values))
    assert cache_bytes(model.config, 3) == size


def test_by_hand():
    counted = count(config_of(vocab_size=V, positions="learned", feed_forward="gelu", bias=False))
    assert counted.parameters == {
        "embedding": 60 * 24,
        "positions": 16 * 24,
        "attention": 2 * (24 * 24 + 12 * 24 + 12 * 24 + 24 * 24),
        "feed_forward": 2 * (20 * 24 + 24 * 20),
        "norms": 5 * 24,
        "head": 0,
    }
    assert counted.attended == 2 * 4 * 16 * 24
