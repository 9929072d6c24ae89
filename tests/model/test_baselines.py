import pytest
import torch
import torch.nn.functional as F

from atlas.errors import AtlasError
from atlas.model.weights import initialize, make_model
from tests.model.family import T, V, config_of, ids_of, trained


def test_a_bigram_model_sees_only_the_last_token():
    model, ids = trained(config_of(kind="bigram")), ids_of(2, T)
    logits = model(ids)
    assert torch.equal(logits[1, 3], model.table.weight[ids[1, 3]])


@pytest.mark.parametrize("window", [1, 3, T])
def test_a_two_layer_network_reads_only_its_window(window):
    model, ids = trained(config_of(kind="two_layer", window=window)), ids_of(2, T)
    logits = model(ids)
    for place in range(T):
        changed = ids.clone()
        changed[:, place] = (ids[:, place] + 1) % V
        differs = (model(changed) - logits).abs().amax((0, 2)) > 1e-6
        assert differs.tolist() == [place <= at < place + window for at in range(T)]


def test_a_two_layer_network_is_its_equation():
    model, ids = trained(config_of(kind="two_layer", window=2)), ids_of(1, 5)
    e = model.embedding(ids)[0]
    before = torch.cat((torch.zeros(1, e.shape[1]), e[:-1]))
    hidden = torch.tanh(torch.cat((before, e), 1) @ model.hidden.weight.T + model.hidden.bias)
    expected = hidden @ model.output.weight.T + model.output.bias
    assert torch.allclose(model(ids)[0], expected, atol=1e-5)


@pytest.mark.parametrize("options", [{"kind": "bigram"}, {"kind": "two_layer", "window": 3}])
def test_padding_changes_nothing(options):
    model, ids = trained(config_of(**options)), ids_of(2, 9)
    filling = ids_of(2, 3, seed=1)
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[:, :3] = False
    padded = model(torch.cat((filling, ids), 1), mask)[:, 3:]
    assert torch.allclose(padded, model(ids), atol=1e-6)
    assert torch.allclose(model(torch.cat((ids, filling), 1))[:, :9], model(ids), atol=1e-6)


@pytest.mark.parametrize("options", [{"kind": "bigram"}, {"kind": "two_layer", "window": 3}])
def test_invalid_inputs_are_refused(options):
    model = trained(config_of(**options))
    with pytest.raises(ValueError, match="the id 60 is not in the vocabulary"):
        model(torch.tensor([[1, V]]))
    with pytest.raises(ValueError, match="17 tokens"):
        model(ids_of(1, T + 1))


def test_a_table_too_large_for_memory_is_refused():
    with pytest.raises(AtlasError, match="the vocabulary has 20000 pieces"):
        make_model(config_of(kind="bigram", vocab_size=20_000))


def test_a_two_layer_network_learns():
    model, ids = make_model(config_of(kind="two_layer", window=3)), ids_of(4, T)
    initialize(model, 0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.03)
    for _ in range(60):
        loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.3  # log(60) is 4.1
