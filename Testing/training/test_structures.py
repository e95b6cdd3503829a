"""New tables of structures: what the old ones keep, for every network; and which part of it a method teaches."""

import pytest
import torch

from MambaSegLib.errors import UserError
from MambaSegLib.networks import create, names, spec
from MambaSegTraining import adapters
from MambaSegTraining.structures import class_keys, network_for, new_table

TOYS = [name for name in names() if name.endswith("_test")]
LABELS = [
    {"value": 1, "name": "A", "color": [1, 2, 3], "terminology": {"type": ["SCT", "1", "a"]}},
    {"value": 2, "name": "B", "color": [4, 5, 6], "terminology": {}},
]


def toy(name):
    """(described as in bundle.json, network in evaluation mode, image)."""
    torch.manual_seed(0)
    described = {"name": name, "in_channels": spec(name).parameters[0], "out_channels": 3, "hyper": {}}
    network = create(name, described["in_channels"], 3).eval()
    with torch.no_grad():
        for parameter in network.parameters():  # biases and gains that start at 0 and 1 would hide mistakes
            parameter.add_(0.05 * torch.randn_like(parameter))
    size = (32, 32) if spec(name).dims == 2 else (16, 16, 16)
    return described, network, torch.randn(1, described["in_channels"], *size)


@pytest.mark.parametrize("name", TOYS)
@torch.no_grad()
def test_an_added_structure_leaves_the_old_logits_alone(name):
    described, network, image = toy(name)
    wider = network_for(new_table(LABELS, added=["C"]), described, network.state_dict()).eval()
    before, after = network(image), wider(image)
    assert torch.allclose(after[:, :3], before, atol=1e-5)
    assert (after[:, 3] <= after[:, 0] + 1e-4).float().mean() > 0.5  # not there before it is learned


@pytest.mark.parametrize("name", ["mm_unet_test", "attention_mamba_test", "nnmamba_test"])
@torch.no_grad()
def test_removed_and_reordered_structures(name):
    described, network, image = toy(name)
    table = new_table(LABELS, added=["C"], removed=["A"])
    assert [label["name"] for label in table.labels] == ["B", "C"] and table.origins == [[0, 1], [2], []]
    if name == "nnmamba_test":
        return  # its last layer reads all classes: without A the others change
    after = network_for(table, described, network.state_dict()).eval()(image)
    before = network(image)
    assert torch.allclose(after[:, :2], before[:, [0, 2]], atol=1e-5)


def test_merged_structures():
    table = new_table(LABELS, merged={"AB": ["A", "B"]})
    assert table.origins == [[0], [1, 2]] and table.labels[0]["name"] == "AB" and table.labels[0]["color"] == [1, 2, 3]
    described, network, image = toy("mm_unet_test")
    before, after = network(image), network_for(table, described, network.state_dict())(image)
    assert torch.allclose(after[:, 1], before[:, 1:].mean(1), atol=1e-5) and after.shape[1] == 2


def test_renaming_changes_names_alone():
    table = new_table(LABELS, renamed={"A": "Alpha"})
    assert not table.is_new and [label["name"] for label in table.labels] == ["Alpha", "B"]
    assert table.labels[0]["terminology"] == LABELS[0]["terminology"]


def test_impossible_tables_are_named():
    with pytest.raises(UserError, match="no structure 'X'"):
        new_table(LABELS, renamed={"X": "Y"})
    with pytest.raises(UserError, match="Two structures would be named 'B'"):
        new_table(LABELS, renamed={"A": "B"})
    with pytest.raises(UserError, match="has a structure 'A' already"):
        new_table(LABELS, added=["A"])
    with pytest.raises(UserError, match="No structure would be left"):
        new_table(LABELS, removed=["A", "B"])


@pytest.mark.parametrize("name", TOYS)
def test_every_method_teaches_a_part_of_every_network(name):
    described, network, image = toy(name)
    before = network(image)
    heads = class_keys(described)
    total = sum(p.numel() for p in network.parameters())
    for method in ("decoder", "adapters"):
        _, network, _ = toy(name)
        adapters.choose(network, method, heads)
        learning = sum(p.numel() for p in network.parameters() if p.requires_grad)
        assert 0 < learning < (1.0 if method == "decoder" else 1.2) * total
        assert torch.allclose(network(image), before, atol=1e-6)  # nothing is changed before anything is learned


def test_merged_adapters_are_plain_weights_of_low_rank():
    _, network, image = toy("umamba_bot_test")
    old = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    adapters.choose(network, "adapters")
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        network(image).square().mean().backward()
        optimizer.step()
    learned = network(image)
    adapters.merge(network)
    assert torch.allclose(network(image), learned, atol=1e-4)
    new = network.state_dict()
    assert new.keys() == old.keys()
    ranks = [
        torch.linalg.matrix_rank((new[key] - old[key]).flatten(1), rtol=1e-3).item()
        for key in old
        if old[key].dim() > 1 and not torch.equal(new[key], old[key])
    ]
    assert ranks and max(ranks) <= adapters.RANK


def test_decoder_leaves_the_encoder_as_it_was():
    _, network, _ = toy("mm_unet_test")
    adapters.choose(network, "decoder")
    assert not any(p.requires_grad for p in network.encoder.parameters())
    assert all(p.requires_grad for p in network.decoder.parameters())
