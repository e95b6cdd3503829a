"""The parent's opinion: where it counts, and that the annotation has the last word."""

import torch

from MambaSegTraining.anchor import divergence_from
from MambaSegTraining.losses import UNKNOWN


def opinion_of(*rows):
    """(1, K, 1, N) probabilities, one row per voxel."""
    return torch.tensor(rows).T[None, :, None]


SURE = opinion_of([0.98, 0.01, 0.01], [0.01, 0.98, 0.01], [0.01, 0.01, 0.98])


def gradient(labels, merged=None, added=(), classes=3):
    """Which of three voxels feel the anchor, for a child that knows nothing."""
    logits = torch.zeros(1, classes, 1, 3, requires_grad=True)
    opinion = torch.cat([SURE, torch.zeros(1, classes - 3, 1, 3)], 1)
    divergence_from(opinion, logits, torch.tensor([[labels]]), merged, list(added)).backward()
    return (logits.grad.abs().sum(1)[0, 0] > 1e-6).tolist()


def test_agreeing_with_the_parent_costs_nothing():
    assert divergence_from(SURE, SURE.log(), torch.full((1, 1, 3), UNKNOWN), None, []).abs() < 1e-6


def test_it_counts_where_nothing_is_known_or_the_annotation_agrees():
    assert gradient([UNKNOWN, UNKNOWN, UNKNOWN]) == [True, True, True]
    assert gradient([0, 1, 2]) == [True, True, True]
    assert gradient([1, 1, 0]) == [False, True, False]


def test_background_of_a_partial_annotation_contradicts_only_what_was_looked_for():
    only_first = torch.tensor([[True, False, True]])  # class 1 was annotated, class 2 was not
    assert gradient([0, 0, 0], only_first) == [True, False, True]


def test_an_added_structure_is_background_to_the_parent():
    assert gradient([3, 0, 3], added=[3], classes=4) == [True, False, False]
    logits = torch.tensor([0.0, -20, -20, 3.0])[None, :, None, None].expand(1, 4, 1, 3)
    opinion = opinion_of(*[[1.0, 0.0, 0.0, 0.0]] * 3)
    labels = torch.full((1, 1, 3), 3)
    assert divergence_from(opinion, logits, labels, None, [3]) < 1e-6  # new structure plus background is background
