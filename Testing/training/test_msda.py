"""Deep supervision against loops over windows and pixels, written from the formulas."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from MambaSegLib.networks import create
from MambaSegTraining.losses import UNKNOWN
from MambaSegTraining.losses_attention_mamba import WEIGHTS, nine_outputs
from MambaSegTraining.losses_dice import squared_dice
from MambaSegTraining.losses_msda import (
    class_distribution,
    distribution_loss,
    msda,
    resized_supervision,
    stage_weights,
)

K = 4


def random_labels(*shape, unknown=0.1):
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, K, shape, generator=generator)
    labels[..., : shape[-1] // 2] = 1  # windows of one class
    labels[torch.rand(shape, generator=generator) < unknown] = UNKNOWN
    return labels


def random_logits(*shape, seed=5):
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def slow_distribution_loss(logits, labels, alpha, floor):
    """Window by window, voxel by voxel, in Python numbers."""
    total = norm = 0.0
    factors = [n // m for n, m in zip(labels.shape[1:], logits.shape[2:], strict=True)]
    for b, *place in itertools.product(*(range(n) for n in (labels.shape[0], *logits.shape[2:]))):
        counts = [0] * K
        for voxel in itertools.product(*(range(p * f, (p + 1) * f) for p, f in zip(place, factors, strict=True))):
            value = int(labels[(b, *voxel)])
            if value != UNKNOWN:
                counts[value] += 1
        if sum(counts) == 0:
            continue
        truth = [c / sum(counts) for c in counts]
        scores = [float(logits[(b, n, *place)]) for n in range(K)]
        normaliser = math.log(sum(math.exp(s) for s in scores))
        divergence = sum(p * (math.log(p) - s + normaliser) for p, s in zip(truth, scores, strict=True) if p > 0)
        weight = floor + (1 - max(truth)) ** alpha
        total, norm = total + weight * divergence, norm + weight
    return total / max(norm, 1e-6)


@pytest.mark.parametrize("alpha,floor", [(1.0, 1.0), (1.0, 0.0), (2.5, 0.0), (0.5, 1.0)])
@pytest.mark.parametrize("grid,level", [((16, 24), (4, 6)), ((8, 12, 8), (4, 3, 2))])
def test_distribution_loss_is_its_formula(grid, level, alpha, floor):
    labels, logits = random_labels(2, *grid), random_logits(2, K, *level)
    labels[0, :4, :8] = UNKNOWN  # windows without a label
    expected = slow_distribution_loss(logits, labels, alpha, floor)
    assert distribution_loss(logits, labels, alpha, floor).item() == pytest.approx(expected, rel=1e-5)


def test_distribution_counts_classes_per_window():
    labels = torch.tensor([[[0, 0, 1, 2], [0, 3, UNKNOWN, 2]]])
    shares, known = class_distribution(labels, K, (1, 2))
    expected = torch.tensor([[0.75, 0, 0, 0.25], [0, 1 / 3, 2 / 3, 0]])
    assert torch.allclose(shares[0, :, 0].T, expected)
    assert known.tolist() == [[[True, True]]]


def test_the_true_distribution_costs_nothing():
    labels = random_labels(2, 16, 24)
    shares, _ = class_distribution(labels, K, (4, 6))
    assert distribution_loss(shares.clamp(min=1e-9).log(), labels).item() == pytest.approx(0, abs=1e-5)


def test_literal_weight_passes_over_windows_of_one_class():
    labels = torch.zeros(1, 8, 8, dtype=torch.long)
    logits = random_logits(1, K, 2, 2).requires_grad_()
    literal = distribution_loss(logits, labels, floor=0.0)
    literal.backward()
    assert literal.item() == 0 and logits.grad.abs().max() == 0
    assert distribution_loss(logits, labels, floor=1.0).item() > 0.1


def test_finer_levels_weigh_more():
    assert stage_weights(5) == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])


def test_msda_is_dice_and_the_weighted_levels():
    labels = random_labels(2, 16, 16)
    levels = [random_logits(2, K, 16 // 2**i, 16 // 2**i, seed=i) for i in range(4)]
    coarse = [slow_distribution_loss(level, labels, 1.0, 1.0) for level in levels[1:]]
    expected = squared_dice(levels[0], labels).item() + sum(
        w * c for w, c in zip((1, 2 / 3, 1 / 3), coarse, strict=True)
    )
    assert msda(levels, labels).item() == pytest.approx(expected, rel=1e-5)


def test_squared_dice_is_its_formula():
    labels, logits = random_labels(2, 6, 5), random_logits(2, K, 6, 5)
    losses = []
    for n in range(K):
        overlap = size = 0.0
        for b, i, j in itertools.product(range(2), range(6), range(5)):
            if labels[b, i, j] == UNKNOWN:
                continue
            p, t = float(logits[b, :, i, j].softmax(0)[n]), float(labels[b, i, j] == n)
            overlap, size = overlap + p * t, size + p * p + t * t
        losses.append(1 - (2 * overlap + 1e-5) / (size + 1e-5))
    assert squared_dice(logits, labels).item() == pytest.approx(sum(losses) / K, rel=1e-5)


def test_traditional_supervision_enlarges_the_levels():
    labels = random_labels(1, 8, 8)
    levels = [random_logits(1, K, 8, 8), random_logits(1, K, 4, 4), random_logits(1, K, 2, 2)]
    full = [F.interpolate(level, (8, 8), mode="bilinear") for level in levels]
    expected = sum(w * squared_dice(level, labels) for w, level in zip((1, 1, 0.5), full, strict=True))
    assert torch.allclose(resized_supervision(levels, labels), expected)


def test_weights_must_fit_the_levels():
    levels = [random_logits(1, K, 8, 8), random_logits(1, K, 4, 4)]
    with pytest.raises(ValueError, match="1 weights"):
        msda(levels, random_labels(1, 8, 8), weights=[1, 2])
    with pytest.raises(ValueError, match="two levels"):
        msda(levels[:1], random_labels(1, 8, 8))


@pytest.mark.parametrize("name,size", [("deco_mamba_test", (40, 50)), ("mm_unet_test", (12, 9, 10))])
def test_msda_teaches_networks_of_both_dimensions(name, size):
    torch.manual_seed(0)
    network = create(name, 1, K)
    labels = torch.zeros(2, *size, dtype=torch.long)
    labels[(slice(None), *(slice(n // 3) for n in size))] = 2
    images = (labels == 2).float().unsqueeze(1) + 0.1 * torch.randn(2, 1, *size)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = msda(network.forward_multiscale(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def slow_nine_outputs(outputs, target):
    total = 0.0
    for weight, output in zip(WEIGHTS, outputs, strict=True):
        pixels = list(itertools.product(*(range(n) for n in target.shape)))
        if output.shape[1] > 1:
            known = [p for p in pixels if target[p] != UNKNOWN]
            entropy = -sum(float(output[b, :, i, j].log_softmax(0)[target[b, i, j]]) for b, i, j in known) / len(known)
            total += weight * (0.5 * entropy + 0.5 * squared_dice(output, target).item())
            continue
        entropy = dice = 0.0
        for b in range(target.shape[0]):
            overlap = size = 0.0
            for _, i, j in (p for p in pixels if p[0] == b):
                p, t = 1 / (1 + math.exp(-float(output[b, 0, i, j]))), float(target[b, i, j])
                entropy -= (t * math.log(p) + (1 - t) * math.log(1 - p)) / len(pixels)
                overlap, size = overlap + p * t, size + p + t
            dice += 1 - (2 * overlap + 1) / (size + 1)
        total += weight * (entropy + dice / target.shape[0])
    return total


@pytest.mark.parametrize("classes", [1, K])
def test_nine_outputs_are_their_formula(classes):
    outputs = [random_logits(2, classes, 6, 7, seed=i) for i in range(9)]
    soft = torch.rand(2, 6, 7, generator=torch.Generator().manual_seed(8))
    target = soft if classes == 1 else random_labels(2, 6, 7)
    assert nine_outputs(outputs, target).item() == pytest.approx(slow_nine_outputs(outputs, target), rel=1e-5)


def test_unknown_pixels_teach_nothing():
    outputs = [random_logits(1, 1, 4, 4, seed=i).requires_grad_() for i in range(9)]
    target = torch.ones(1, 4, 4)
    target[0, 0] = UNKNOWN
    nine_outputs(outputs, target).backward()
    assert all(o.grad[0, 0, 0].abs().max() == 0 and o.grad[0, 0, 1].abs().min() > 0 for o in outputs)
