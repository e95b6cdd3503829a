"""From a user's edits to what they mean for the rest of the volume: a Gaussian process on frozen features. Torch-free.

The network says p(x), (K,) probabilities of a voxel. At the voxels that the user decided, y - p(x) is known, y being 1
for the decided class and 0 for the others. A Gaussian process with mean 0 continues this residual to other voxels;
p + residual decides there. Two voxels are alike when they are near each other, when the network says alike about them,
and when its features are alike; where nothing alike was edited the residual is 0 and the network's word stands, so that
confident voxels hold themselves. Before it is used, the residual of each edited part is predicted from the other parts,
and the whole is scaled by what would have helped there.

A few clicks are too few for that, and each of them is meant. There the process continues the change of the log
probabilities that makes the clicked class lead: a voxel nearby follows as far as the network was already near to saying
the same, so that a click moves a border that lies wrong and leaves one that is sure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

REACH_MM = 4.0  # length scale in space
SLICES = 1.2  # but at least so many voxels, for thick slices
FEATURE_SCALE, LOGIT_SCALE = 3.0, 1.0  # length scales in whitened features and in log probabilities
NOISE = 1.0  # variance of a decision relative to that of the residual: one voxel alone proves little
MOST_EXAMPLES, MOST_CLICKED = 2500, 1000  # the cost grows with the third power
STRENGTHS = (1.0, 0.75, 0.5, 0.25)
CLICK_LEAD = 2.0  # of the clicked class over the best other one afterwards, in log probability
CLICK_NOISE = 0.1  # as NOISE; a click is deliberate, a voxel under a brush need not be
_CHUNK = 4096
_BLOCK_MM = 8.0


@dataclass(frozen=True, eq=False)
class Voxels:
    """N voxels as the kernel sees them: `places` (N, 3), `features` (N, M), `logits` (N, K), each in its own scale."""

    places: np.ndarray
    features: np.ndarray
    logits: np.ndarray

    def __getitem__(self, rows) -> Voxels:
        return Voxels(self.places[rows], self.features[rows], self.logits[rows])

    def __len__(self) -> int:
        return len(self.places)

    def for_clicks(self, stretch: np.ndarray) -> Voxels:
        """As clicks see them: with what the network says in what they change already, and `Lessons.stretch`."""
        return Voxels((self.places / stretch).astype(np.float32), self.features, self.logits[:, :0])


@dataclass(frozen=True, eq=False)
class Lesson:
    """What was learned.

    Args:
        examples: N decided voxels.
        weights: (N, K); the residual at x, of probabilities or for clicks of their logarithms, is the kernel between
            x and the examples times them.
        strength: 0..1, by which the residual is scaled.
        fixed, broken: held-out wrong voxels that were put right at this strength, and right ones that were spoilt.
    """

    examples: Voxels
    weights: np.ndarray
    strength: float
    fixed: float
    broken: float

    def residual(self, voxels: Voxels, check: Callable[[], None] = lambda: None) -> np.ndarray:
        """(n, K) of n voxels; `check` is called now and then and may raise."""
        parts = []
        for start in range(0, len(voxels), _CHUNK):
            check()
            parts.append(kernel(voxels[start : start + _CHUNK], self.examples) @ self.weights)
        return self.strength * np.concatenate(parts) if parts else np.zeros((0, self.weights.shape[1]), np.float32)


@dataclass(frozen=True, eq=False)
class Lessons:
    """What was learned from strokes and slices, and then from clicks; None where there were none.

    `stretch`, (3,) along (Z, Y, X), is how many times farther a click is felt than a stroke.
    """

    strokes: Lesson | None
    clicks: Lesson | None
    stretch: np.ndarray

    @property
    def strength(self) -> float:
        """0 when nothing is to be changed."""
        return max((lesson.strength for lesson in (self.strokes, self.clicks) if lesson), default=0.0)

    def scores(self, said: np.ndarray, voxels: Voxels, check: Callable[[], None] = lambda: None) -> np.ndarray:
        """(n, K), the class with the highest one is decided.

        Args:
            said: (n, K) probabilities of n voxels by the network.
            voxels: the same voxels.
            check: as in `Lesson.residual`.
        """
        then = said + self.strokes.residual(voxels, check) if self.strokes and self.strokes.strength else said
        if self.clicks:
            then = log_probabilities(then) + self.clicks.residual(voxels.for_clicks(self.stretch), check)
        return then


def voxels_of(mask: np.ndarray, probabilities: np.ndarray, features: np.ndarray, spacing_mm) -> Voxels:
    """The True voxels of a mask.

    Args:
        mask: (Z, Y, X).
        probabilities, features: (K, Z, Y, X) and (M, Z, Y, X).
        spacing_mm: (x, y, z).
    """
    logits = log_probabilities(probabilities[:, mask].T)
    return Voxels(
        (np.argwhere(mask) * spacing_mm[::-1] / length_scales(spacing_mm)).astype(np.float32),
        features[:, mask].T.astype(np.float32) / FEATURE_SCALE,
        (logits - logits.mean(axis=1, keepdims=True)).astype(np.float32) / LOGIT_SCALE,
    )


def log_probabilities(said: np.ndarray) -> np.ndarray:
    """Of the same shape, float32; nothing is surer than 999 to 1."""
    return np.log(np.clip(said, 1e-3, 1)).astype(np.float32)


def length_scales(spacing_mm, reach_mm: float = REACH_MM) -> np.ndarray:
    """(3,) mm along (Z, Y, X): how far an edit is felt."""
    return np.maximum(reach_mm, SLICES * np.array(spacing_mm[::-1]))


def kernel(a: Voxels, b: Voxels) -> np.ndarray:
    """(len(a), len(b)) float32, 1 for voxels that are the same in every respect."""
    left, right = (np.hstack([v.places, v.features, v.logits]) for v in (a, b))
    squared = (left**2).sum(1)[:, None] + (right**2).sum(1) - 2 * left @ right.T
    return np.exp(-0.5 * np.maximum(squared, 0))


def learn(decided: np.ndarray, classes: np.ndarray, probabilities, features, spacing_mm) -> Lesson:
    """Learn from decided voxels.

    Args:
        decided: bool (Z, Y, X), the voxels to learn from.
        classes: (Z, Y, X) class indices as decided.
        probabilities: (K, Z, Y, X), the network's.
        features: (M, Z, Y, X).
        spacing_mm: (x, y, z).
    """
    parts = _parts(decided, decided & (classes != probabilities.argmax(axis=0)), spacing_mm)[decided]
    said, right = probabilities[:, decided].T, classes[decided]
    residual = (np.eye(len(probabilities), dtype=np.float32)[right] - said).astype(np.float32)
    rows, chance = _sample(np.abs(residual).max(axis=1))
    examples = voxels_of(decided, probabilities, features, spacing_mm)[rows]
    factor = cho_factor(kernel(examples, examples) + NOISE * np.eye(len(rows), dtype=np.float32), lower=True)
    weights = cho_solve(factor, residual[rows])
    inverse = cho_solve(factor, np.eye(len(rows), dtype=np.float32))
    unseen = _held_out(inverse, weights, residual[rows], parts[rows])
    return Lesson(examples, weights, *_strength(said[rows], unseen, right[rows], 1 / chance))


def learn_clicks(clicked: Voxels, said: np.ndarray, right: np.ndarray) -> Lesson:
    """Learn from clicked voxels: the change of log probabilities that makes the decided class lead there.

    Args:
        clicked: N of them, as `Voxels.for_clicks` gives them.
        said: (N, K) probabilities so far, that of strokes learned.
        right: (N,) class indices as decided.
    """
    if len(clicked) > MOST_CLICKED:
        some = np.random.default_rng(0).choice(len(clicked), MOST_CLICKED, replace=False)
        clicked, said, right = clicked[some], said[some], right[some]
    logits, rows = log_probabilities(said), np.arange(len(said))
    others = logits.copy()
    others[rows, right] = -np.inf
    rival = others.argmax(axis=1)
    missing = np.maximum(0, CLICK_LEAD - (logits[rows, right] - others[rows, rival])) / 2
    change = np.zeros_like(logits)
    change[rows, right], change[rows, rival] = missing, -missing
    factor = cho_factor(kernel(clicked, clicked) + CLICK_NOISE * np.eye(len(rows), dtype=np.float32), lower=True)
    return Lesson(clicked, cho_solve(factor, change), 1.0, float((missing > 0).sum()), 0.0)


def _sample(error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the examples to keep, and the chance each of them had: more where the network was wrong."""
    if len(error) <= MOST_EXAMPLES:
        return np.arange(len(error)), np.ones(len(error))
    chance = np.minimum(1, MOST_EXAMPLES * (error + 0.05) / (error + 0.05).sum())
    rows = np.flatnonzero(np.random.default_rng(0).random(len(error)) < chance)
    return rows, chance[rows]


def _parts(decided: np.ndarray, wrong: np.ndarray, spacing_mm) -> np.ndarray:
    """(Z, Y, X) numbers of the parts that are held out in turn: slices, or blocks where only one slice was edited."""
    touched = [wrong.any(axis=tuple(a for a in range(3) if a != axis)).sum() for axis in range(3)]
    covered = [decided.any(axis=tuple(a for a in range(3) if a != axis)).sum() for axis in range(3)]
    axis = int(np.argmin(covered))
    index = np.indices(decided.shape, sparse=True)
    if touched[axis] > 1:
        return np.broadcast_to(index[axis], decided.shape)
    steps = [np.maximum(1, int(_BLOCK_MM / spacing)) for spacing in spacing_mm[::-1]]
    blocks = [i // step for i, step in zip(index, steps, strict=True)]
    return blocks[0] * 1_000_000 + blocks[1] * 1000 + blocks[2]


def _held_out(inverse: np.ndarray, weights: np.ndarray, residual: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """(N, K) residual of each part as predicted from the others (Rasmussen & Williams 2006, equation 5.12)."""
    unseen = np.zeros_like(residual)
    for part in np.unique(parts):
        rows = np.flatnonzero(parts == part)
        unseen[rows] = residual[rows] - np.linalg.solve(inverse[np.ix_(rows, rows)], weights[rows])
    return unseen


def _strength(said, unseen, right, weight) -> tuple[float, float, float]:
    """(strength, fixed, broken): what would have served the held-out parts best; 0 when every strength did harm."""
    before = said.argmax(axis=1) == right
    best = (0.0, 0.0, 0.0)
    for strength in STRENGTHS:
        after = (said + strength * unseen).argmax(axis=1) == right
        fixed, broken = float(weight[after & ~before].sum()), float(weight[before & ~after].sum())
        if fixed - broken > best[1] - best[2] or (best[0] == 0 and fixed == broken):
            best = (strength, fixed, broken)
    return best
