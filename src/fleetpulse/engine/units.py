"""Values -> integers whose sums and maxima are exact, in any order.

`exact`: millionths. `float32`: a maximum is kept as the float's bits, which sort like the numbers
(none is negative); a sum as limbs of 40 bits, of which five hold every 32-bit float up to 1e8.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleetpulse.domain.aggregate import Arithmetic, micros
from fleetpulse.domain.metric import Statistic
from fleetpulse.domain.rule import Operator, Threshold
from fleetpulse.engine.text import Floats, Ints

MICROS: Final = 1_000_000
_LIMB_BITS: Final = 40
_LIMBS: Final = 5
# The smallest 32-bit float is 2**-149.
_UNIT: Final = 2**149
# A value below 1e8 and its product are together off by less than 1e14 / 2**52 = 0.023 from the
# decimal's; only what lies nearer to a half than that could be rounded the wrong way.
_NEAR_HALF: Final = 0.475


@dataclass(frozen=True, slots=True)
class Encoded:
    """Values as integers: those that are summed or compared, limb by limb, and how to judge them.

    `judged` are the numbers that stand against the bars of thresholds.
    """

    limbs: tuple[Ints, ...]
    judged: NDArray[np.int64] | NDArray[np.float64]


def limb_count(of: Statistic, arithmetic: Arithmetic) -> int:
    """Return how many integers a total needs."""
    is_long = of is Statistic.MEAN and arithmetic is Arithmetic.FLOAT32
    return _LIMBS if is_long else 1


def encode(values: Floats, of: Statistic, arithmetic: Arithmetic) -> Encoded:
    """Return values (finite, 0 to 1e8) as integers."""
    if arithmetic is Arithmetic.EXACT:
        exact = micros_of(values)
        return Encoded((exact,), exact)
    floats = np.abs(values).astype(np.float32)
    bits = floats.view(np.int32).astype(np.int64)
    limbs = _limbs(bits) if of is Statistic.MEAN else (bits,)
    return Encoded(limbs, floats.astype(np.float64))


def micros_of(values: Floats) -> Ints:
    """Return values in millionths, half away from zero; equal to `micros` of each."""
    scaled = values * MICROS
    nearest = np.rint(scaled)
    found = nearest.astype(np.int64)
    for row in np.flatnonzero(np.abs(scaled - nearest) > _NEAR_HALF).tolist():
        found[row] = micros(float(values[row]))
    return found


def bar(threshold: Threshold, arithmetic: Arithmetic) -> float:
    """Return the lowest judged number of a single value that meets a threshold."""
    is_above = threshold.operator is Operator.ABOVE
    if arithmetic is Arithmetic.EXACT:
        return threshold.limit_micros + is_above
    # A limit has at most 15 digits, so a double equals it or lies on the same side as its decimal.
    limit = threshold.limit_micros / MICROS
    return float(np.nextafter(limit, np.inf)) if is_above else limit


def exact_number(
    limbs: Sequence[int], count: int, of: Statistic, arithmetic: Arithmetic
) -> Fraction:
    """Return the mean or maximum that a total of `count` values stands for; see `statistic`."""
    if arithmetic is Arithmetic.EXACT:
        return Fraction(limbs[0], MICROS * (count if of is Statistic.MEAN else 1))
    if of is Statistic.MAX:
        number = float(np.int32(limbs[0]).view(np.float32))
    else:
        total = sum(limb << (_LIMB_BITS * place) for place, limb in enumerate(limbs))
        # The quotient of two integers is the nearest double of the sum.
        number = total / _UNIT / count
    return Fraction(Decimal(repr(number)))


def _limbs(bits: Ints) -> tuple[Ints, ...]:
    exponent = bits >> 23
    # Numbers below the normal ones have no hidden bit.
    digits = (bits & 0x7FFFFF) | np.where(exponent > 0, 1 << 23, 0)
    shift = np.maximum(exponent, 1) - 1
    limb, within = shift // _LIMB_BITS, shift % _LIMB_BITS
    moved = digits << within
    low, high = moved & ((1 << _LIMB_BITS) - 1), moved >> _LIMB_BITS
    return tuple(
        np.where(limb == place, low, 0) + np.where(limb + 1 == place, high, 0)
        for place in range(_LIMBS)
    )
