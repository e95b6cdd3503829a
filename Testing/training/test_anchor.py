"""The springs: which weights hang on them, and that they pull back."""

import pytest
import torch
from torch import nn

from MambaSegTraining.anchor import Anchored


def no_loss(levels, labels, merged):
    return torch.zeros(())


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def test_the_tension_is_half_the_squared_distance():
    net = network()
    objective = Anchored(no_loss, net, weight=2.0)
    assert objective.tension() == 0
    net[0].weight.data += 0.5
    net[1].bias.data -= 0.25
    assert objective([], None, None, None).item() == pytest.approx(12 * 0.25 + 2 * 0.0625)


def test_free_and_frozen_weights_hang_on_no_spring():
    net = network()
    net[0].bias.requires_grad_(False)
    objective = Anchored(no_loss, net, free=["1.weight"])
    net[1].weight.data += 9.0
    net[0].bias.data += 9.0
    assert objective.tension() == 0 and len(objective.springs) == 2


def test_weights_that_the_loss_does_not_need_come_back():
    """As those of a structure that nobody annotated: only the spring has a say."""
    net = network()
    start = net[0].weight.detach().clone()
    objective = Anchored(no_loss, net)
    net[0].weight.data += 0.5
    optimizer = torch.optim.SGD(net.parameters(), 0.5)
    for _ in range(20):
        optimizer.zero_grad()
        objective([], None, None, None).backward()
        optimizer.step()
    assert torch.allclose(net[0].weight, start, atol=1e-4)
