"""The promise of every network: images of any size in, logits of that size out."""

from torch import Tensor, nn

from .conv import crop_scales, pad_up


class AnySizeNetwork(nn.Module):
    """Base of networks that pad at the ends of the axes, run, and crop; subclasses say how by ``run``.

    Attributes:
        divisor: grid sizes that are multiples of it need no padding, one number per axis.
    """

    divisor: tuple[int, ...]

    def pad(self, x: Tensor) -> Tensor:
        """To a size that the network can halve all the way."""
        return pad_up(x, self.divisor)

    def run(self, padded: Tensor, all_scales: bool) -> list[Tensor]:
        """Logits of a padded image, finest first; of the finest scale alone unless ``all_scales``."""
        raise TypeError(f"{type(self).__name__} does not say how it runs")

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, *grid) of any size -> logits (B, K, *grid)."""
        padded = self.pad(x)
        return crop_scales(self.run(padded, False), padded.shape[2:], x.shape[2:])[0]

    def forward_multiscale(self, x: Tensor) -> list[Tensor]:
        """Logits of every supervised scale, finest first; coarse ones at their own size, ``ceil(grid / scale)``."""
        padded = self.pad(x)
        return crop_scales(self.run(padded, True), padded.shape[2:], x.shape[2:])
