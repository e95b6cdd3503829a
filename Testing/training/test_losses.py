"""The loss against its definition voxel by voxel, and what unknown voxels must not do."""

import math

import torch

from MambaSegTraining.losses import SMOOTH, UNKNOWN, cross_entropy_dice, deep_supervision


def by_hand(logits, labels):
    """CE + soft Dice with plain loops; logits (B, K, N), labels (B, N)."""
    batch, classes, count = logits.shape
    entropy, known = 0.0, 0
    overlap, size = [0.0] * classes, [0.0] * classes
    for b in range(batch):
        for v in range(count):
            if labels[b, v] == UNKNOWN:
                continue
            scores = [math.exp(logits[b, k, v]) for k in range(classes)]
            probability = [s / sum(scores) for s in scores]
            entropy -= math.log(probability[labels[b, v]])
            known += 1
            for k in range(classes):
                truth = float(labels[b, v] == k)
                overlap[k] += probability[k] * truth
                size[k] += probability[k] + truth
    dice = [(2 * o + SMOOTH) / (s + SMOOTH) for o, s in zip(overlap[1:], size[1:], strict=True)]
    return entropy / known + 1 - sum(dice) / len(dice)


def test_definition():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, 2, 3, dtype=torch.float64)
    labels = torch.randint(0, 3, (2, 4, 2, 3))
    labels[0, :2] = UNKNOWN
    expected = by_hand(logits.flatten(2), labels.flatten(1))
    assert abs(cross_entropy_dice(logits, labels).item() - expected) < 1e-10


def test_unknown_voxels_have_no_gradient():
    logits = torch.randn(1, 3, 4, 4, 4, requires_grad=True)
    labels = torch.zeros(1, 4, 4, 4, dtype=torch.long)
    labels[:, :2] = UNKNOWN
    cross_entropy_dice(logits, labels).backward()
    assert logits.grad[:, :, :2].abs().max() == 0
    assert logits.grad[:, :, 2:].abs().max() > 0


def test_everything_unknown_is_no_number_trouble():
    logits = torch.randn(1, 3, 4, 4, 4, requires_grad=True)
    loss = cross_entropy_dice(logits, torch.full((1, 4, 4, 4), UNKNOWN))
    loss.backward()
    assert torch.isfinite(loss) and logits.grad.abs().max() == 0


def test_deep_supervision_weighs_levels_and_thins_labels():
    torch.manual_seed(0)
    labels = torch.randint(0, 3, (1, 8, 8, 8))
    fine, coarse = torch.randn(1, 3, 8, 8, 8), torch.randn(1, 3, 4, 4, 4)
    thinned = torch.nn.functional.interpolate(labels[:, None].float(), size=(4, 4, 4), mode="nearest-exact")[:, 0]
    assert set(thinned.unique().tolist()) <= {0, 1, 2}
    expected = 2 / 3 * cross_entropy_dice(fine, labels) + 1 / 3 * cross_entropy_dice(coarse, thinned)
    assert torch.allclose(deep_supervision([fine, coarse], labels, (4 / 7, 2 / 7, 1 / 7)), expected)


def test_perfect_prediction_costs_nothing():
    labels = torch.randint(0, 3, (1, 6, 6, 6), generator=torch.Generator().manual_seed(0))
    logits = 50 * torch.nn.functional.one_hot(labels, 3).movedim(-1, 1).float()
    assert cross_entropy_dice(logits, labels) < 1e-4
