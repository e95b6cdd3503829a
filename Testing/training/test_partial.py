"""Partly annotated cases: the loss against sums of probabilities, and what it must not punish."""

import pytest
import torch
import torch.nn.functional as F

from MambaSegTraining.losses import UNKNOWN, deep_supervision
from MambaSegTraining.losses_msda import msda
from MambaSegTraining.losses_partial import merge, partial

K = 4


def drawn(*grid, batch=2):
    generator = torch.Generator().manual_seed(1)
    return 2 * torch.randn(batch, K, *grid, generator=generator), torch.randint(
        0, 2, (batch, *grid), generator=generator
    )


def test_probabilities_of_merged_classes_are_added_up():
    logits, _ = drawn(3, 5)
    merged = torch.tensor([[True, False, True, True], [False] * 4])
    found, plain = merge(logits, merged).softmax(1), logits.softmax(1)
    assert torch.allclose(found[0, 0], plain[0, [0, 2, 3]].sum(0), atol=1e-6)
    assert torch.allclose(found[0, 1], plain[0, 1], atol=1e-6) and found[0, 2:].max() == 0
    assert torch.equal(found[1], plain[1])


def test_cross_entropy_asks_only_what_was_annotated():
    """Label 0 where class 2 was not looked for: -log(p0 + p2 + p3); an annotated voxel: -log p1 as ever."""
    logits, labels = drawn(6, 6, batch=1)
    merged = torch.tensor([[True, False, True, True]])
    p = logits.softmax(1)[0]
    expected = -torch.where(labels[0] == 1, p[1], p[[0, 2, 3]].sum(0)).log().mean()
    found = F.cross_entropy(merge(logits, merged), labels)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_structure_that_nobody_looked_for_is_not_unlearned():
    """Being sure of class 2 costs nothing where only class 1 was annotated, and very much where all were."""
    labels = torch.zeros(1, 4, 4, 4, dtype=torch.long)
    sure = torch.zeros(1, K, 4, 4, 4)
    sure[:, 2] = 60.0
    merged = torch.tensor([[True, False, True, False]])
    loss = partial(lambda levels, target: deep_supervision(levels, target, (1.0,)))
    assert loss([sure], labels, merged) < 1e-3 and loss([sure], labels, None) > 5


@pytest.mark.parametrize("loss", [lambda levels, labels: deep_supervision(levels, labels, (4 / 7, 3 / 7)), msda])
def test_gradients_are_numbers_and_mixed_samples_work(loss):
    levels = [drawn(16, 16)[0].requires_grad_(), drawn(8, 8)[0].requires_grad_()]
    labels = drawn(16, 16)[1]
    labels[1, :4] = UNKNOWN
    merged = torch.tensor([[True, False, False, True], [False] * 4])
    value = partial(loss)(levels, labels, merged)
    value.backward()
    assert torch.isfinite(value) and all(torch.isfinite(level.grad).all() for level in levels)
    assert levels[0].grad[0, 3].abs().max() > 0  # the merged class shares the background's gradient
    everything = partial(loss)(levels, labels, torch.zeros(2, K, dtype=torch.bool))
    assert everything.item() == pytest.approx(loss(levels, labels).item(), rel=1e-5)
