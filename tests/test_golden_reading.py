"""Goldens are read quickly where nothing is odd; values and refusals are those of the slow way."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import goldens
from harness.errors import GoldenError
from harness.goldens import golden
from harness.metrics import Series

#: A loaded machine is no reason to fail.
UNHURRIED = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])

EXPONENTS = st.builds(
    "{}{}.{}e{}".format,
    st.sampled_from(["", "-"]),
    st.integers(0, 10**6),
    st.integers(0, 10**24),
    st.integers(-340, 280),
)
#: Texts of numbers in JSON, as any writer may have them.
NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(allow_nan=False, allow_infinity=False, width=32).map(repr),
    st.floats(-100, 100).map(lambda value: repr(round(value, 5))),
    st.integers(-(2**70), 2**70).map(str),
    st.builds(lambda power, more: str((1 << power) + more), st.integers(50, 65), st.integers(-3, 3)),
    st.sampled_from(["-0", "-0.0", "9007199254740993.0", "1e16", "2.2250738585072011e-308", "1e23"]),
    EXPONENTS,
)
#: What damage leaves behind.
PIECES = [
    b"",
    *(bytes([code]) for code in b'":,{}[]01-.eE \n\\\x00\xff'),
    b"9" * 16,
    b"NaN",
    b'"nan"',
    b"null",
]
STEPS = st.lists(st.integers(-(2**61), 2**61) | st.integers(0, 20), min_size=1, max_size=6, unique=True)


def metric(steps: list[int], texts: list[str]) -> str:
    values = ", ".join(f'"{step}": {text}' for step, text in zip(steps, texts, strict=True))
    head = f'"start_step": {min(steps)}, "end_step": {max(steps)}, "step_interval": 1'
    return f'{{{head}, "values": {{{values}}}}}'


@st.composite
def files(draw: st.DrawFn) -> str:
    """Goldens of up to four metrics, of which some have the same steps."""
    known = draw(st.lists(STEPS | STEPS.map(sorted), min_size=1, max_size=2))
    found = []
    for name in "abcd"[: draw(st.integers(1, 4))]:
        steps = draw(st.sampled_from(known))
        texts = draw(st.lists(NUMBERS, min_size=len(steps), max_size=len(steps)))
        found.append(f'"{name}": {metric(steps, texts)}')
    return f"{{{', '.join(found)}}}"


def bits(number: float) -> tuple[type, int]:
    """What tells a number from every other, its type included where floats do not hold it."""
    if type(number) is int and abs(number) >= 2**53:
        return int, number
    return float, struct.unpack("=q", struct.pack("=d", number))[0]


def same(one: Mapping[str, Series], other: Mapping[str, Series]) -> bool:
    return list(one) == list(other) and all(
        (a.name, a.steps.tobytes(), a.values.tobytes()) == (b.name, b.steps.tobytes(), b.values.tobytes())
        and list(map(bits, a.numbers())) == list(map(bits, b.numbers()))
        for a, b in zip(one.values(), other.values(), strict=True)
    )


def slowly(path: Path) -> dict[str, Series]:
    found = golden._parse(path, path.read_bytes(), "metrics by name")
    return {name: golden._series(path, name, value) for name, value in found.items()}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("goldens") / "golden_values_dev_cpu.json"


@UNHURRIED
@given(text=files())
def test_every_number_has_the_bits_that_python_reads(path: Path, text: str) -> None:
    path.write_text(text)
    wanted: dict[str, Any] = json.loads(text)
    found = goldens.read(path).series
    assert list(found) == list(wanted)
    for name, one in found.items():
        assert one.clean is Series(name, one.steps, one.values).clean is True
        pairs = sorted((int(step), number) for step, number in wanted[name]["values"].items())
        assert one.steps.tolist() == [step for step, _ in pairs]
        numbers = [number for _, number in pairs]
        assert list(map(bits, map(float, numbers))) == list(map(bits, one.values.tolist()))
        # A float from 2**53 on is a whole number, and told as one.
        assert [float(a) == float(b) and (type(b) is float or a == b)
                for a, b in zip(one.numbers(), numbers, strict=True)] == [True] * len(numbers)  # fmt: skip


@UNHURRIED
@given(text=files(), data=st.data())
def test_a_damaged_golden_is_read_or_refused_as_the_slow_way_does(
    path: Path, text: str, data: st.DataObject
) -> None:
    raw = bytearray(text.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw)))
        gone = data.draw(st.sampled_from([0, 1, 1, 5, len(raw)]))
        new = data.draw(st.sampled_from([*b'":,{}[]01-.eE \n\t\\n\x00\xff']).map(lambda code: bytes([code])))
        raw[at : at + gone] = data.draw(
            st.sampled_from([b"", new, b"9" * 16, b"NaN", b'"nan"', b"null", b"[1]"])
        )
    path.write_bytes(raw)
    quick = golden._quickly(bytes(raw))
    try:
        found = goldens.read(path).series
    except GoldenError:
        assert not quick
        return
    assert same(found, slowly(path))


def test_metrics_of_the_same_steps_share_them_and_others_do_not(path: Path) -> None:
    heads = {"a": [1, 2, 3], "b": [1, 2, 3], "c": [1, 2, 4], "d": [1, 2, 3]}
    path.write_text("{" + ", ".join(f'"{n}": {metric(s, ["0.5"] * 3)}' for n, s in heads.items()) + "}")
    found = goldens.read(path).series
    assert {name: one.steps.tolist() for name, one in found.items()} == heads
    assert np.shares_memory(found["a"].steps, found["b"].steps)
    assert not np.shares_memory(found["a"].steps, found["c"].steps)


def test_what_is_usual_is_read_the_quick_way(path: Path) -> None:
    """Else the tests above compare the slow way with itself."""
    numbers = ["10.85535", "-0.0", "0", "1234567890123456", str(2**53 - 1), "1e15", "5e-324"]
    text = f'{{"a": {metric(list(range(1, 8)), numbers)}}}'
    assert golden._quickly(text.encode()) is not None
    path.write_text(text)
    assert [math.copysign(1, value) for value in slowly(path)["a"].values[:2]] == [1, -1]
    assert same(goldens.read(path).series, slowly(path))


@pytest.mark.parametrize(
    "odd",
    [
        metric([1, 2], ["0.5", str(2**53)]),
        metric([1, 2], ["0.5", "-1e16"]),
        metric([1, 2**63], ["0.5", "0.5"]),
        metric([1, 3, 2, 4], ["0.5"] * 4),
        metric([1, 2], ["0.5", "1e400"]),
        metric([1, 2], ["0.5", '"nan"']),
        metric([1, 2], ["0.5", "null"]),
        metric([1, 2], ["0.5", "0.5"]).replace('"end_step": 2', '"end_step": 3'),
        metric([1, 2], ["0.5", "0.5"]).replace('"2"', '"02"'),
        metric([1, 2], ["0.5", "0.5"]).replace("values", "value"),
        '{"start_step": 1, "end_step": 1, "step_interval": 1, "values": {}}',
    ],
)
def test_what_is_odd_is_left_to_the_slow_way(odd: str) -> None:
    good = metric([1, 2], ["0.5", "0.5"])
    assert golden._quickly(f'{{"a": {good}, "b": {odd}}}'.encode()) is None
