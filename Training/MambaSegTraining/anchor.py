"""What keeps a network that learns from a few cases from forgetting the rest: a spring on every weight.

The loss plus ``WEIGHT / 2`` times the squared distance of the learning weights from the parent's (L2-SP: Li,
Grandvalet, Davoine 2018, arXiv 1802.01483). New or changed output channels hang on no spring: they have to learn.

Chosen by measurement against the parent's probabilities as a second target (learning without forgetting, Li and Hoiem
2016), hippocampus model, five cases, 25 to 30 steps of batch 2, patches of 24 x 40 x 24, rate 1e-3, mean Dice of
anterior / posterior part on unseen cases:

    only the anterior part annotated            parent 0.891 / 0.878 (5 unseen cases)
        no anchor                               0.553 / 0.728
        parent's probabilities                  0.681 / 0.814
        this                                    0.831 / 0.861
    all annotated, inverted contrast and blur   parent 0.904 / 0.889 on the old contrast, 0 / 0 on the new one (4 cases)
        parent's probabilities                  0.094 / 0.422 on the old contrast, 0.430 / 0.584 on the new one
        this                                    0.658 / 0.569 on the old contrast, 0.354 / 0.546 on the new one
"""

from collections.abc import Iterable

from torch import Tensor, nn

WEIGHT = 1.0


class Anchored:
    """Objective of the loop: the loss plus the tension of the springs.

    Args:
        loss: ``f(levels, labels, merged)``.
        network: as it is now, before it learns; its parameters that learn are anchored where they are.
        free: names of parameters without a spring.
        weight: of the squared distance.
    """

    def __init__(self, loss, network: nn.Module, free: Iterable[str] = (), weight: float = WEIGHT):
        free = set(free)
        learning = [p for name, p in network.named_parameters() if p.requires_grad and name not in free]
        self.loss, self.weight = loss, weight
        self.springs = [(p, p.detach().clone()) for p in learning]

    def __call__(self, levels: list[Tensor], labels: Tensor, merged: Tensor | None, images: Tensor) -> Tensor:
        return self.loss(levels, labels, merged) + self.tension()

    def tension(self) -> Tensor | float:
        return sum((p - start).square().sum() for p, start in self.springs) * (self.weight / 2)
