"""The recurrence of the pure torch scan, x[t] = x[t] + decay[t] x[t-1], along the rows of a buffer."""

import math

import torch
from torch import Tensor

LOG2E = math.log2(math.e)
DITHER_STEPS = 256


class Recurrence:
    """x[t] += decay[t] x[t-1] in place along two buffers of rows, or with ``reverse`` x[t] += decay[t+1] x[t+1].

    Each level joins pairs of steps, leaving half as many steps of twice the reach (Blelloch 1990): first the second
    step of every pair, then all of these one after the other, then the steps between them. Views are made only once.

    ``decay`` is handed over as exponents of two: those of a pair are added, not its decays multiplied, because a
    product close to 1 would be rounded alike in every pair of a slow decay.
    """

    def __init__(self, decay: Tensor, x: Tensor, levels: int, reverse: bool = False):
        n = len(x)
        at, of = (range(n - 1, -1, -1), range(n, 0, -1)) if reverse else (range(n), range(n))
        self.sums, updates, between = [], [], []
        for _ in range(levels):
            if len(at) < 4:
                break
            updates.append((_rows(x, at[1::2]), _rows(decay, of[1::2]), _rows(x, at[0:-1:2])))
            between.append((_rows(x, at[2::2]), _rows(decay, of[2::2]), _rows(x, at[1:-1:2])))
            at = at[1::2]
            pairs = decay.new_empty(len(at), *decay.shape[1:])
            pair_of = range(len(at) - 1, -1, -1) if reverse else range(len(at))
            self.sums.append((_rows(pairs, pair_of[1:]), _rows(decay, of[3::2]), _rows(decay, of[2:-1:2])))
            decay, of = pairs, pair_of
        updates += [(x[at[i]], decay[of[i]], x[at[i - 1]]) for i in range(1, len(at))]
        updates += reversed(between)
        self.updates = [list(rows) for rows in zip(*updates, strict=True)]
        self.in_one_call = x.device.type == "cpu"

    def join(self) -> None:
        """Before the exponents in ``decay`` are replaced by their powers of two."""
        for out, a, b in self.sums:
            torch.add(a, b, out=out)
        for out, _, _ in self.sums:
            torch.exp2(out, out=out)

    def run(self) -> None:
        if not self.updates:
            return
        if self.in_one_call:  # on the CPU the tensors of a list are worked off in turn; a GPU would do all at once
            torch._foreach_addcmul_(*self.updates)
            return
        for target, decay, source in zip(*self.updates, strict=True):
            target.addcmul_(decay, source)


def _rows(x: Tensor, at: range) -> Tensor:
    """These rows in the order of the buffer; torch has no views with negative steps."""
    at = at if at.step > 0 else at[::-1]
    return x[at.start : at.stop : at.step]


def dither(like: Tensor) -> Tensor:
    """Up to half a unit in the last place of numbers just below 1, another one in each step, zero on average.

    exp(delta A) close to 1 is rounded alike in every step of a constant delta, which adds up: 1e-4 in the gradients at
    delta = 1e-4. Rounding now up and now down makes it noise. To be added to exponents of two; (DITHER_STEPS,).
    """
    bits = (DITHER_STEPS - 1).bit_length()
    reversed_bits = [int(f"{i:0{bits}b}"[::-1], 2) for i in range(DITHER_STEPS)]  # evenly spread at any length
    spread = (torch.tensor(reversed_bits) + 0.5) / DITHER_STEPS - 0.5
    return (spread * (LOG2E * torch.finfo(like.dtype).eps / 2)).to(like)
