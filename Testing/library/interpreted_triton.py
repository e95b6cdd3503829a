"""Runs the Triton scan in Triton's interpreter and prints, case by case, how far it is from the reference in fp64.

A program of its own because TRITON_INTERPRET must be set before triton is imported. One JSON object per line:
{"case": name, "differences": [of y, then of every gradient], "segments": n, "launches": n}.
"""

import json

import torch

from MambaSegLib.ops import selective_scan, triton_scan

# batch, length, groups, channels of a group, states, gate, softplus, D, bias
CASES = {
    "one step": (1, 1, 1, 3, 1, True, True, True, True),
    "two steps": (2, 2, 1, 2, 2, True, True, True, True),
    "a chunk": (1, 4, 1, 3, 4, True, True, True, True),
    "a chunk and a step": (1, 5, 2, 1, 4, True, True, True, True),
    "groups": (2, 7, 3, 2, 3, True, True, True, True),
    "bare": (1, 7, 1, 2, 4, False, False, False, False),
    "no gate": (1, 7, 1, 2, 4, False, True, True, True),
    "no softplus": (1, 7, 1, 2, 3, True, False, True, True),
    "several launches": (1, 6, 1, 2, 9, True, True, True, True),
    "several launches without gate": (1, 6, 1, 1, 9, False, True, True, False),
    "segments": (1, 19, 1, 2, 3, True, True, True, True),
    "segments and launches": (1, 17, 1, 2, 5, True, True, True, True),
    "extreme steps": (1, 11, 1, 2, 4, True, True, True, True),
}


def draw(name, batch, length, groups, width, states, gate, softplus, skip, bias):
    generator = torch.Generator().manual_seed(7)
    channels = groups * width

    def random(*shape):
        return torch.randn(*shape, generator=generator)

    delta = random(batch, length, channels)
    if name == "extreme steps":  # underflowing decays beside steps of 1e-4
        delta = torch.where(delta > 0, 50.0, -9.2) + delta
    elif not softplus:
        delta = delta.abs()
    rows = random(batch, length, 2 * groups * states).unflatten(2, (2, groups, states))  # B and C are strided views
    operands = [random(batch, length, channels), delta, -random(channels, states).abs() - 0.1, rows[:, :, 0]]
    operands += [rows[:, :, 1], random(channels) if skip else None, random(batch, length, channels) if gate else None]
    return [*operands, random(channels) if bias else None], softplus, random(batch, length, channels)


def results(function, operands, softplus, upstream, dtype):
    given = [None if t is None else t.to(dtype).requires_grad_() for t in operands]
    y = function(*given, softplus)
    return [y, *torch.autograd.grad(y, [t for t in given if t is not None], upstream.to(dtype))]


def main() -> None:
    # Small tiles: many chunks, launches and segments in few of the interpreter's slow steps.
    triton_scan.T, triton_scan.TILE, triton_scan.STATES_AT_ONCE, triton_scan.CHUNKS_PER_SEGMENT = 4, 8, 4, 2
    for name, case in CASES.items():
        operands, softplus, upstream = draw(name, *case)
        found = results(triton_scan.scan, operands, softplus, upstream, torch.float32)
        expected = results(selective_scan.reference, operands, softplus, upstream, torch.float64)
        with torch.no_grad():
            found.append(triton_scan.scan(*operands, softplus))  # nothing kept for a backward pass
        expected.append(expected[0])
        call = triton_scan._Call(*operands, softplus)
        pairs = zip(found, expected, strict=True)
        differences = [((a - b).abs().max() / b.abs().max().clamp(min=1e-12)).item() for a, b in pairs]
        launches = -(-call.N // call.BN)
        report = {"case": name, "differences": differences, "segments": call.segments, "launches": launches}
        print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
