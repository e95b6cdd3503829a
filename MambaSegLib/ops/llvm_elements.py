"""What differs between float32 and float64 in the kernels: types, bits, and the polynomials of exp2 and log."""

from __future__ import annotations

import math
from dataclasses import dataclass

from llvmlite import ir

INT8, INT32, INT64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)


@dataclass(frozen=True)
class Element:
    """Constants of one floating-point type. Polynomials are highest power first."""

    name: str
    code: str  # in the names of LLVM's intrinsics
    type: ir.Type
    bits_type: ir.Type
    size: int  # bytes
    mantissa: int  # stored bits, so the shift that turns an integer into an exponent
    exponent_limit: float  # 2^x stays a normal number for |x| up to here
    exp2_polynomial: tuple[float, ...]  # 2^r on [-1/2, 1/2]
    excess_polynomial: tuple[float, ...]  # (2^r - 1) / r on [-1/4, 1/4]
    log_polynomial: tuple[float, ...]  # log(1 + e) / t in q = t^2, t = e / (2 + e), on [0, 1/9]

    @property
    def one_bits(self) -> int:
        """The number 1 as an integer of the same bits."""
        return (2 ** (8 * self.size - 2 - self.mantissa) - 1) << self.mantissa

    @property
    def magic(self) -> float:
        """Added to a number it leaves the rounded integer in the lowest mantissa bits."""
        return 1.5 * 2.0**self.mantissa


FLOAT32 = Element(
    name="float32",
    code="f32",
    type=ir.FloatType(),
    bits_type=INT32,
    size=4,
    mantissa=23,
    exponent_limit=126.0,
    # Minimax fits; the Taylor series would need two more terms for the same error.
    exp2_polynomial=(
        0.0013274558141532565,
        0.009671958066682775,
        0.05550678633995778,
        0.24022235415808987,
        0.6931470613724576,
        1.0,
    ),
    # Better than the one above near 0: an error there is the same at every step of a slow decay.
    excess_polynomial=(
        0.0013333549363752104,
        0.009630161777815949,
        0.055504164554725906,
        0.24022631916950088,
        0.6931471799786525,
    ),
    log_polynomial=(0.26088443876182554, 0.2837503446360764, 0.4000164261762317, 0.6666666486972194, 2.0),
)
FLOAT64 = Element(
    name="float64",
    code="f64",
    type=ir.DoubleType(),
    bits_type=INT64,
    size=8,
    mantissa=52,
    exponent_limit=1022.0,
    exp2_polynomial=tuple(math.log(2.0) ** k / math.factorial(k) for k in range(13, -1, -1)),
    excess_polynomial=tuple(math.log(2.0) ** k / math.factorial(k) for k in range(13, 0, -1)),
    log_polynomial=tuple(2.0 / (2 * k + 1) for k in range(16, -1, -1)),
)
ELEMENTS = {element.name: element for element in (FLOAT32, FLOAT64)}
