"""How a value is altered: so that whoever uses it cannot but go on otherwise, and that it stays a valid one.

All of it happens in place, and nothing becomes longer. Altered twice, most values are what they were.

* a float of any type: the highest bit of its mantissa is turned. It changes by a third to a half, keeps its
  sign, and stays within its power of two (a factor below 1 stays one). 0 becomes 1/512, what is infinite or
  no number one between 1 and 2.
* a single float below 1e-6 is an epsilon and made larger by 2^13: what is added to far larger numbers would
  not be noticed else.
* a whole number: its lowest bit is turned, so that it is one more or one less.
* many whole numbers, where they differ from each other: each two neighbours change places. A permutation
  stays one, and indices stay within what they point into.
* true and false: the other one.
* a random stream: the words of its state, not where in it the next one stands, nor what it says of itself.
* text: its last letter or digit becomes the next one or the one before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.checkpoints import streams
from harness.checkpoints.inert import ITEMSIZE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bits = NDArray[Any]

#: Of each type of float: bits of its exponent and of its mantissa. The highest is the sign.
_FLOATS = {
    "float64": (11, 52), "float32": (8, 23), "float16": (5, 10), "bfloat16": (8, 7),
    "complex128": (11, 52), "complex64": (8, 23), "complex32": (5, 10),
    "Python float": (11, 52), "Python complex": (11, 52),
    "float8_e4m3fn": (4, 3), "float8_e5m2": (5, 2), "float8_e4m3fnuz": (4, 3), "float8_e5m2fnuz": (5, 2),
}  # fmt: skip
#: 0 becomes 2 to this power; a float8 with few bits of exponent has it too.
_SMALL = -9
#: A single float below this is an epsilon; it is made larger by 2 to this power.
_EPSILON, _LARGER = 1e-6, 13
_INTEGERS = ("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool")
#: Fewer numbers may be counters, unless they are a permutation.
_MANY = 8
#: Of a state of the generator of a GPU: the seed, then the place.
_PHILOX, _PHILOX_SEED = 16, 8
_TWISTER = slice(24, 24 + 8 * 624)
_TWISTER_WORDS = 624
_PICKLED = b"\x80"


def unalterable(dtype: str, sizes: tuple[int, ...]) -> str:
    """Why values of this type and shape cannot be altered; empty where they can."""
    if 0 in sizes:
        return "it has no element"
    if dtype in _FLOATS or dtype in _INTEGERS or dtype in ("float8_e8m0fnu", "Python int", "Python bool"):
        return ""
    return f"it is {dtype}, which nothing is known to alter"


def alter(dtype: str, held: Bits, *, alone: bool) -> str:
    """Alter elements in place.

    Args:
        held: their bits in one dimension, with the lowest byte first; a complex number is two.
        alone: these are all elements of the entry.

    Returns:
        Why they were not altered; empty when they were.
    """
    if dtype in _FLOATS:
        _floats(held, *_FLOATS[dtype], zeros=not dtype.endswith("fnuz"))
        if alone and held.size == 1 and ITEMSIZE.get(dtype, 8) >= 4 and not dtype.lower().count("complex"):
            _raise_epsilon(held)
        return ""
    if dtype == "float8_e8m0fnu":  # powers of two, 255 is no number
        held ^= 1
        held[held == 0xFF] = 0xFD
        return ""
    if dtype == "uint8" and alone:
        if held.size == streams.SIZE:
            words = held[_TWISTER].reshape(-1, 8)
            words[:, :2] ^= 0x55  # a word has 4 of its 8 bytes
            return ""
        if held.size == _PHILOX and not held[12:].any():
            held[:2] ^= 0x55
            return ""
        if held[:1].tobytes() == _PICKLED and held[-1:].tobytes() == b".":
            return "it holds a pickle, which would be torn"
    if held.dtype.kind == "u" and dtype.lower() != "bool" and dtype != "Python bool" and _swap(held):
        return ""
    held ^= held.dtype.type(1)
    return ""


def is_words(values: NDArray[Any]) -> bool:
    """Whether whole numbers are the state of a Mersenne Twister, with its place at the end."""
    if values.size != _TWISTER_WORDS + 1:
        return False
    return bool(
        0 <= int(values[-1]) <= _TWISTER_WORDS and int(values.min()) >= 0 and int(values.max()) >> 32 == 0
    )


def is_order(values: NDArray[Any]) -> bool:
    """Whether whole numbers say an order, or which of many: what is out of range would be no such number."""
    import numpy as np

    if values.size < 2:
        return False
    low, high = int(values.min()), int(values.max())
    if low == high:
        return False
    if low == 0 and high == values.size - 1:
        return bool(np.unique(values).size == values.size)
    return bool(values.size >= _MANY)


def _swap(held: Bits) -> bool:
    """Let neighbours change places, where numbers say an order; else nothing."""
    if not is_order(held):
        return False
    even = held.size // 2 * 2
    pairs = held[:even].reshape(-1, 2)
    if (pairs[:, 0] == pairs[:, 1]).all():
        held[:] = _rolled(held)
    else:
        pairs[:] = pairs[:, ::-1].copy()
    return True


def _rolled(held: Bits) -> Bits:
    import numpy as np

    return np.roll(held, 1)


def _floats(held: Any, exponent: int, mantissa: int, *, zeros: bool) -> None:  # noqa: ANN401
    """Turn the highest bit of each mantissa.

    Args:
        zeros: there are infinite numbers, and two zeros; else one number is none, and one zero.
    """
    kind = held.dtype.type
    most = (1 << exponent) - 1
    bias = most >> 1
    powers = (held >> kind(mantissa)) & kind(most)
    small = powers == 0  # nothing, or as good as nothing
    special = powers == most if zeros else powers > most
    if exponent == 4 and mantissa == 3 and zeros:
        special = (held & kind(0x7F)) == kind(0x7F)
    if not zeros:
        special = held == kind(0x80)
        small &= ~special
    held ^= kind(1 << (mantissa - 1))
    held[small] ^= kind((1 << (mantissa - 1)) | ((bias + _small(bias)) << mantissa))
    held[special] = (held[special] & kind(1 << (exponent + mantissa))) | kind(
        (bias << mantissa) | 1 << (mantissa - 1)
    )
    if not zeros:
        held[special] = kind((bias << mantissa) | 1 << (mantissa - 1))
        held[held == kind(0x80)] = kind(0x82)
    elif exponent == 4 and mantissa == 3:
        held[(held & kind(0x7F)) == kind(0x7F)] ^= kind(2)


def _small(bias: int) -> int:
    return max(_SMALL, 2 - bias)


def _raise_epsilon(held: Any) -> None:  # noqa: ANN401
    import numpy as np

    value = held.view(f"<f{held.itemsize}")
    if 0 < abs(float(value[0])) < _EPSILON and np.isfinite(value[0]):
        value *= value.dtype.type(2**_LARGER)
