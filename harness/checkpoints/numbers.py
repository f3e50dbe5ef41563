"""What two blocks of bits mean as numbers: how many differ, where, by how much."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bits = NDArray[np.generic]

_PLAIN = {
    "float64": "f8", "float32": "f4", "float16": "f2", "int64": "i8", "int32": "i4", "int16": "i2",
    "int8": "i1", "uint64": "u8", "uint32": "u4", "uint16": "u2", "uint8": "u1", "bool": "u1",
    "complex64": "c8", "complex128": "c16", "Python int": "i8", "Python float": "f8",
    "Python bool": "u1", "Python complex": "c16",
}  # fmt: skip


@dataclass
class Tally:
    """Differences found so far in one tensor, in whatever order its blocks came.

    Args:
        differing: elements whose bits differ.
        first, last: flat index of the first and last of them.
        a, b: the values at ``first``.
        max_abs, max_rel: largest |b − a| and |b − a| / |a| over the finite ones; None without any.
    """

    differing: int = 0
    first: int | None = None
    last: int | None = None
    a: float | int | str | None = None
    b: float | int | str | None = None
    max_abs: float | None = None
    max_rel: float | None = None

    def add(self, dtype: str, base: int, a: Bits, b: Bits) -> None:
        """Compare two blocks whose first element has flat index ``base``."""
        import numpy as np

        words = "<u8" if a.nbytes % 8 == 0 else "u1"
        flat_a, flat_b = a.reshape(-1), b.reshape(-1)
        if np.array_equal(flat_a.view(words), flat_b.view(words)):
            return
        if flat_a.dtype.kind == "c":  # 16 bytes: two words an element
            pairs = flat_a.view("<u8").reshape(-1, 2), flat_b.view("<u8").reshape(-1, 2)
            self._apart(dtype, base, flat_a, flat_b, (pairs[0] != pairs[1]).any(axis=1))
            return
        self._apart(dtype, base, flat_a, flat_b, flat_a != flat_b)

    def merge(self, other: Tally) -> None:
        """Take in what was found in other blocks of the same tensor, in whatever order."""
        if other.first is None or other.last is None:
            return
        if self.first is None or other.first < self.first:
            self.first, self.a, self.b = other.first, other.a, other.b
        self.last = other.last if self.last is None else max(self.last, other.last)
        self.differing += other.differing
        self.max_abs = _max(self.max_abs, other.max_abs)
        self.max_rel = _max(self.max_rel, other.max_rel)

    def _apart(self, dtype: str, base: int, a: Bits, b: Bits, apart: NDArray[np.bool_]) -> None:
        import numpy as np

        count = int(np.count_nonzero(apart))
        if not count:
            return
        first = int(apart.argmax())
        if self.first is None or base + first < self.first:
            self.first = base + first
            self.a, self.b = _scalar(dtype, a[first : first + 1]), _scalar(dtype, b[first : first + 1])
        last = base + apart.size - 1 - int(apart[::-1].argmax())
        self.last = last if self.last is None else max(self.last, last)
        self.differing += count
        # Picking elements costs more than it saves when many of them differ.
        most = count * 8 > apart.size
        one, two = (a, b) if most else (a[apart], b[apart])
        values = _values(dtype, one), _values(dtype, two)
        if values[0] is not None and values[1] is not None:
            self._sizes(values[0], values[1], apart if most else apart[apart])

    def _sizes(self, a: NDArray[Any], b: NDArray[Any], differing: NDArray[np.bool_]) -> None:
        import numpy as np

        with np.errstate(all="ignore"):
            apart = np.subtract(b, a)
            apart = np.abs(apart, out=apart) if apart.dtype.kind == "f" else np.abs(apart)
            self.max_abs = _larger(self.max_abs, apart, differing)
            size = np.abs(a)
            self.max_rel = _larger(self.max_rel, np.divide(apart, size, out=size), differing)


def _larger(so_far: float | None, found: NDArray[Any], differing: NDArray[np.bool_]) -> float | None:
    import numpy as np

    highest = float(found.max())
    if not math.isfinite(highest):  # the equal elements, which are 0 apart, say nothing then
        finite = found[np.isfinite(found) & differing]
        if not finite.size:
            return so_far
        highest = float(finite.max())
    return _max(so_far, highest)


def _max(one: float | None, two: float | None) -> float | None:
    return two if one is None else one if two is None else max(one, two)


def _values(dtype: str, bits: Bits) -> NDArray[Any] | None:
    """Bits as numbers wide enough to subtract; None for what is no number (text)."""
    import numpy as np

    if dtype == "bfloat16":
        return (bits.astype("<u4") << np.uint32(16)).view("<f4")
    if dtype.startswith("float8") or dtype == "complex32":
        return _by_torch(dtype, bits)
    if dtype not in _PLAIN:
        return None
    plain = bits.view(_PLAIN[dtype])
    # float32 suffices for what is shown of a float32 difference, at half the time.
    return plain if plain.dtype.kind == "c" or plain.dtype == "f4" else plain.astype("f8")


def _by_torch(dtype: str, bits: Bits) -> NDArray[Any]:
    import torch

    raw = torch.from_numpy(bits.copy().view("u1")).view(getattr(torch, dtype))
    wide = torch.complex128 if dtype == "complex32" else torch.float64
    values: NDArray[Any] = raw.to(wide).numpy()
    return values


def _scalar(dtype: str, bits: Bits) -> float | int | str | None:
    """One element as Python's number; NaN, infinity and complex as text, so JSON can hold it."""
    if dtype in _PLAIN:
        plain = bits.view(_PLAIN[dtype])[0]
        if plain.dtype.kind in "iu":
            return int(plain)
        if plain.dtype.kind == "c":
            return str(complex(plain))
        if plain.dtype.itemsize < 8:
            # The shortest text that means this float32 is what people recognise.
            return _finite(float(str(plain)), float(plain))
        return _finite(float(plain), float(plain))
    values = _values(dtype, bits)
    return None if values is None else _finite(float(values[0].real), float(values[0].real))


def _finite(short: float, exact: float) -> float | str:
    return short if math.isfinite(exact) else str(exact)
