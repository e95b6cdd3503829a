"""Patches: reproducible, at the right place, and honest about what lies outside the image."""

import numpy as np
import torch

from MambaSegTraining.losses import UNKNOWN
from MambaSegTraining.patches import PatchSource, TrainingCase, cut, training_case
from MambaSegTraining.sources import open_source


def source(balls, **changes):
    recipe = {"orientation": "LPS", "spacing_mm": [1, 1, 1], "normalisation": {"name": "zscore"}}
    cases = [training_case(c, recipe) for c in open_source(balls)[:4]]
    arguments = {"foreground_share": 0.5, "context_share": 0.0, "mirror_axes": (2,), "seed": 5, "context": []}
    return PatchSource(cases, patch=(16, 16, 16), **(arguments | changes))


def test_the_same_step_gives_the_same_batch(balls):
    first, again = source(balls), source(balls)
    again.batch(0, 2)  # what was drawn before does not matter
    for a, b in zip(first.batch(7, 3)[:2], again.batch(7, 3)[:2], strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.batch(7, 3)[0], first.batch(8, 3)[0])
    assert not torch.equal(first.batch(7, 3)[0], source(balls, seed=6).batch(7, 3)[0])


def test_shapes_and_values(balls):
    images, labels, merged = source(balls).batch(0, 3)
    assert images.shape == (3, 1, 16, 16, 16) and images.dtype == torch.float32
    assert labels.shape == (3, 16, 16, 16) and labels.dtype == torch.int64
    assert set(labels.unique().tolist()) <= {0, 1, 2, UNKNOWN}
    assert merged is None


def test_labels_stay_on_their_voxels(balls):
    """After all augmentation the bright ball is still brighter than the dark one, by far."""
    patches = source(balls, foreground_share=1.0)
    differences = []
    for step in range(12):
        images, labels, _ = patches.batch(step, 1)
        bright, dark = images[0, 0][labels[0] == 1], images[0, 0][labels[0] == 2]
        if len(bright) > 50 and len(dark) > 50:
            differences.append((bright.median() - dark.median()).item())
    assert len(differences) > 3 and min(differences) > 1.0


def test_context_teaches_only_background(balls):
    image = np.random.default_rng(0).random((1, 30, 30, 30), np.float32)
    context = TrainingCase("context", image, np.full((30, 30, 30), UNKNOWN, np.uint8))
    _, labels, _ = source(balls, context=[context], context_share=1.0).batch(0, 4)
    assert labels.unique().tolist() == [UNKNOWN]


def test_cut_mirrors_images_and_not_labels():
    line = np.arange(5).reshape(5, 1, 1)
    assert cut(line, (0, 0, 0), (9, 1, 1)).ravel().tolist() == [4, 3, 2, 1, 0, 1, 2, 3, 4]
    assert cut(line, (4, 0, 0), (5, 1, 1), outside=255).ravel().tolist() == [2, 3, 4, 255, 255]
    assert cut(line, (2, 0, 0), (3, 1, 1)).ravel().tolist() == [1, 2, 3]
    assert cut(line, (2, 0, 0), (1, 3, 1)).shape == (1, 3, 1)
