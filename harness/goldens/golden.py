"""Goldens: the series, state digests and provenance approved for a case on a (track, platform).

``goldens/<case>/golden_values_<track>_<platform>.json`` is in Megatron-LM's own format, so its reader
takes ours and ours takes its. What it has no place for is in ``….provenance.json`` beside it.
"""

from __future__ import annotations

import functools
import json
import re
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.checkpoints.rules import Rule
from harness.errors import GoldenError
from harness.goldens.reading import FULL
from harness.metrics import Series
from harness.metrics.series import WHOLE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIZE_LIMIT = 64 << 20  # bytes; 900 metrics of 10,000 steps have less
#: Of a value that Megatron-LM has rounded; those of a metric with ``value_precision: full`` it has not.
DECIMALS = 5
_OWN = ("recorded", "approved")
_FIELDS = ("start_step", "end_step", "step_interval", "values")


@dataclass(frozen=True, eq=False)
class Golden:
    """What a run is compared with.

    Args:
        path: the file that was chosen.
        fallback: it is not this platform's own (``golden_values_<track>.json``); never exact.
        series: by metric.
        provenance: what the side file says; empty without one.
        rounded: metrics of Megatron-LM's that were written down with :data:`DECIMALS`.
    """

    path: Path
    fallback: bool
    series: Mapping[str, Series]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    rounded: frozenset[str] = frozenset()

    def alike(self, series: Mapping[str, Series]) -> dict[str, Series]:
        """A run's series as this golden's were written down: rounded, and every so many steps, if they were.

        Megatron-LM's tools kept every fifth step once. What was recorded here is neither.
        """
        import numpy as np

        found = dict(series)
        for name, theirs in self.series.items():
            if name not in found or self.provenance.get("how") in _OWN:
                continue
            if len(theirs) > 2 and int(np.diff(theirs.steps[1:]).min()) > 1:
                ours = found[name]  # what is no number stays, for it to fail
                found[name] = ours.kept(np.isin(ours.steps, theirs.steps) | ~np.isfinite(ours.values))
            if name in self.rounded:
                found[name] = found[name].rounded(DECIMALS)
        return found

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """What it was recorded on and with; empty when nobody knows."""
        found = self.provenance.get("fingerprint")
        return found if isinstance(found, dict) else {}

    @property
    def state(self) -> Mapping[str, str]:
        """SHA-256 of each component of the state at N; empty without."""
        found = self.provenance.get("state")
        return found if isinstance(found, dict) else {}

    def state_of(self, *, resumed: bool) -> Mapping[str, str]:
        """The same of a run of that kind: a resumed one's may have moved, where a rule allows it to."""
        moved = self.provenance.get("resumed") if resumed else None
        return {**self.state, **moved} if isinstance(moved, dict) else self.state

    @property
    def subject(self) -> Mapping[str, Mapping[str, Any]]:
        """Arguments and variables of the case, as it was then; empty where they were not recorded."""
        found = self.provenance.get("subject")
        return found if isinstance(found, dict) else {}

    @property
    def statistics(self) -> Mapping[str, Any]:
        """What recorded repeats said of each metric's spread; empty without repeats."""
        found = self.provenance.get("statistics")
        return found if isinstance(found, dict) else {}

    @property
    def has_state(self) -> bool:
        """Whether a state at N can be compared with it."""
        return bool(self.state or self.values)

    @property
    def values(self) -> Mapping[str, Mapping[str, str]]:
        """Hashes of the plain values of the state at N, by component and name; they are in no digest."""
        found = self.provenance.get("values")
        groups = found if isinstance(found, dict) else {}
        return {component: group for component, group in groups.items() if isinstance(group, dict)}

    @property
    def circumstances(self) -> tuple[Rule, ...]:
        """What of the state two uninterrupted runs did not share when it was recorded; no digest holds it."""
        found = self.provenance.get("circumstances")
        rules = found if isinstance(found, list) else []
        return tuple(Rule.observed(rule) for rule in rules if isinstance(rule, dict))


def file_name(track: str, platform: str | None) -> str:
    """``golden_values_<track>_<platform>.json``; without a platform, the fallback's."""
    return f"golden_values_{track}_{platform}.json" if platform else f"golden_values_{track}.json"


def side_file(path: Path) -> Path:
    """Where the provenance of the golden at ``path`` lies."""
    return path.with_name(path.stem + ".provenance.json")


def resolve(goldens: Path, case: str, track: str, *platforms: str) -> Golden | None:
    """The golden of a cell: its platform's own, else its track's, else None.

    Args:
        platforms: one; several where nobody says who trains: the first that has an own golden counts.

    Raises:
        GoldenError: the one that would be chosen is broken.
    """
    own = [(file_name(track, platform), False) for platform in platforms]
    for name, fallback in (*own, (file_name(track, None), True)):
        path = goldens / case / name
        if path.exists() or path.is_symlink():
            return read(path, fallback=fallback)
    return None


def read(path: Path, *, fallback: bool = False) -> Golden:
    """Read a golden strictly.

    Raises:
        GoldenError: file, metric and step, what was found, what was expected.
    """
    raw = _bytes(path, "metrics by name")
    series = _quickly(raw)
    if series is None:
        series = {n: _series(path, n, v) for n, v in _parse(path, raw, "metrics by name").items()}
    if not series:
        raise GoldenError(f"{path}: holds no metric")
    side = side_file(path)
    about = _provenance(side) if side.exists() else {}
    return Golden(path, fallback, series, about, _rounded(path, raw, about))


def _rounded(path: Path, raw: bytes, about: Mapping[str, Any]) -> frozenset[str]:
    """Metrics that do not say that they are in full; what was recorded here is, and need not say so."""
    if about.get("how") in _OWN:
        return frozenset()
    found = _parse(path, raw, "metrics by name")
    return frozenset(name for name, one in found.items() if one.get("value_precision") != FULL)


def _provenance(side: Path) -> dict[str, Any]:
    found = _parse(side, _bytes(side, "a provenance"), "a provenance")
    for key in ("fingerprint", "resumed", "state", "statistics", "subject"):
        if not isinstance(found.get(key, {}), dict):
            raise GoldenError(f"{side}: {key}: found {type(found[key]).__name__}, expected an object")
    for part, values in found.get("subject", {}).items():
        if not isinstance(values, dict):
            raise GoldenError(f"{side}: subject: {part}: found {values!r:.40}, expected values by name")
    for key in ("state", "resumed"):
        for component, digest in found.get(key, {}).items():
            if not isinstance(digest, str):
                raise GoldenError(f"{side}: {key}: {component}: found {digest!r:.40}, expected a SHA-256")
    for metric, about in found.get("statistics", {}).items():
        if not isinstance(about, dict) or type(about.get("repeats", 3)) is not int:
            raise GoldenError(f"{side}: statistics: {metric}: found {about!r:.40}, expected what repeats say")
    return found


def _quickly(raw: bytes) -> dict[str, Series] | None:
    """Decode straight into floats, several times faster; None where anything is odd.

    What is odd is read again the slow way, which can say where it is. So are values of 2**53 and more: they
    may be whole numbers that no float holds.
    """
    import msgspec
    import numpy as np

    try:
        found = _decoder().decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, struct.error):
        return None
    series = {}
    before = b""
    steps: NDArray[np.int64] = np.empty(0, np.int64)
    for name, metric in found.items():
        packed = metric.values
        if packed.steps != before:  # nearly all metrics of a run have the same steps; they share one array
            before, steps = packed.steps, np.frombuffer(packed.steps, np.int64)
            if np.count_nonzero(steps[1:] <= steps[:-1]):
                return None
        values = np.frombuffer(packed.values, np.float64)
        if not steps.size or (metric.start_step, metric.end_step) != (int(steps[0]), int(steps[-1])):
            return None
        if not np.abs(values).max() < WHOLE:
            return None
        series[name] = Series.known_clean(name, steps, values)
    return series


class _Packed(NamedTuple):
    """Numbers as bytes: a metric's steps (int64) and values (float64)."""

    steps: bytes
    values: bytes


def _pack(metric: Any) -> None:  # noqa: ANN401 - what the decoder just made
    """Move a metric's numbers out of Python's objects before the next metric is decoded.

    That takes a seventh less time than moving all of them at the end, and less memory: one metric's objects
    fit a processor's cache, and the next metric's take their place.

    Raises:
        struct.error: a step of more than 64 bits.
    """
    values = metric.values
    count = len(values)
    # struct: two thirds of the time of numpy's fromiter.
    metric.values = _Packed(struct.pack(f"={count}q", *values), struct.pack(f"={count}d", *values.values()))


@functools.cache
def _decoder() -> Any:  # noqa: ANN401 - a msgspec.json.Decoder
    import msgspec

    metric = msgspec.defstruct(
        "Metric",
        [("start_step", int), ("end_step", int), ("step_interval", int), ("values", dict[int, float])],
        namespace={"__post_init__": _pack},
    )
    return msgspec.json.Decoder(dict[str, metric])  # type: ignore[valid-type]


def _bytes(path: Path, expected: str) -> bytes:
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise GoldenError(f"{path}: is no regular file, expected {expected}")
        if about.st_size > SIZE_LIMIT:
            raise GoldenError(f"{path}: has {about.st_size >> 20} MiB (limit: {SIZE_LIMIT >> 20} MiB)")
        data = path.read_bytes()
    except OSError as error:
        raise GoldenError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not data or data.isspace():
        raise GoldenError(f"{path}: is empty (0 bytes), expected {expected}")
    return data


def _parse(path: Path, data: bytes, expected: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except RecursionError:
        raise GoldenError(f"{path}: is nested too deeply to be read") from None
    except ValueError as error:
        raise GoldenError(f"{path}: is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise GoldenError(f"{path}: holds a {type(found).__name__}, expected {expected}")
    return found


def _series(path: Path, name: str, value: Any) -> Series:  # noqa: ANN401 - from a file
    import numpy as np

    if not isinstance(value, dict) or not all(key in value for key in _FIELDS):
        there = ", ".join(value) if isinstance(value, dict) else type(value).__name__
        raise GoldenError(f"{path}: {name}: found {there[:80]}, expected {', '.join(_FIELDS)}")
    values = value["values"]
    if not isinstance(values, dict) or not values:
        raise GoldenError(f"{path}: {name}: values: found {type(values).__name__}, expected numbers by step")
    try:
        steps = np.fromiter(map(int, values), np.int64, len(values))
    except (ValueError, OverflowError):
        odd = next((key for key in values if not re.fullmatch(r"-?[0-9]{1,18}", key)), "?")
        raise GoldenError(f"{path}: {name}: step {odd[:40]!r} is no whole number") from None
    numbers = list(values.values())
    if not set(map(type, numbers)) <= {int, float}:
        step, odd = next((s, v) for s, v in values.items() if type(v) not in (int, float))
        raise GoldenError(f"{path}: {name}: step {step}: found {json.dumps(odd)[:40]}, expected a number")
    try:
        array = np.fromiter(map(float, numbers), np.float64, len(numbers))
    except OverflowError:
        raise GoldenError(f"{path}: {name}: holds a number that no float can") from None
    if not np.isfinite(array).all():
        at = int(np.flatnonzero(~np.isfinite(array))[0])
        raise GoldenError(f"{path}: {name}: step {steps[at]}: found {array[at]}, expected a finite number")
    if (np.diff(steps) <= 0).any():
        order = np.argsort(steps, kind="stable")
        steps, numbers = steps[order], [numbers[i] for i in order.tolist()]
        if (np.diff(steps) == 0).any():
            twice = int(steps[:-1][np.diff(steps) == 0][0])
            raise GoldenError(f"{path}: {name}: step {twice} stands in it twice")
    first, last = value["start_step"], value["end_step"]
    if (first, last) != (int(steps[0]), int(steps[-1])):
        raise GoldenError(
            f"{path}: {name}: holds steps {steps[0]} to {steps[-1]}, and says {first!r} to {last!r}"
        )
    return Series.of(name, steps.tolist(), numbers)
