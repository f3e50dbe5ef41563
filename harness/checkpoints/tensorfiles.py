"""What a file of safetensors holds, and where, as the ``safetensors`` library has checked it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.checkpoints.archives import Stored
from harness.errors import CheckpointError

SUFFIX = ".safetensors"
_TORN = "the file is torn: take an earlier checkpoint"
#: The library's words for torch's.
_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool", "C64": "complex64",
}  # fmt: skip
#: Types of less than a byte, in bits: compared as the bytes that they are packed into.
_PACKED = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}


@dataclass(frozen=True)
class Header:
    """What a file says of itself.

    Args:
        tensors: where each lies, by name.
        metadata: its ``__metadata__``, texts.
        packed: type and shape of tensors of less than a byte an element, which are read as bytes, by name.
    """

    tensors: Mapping[str, Stored]
    metadata: Mapping[str, str]
    packed: Mapping[str, str] = field(default_factory=dict)


def read_header(path: Path) -> Header:
    """The tensors of a file, as the library has checked that they fill it to its last byte.

    Raises:
        CheckpointError: cut, empty, or something else than safetensors.
    """
    from safetensors import SafetensorError, safe_open

    try:
        # The library refuses what is cut, overlaps, has gaps, or does not add up to its shapes.
        with safe_open(path, framework="np"), path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            content = json.loads(file.read(length))
    except (OSError, SafetensorError, ValueError) as cause:
        size = path.stat().st_size if path.exists() else 0
        said = str(cause).removeprefix("Error while deserializing header: ")
        raise CheckpointError(f"{path}: {size} bytes, expected safetensors: {said}", _TORN) from cause
    metadata = content.pop("__metadata__", None) or {}
    tensors = {
        name: _stored(path, 8 + length + about["data_offsets"][0], name, about)
        for name, about in sorted(content.items(), key=lambda each: each[1]["data_offsets"])
    }
    packed = {
        name: f"{about['dtype']} {about['shape']}"
        for name, about in content.items()
        if about["dtype"] in _PACKED
    }
    return Header(tensors, metadata, packed)


def _stored(path: Path, position: int, name: str, about: Mapping[str, Any]) -> Stored:
    kind, shape = about["dtype"], tuple(about["shape"])
    if kind in _PACKED:
        dtype, shape = "uint8", (math.prod(shape) * _PACKED[kind] // 8,)
    elif kind in _DTYPES:
        dtype = _DTYPES[kind]
    else:
        raise CheckpointError(f"{path}: {name} is {kind}, which is not read")
    return Stored(path, position, dtype, shape, tuple(math.prod(shape[i + 1 :]) for i in range(len(shape))))
