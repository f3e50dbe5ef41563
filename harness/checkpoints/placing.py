"""The unpickler of :mod:`pickle` that is written in Python, with which every value knows where it lies.

What a pickle names is looked up by whoever has both this class and the table: see
:mod:`harness.checkpoints.pickles`.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any, ClassVar

from harness.checkpoints.inert import NumpyArray
from harness.checkpoints.placed import NAMES, Code, Origin, PlacedStr, Spot, place, stripped
from harness.checkpoints.stand_ins import Call

if TYPE_CHECKING:
    _Base = Any
else:
    _Base = pickle._Unpickler  # noqa: SLF001 - the same machine, of which one can know where it stands

#: How the argument of each operation is written that makes a value; before it, the bytes of its length.
_VALUES: dict[bytes, tuple[Code, int]] = {
    pickle.BININT: ("int", 0), pickle.BININT1: ("int", 0), pickle.BININT2: ("int", 0),
    pickle.LONG1: ("int", 1), pickle.LONG4: ("int", 4), pickle.BINFLOAT: ("float", 0),
    pickle.SHORT_BINUNICODE: ("text", 1), pickle.BINUNICODE: ("text", 4), pickle.BINUNICODE8: ("text", 8),
    pickle.SHORT_BINSTRING: ("text", 1), pickle.BINSTRING: ("text", 4),
    pickle.SHORT_BINBYTES: ("bytes", 1), pickle.BINBYTES: ("bytes", 4), pickle.BINBYTES8: ("bytes", 8),
    pickle.INT: ("digits", 0), pickle.LONG: ("digits", 0), pickle.FLOAT: ("number", 0),
    pickle.UNICODE: ("escaped", 0), pickle.STRING: ("escaped", 0),
}  # fmt: skip
#: Functions that hand on what they are given, as it was.
_HANDING_ON = {
    ("numpy._core.multiarray", "scalar"), ("numpy.core.multiarray", "scalar"),
    ("copyreg", "_reconstructor"), ("copy_reg", "_reconstructor"),
    ("copyreg", "__newobj__"), ("copy_reg", "__newobj__"),
    ("cloudpickle.cloudpickle", "_class_setstate"), ("ray.cloudpickle.cloudpickle", "_class_setstate"),
}  # fmt: skip
#: Functions of which the bytes of an array are the first argument.
_OF_BUFFERS = {("numpy._core.numeric", "_frombuffer"), ("numpy.core.numeric", "_frombuffer")}
#: Functions that make bytes of a text, each letter one of them.
_OF_LETTERS = {
    ("_codecs", "encode"),
    *((module, name) for module in ("builtins", "__builtin__") for name in ("bytes", "bytearray")),
}
_Step = Callable[["Machine"], None]


class Machine(_Base):  # type: ignore[misc]
    """Reads one pickle; each value that it makes knows where in the file it lies.

    Args:
        origin: where the file's first byte is.
    """

    def __init__(self, file: IO[bytes], origin: Origin, **named: Any) -> None:
        super().__init__(file, **named)
        self._file, self._origin = file, origin

    def spot(self, start: int, stop: int, code: Code) -> Spot:
        """Of bytes of the file that is read."""
        base = self._origin.position
        return Spot(self._origin.path, base + start, base + stop, code)

    def at(self) -> int:
        """The place in the file."""
        return self._file.tell()

    dispatch: ClassVar[dict[int, Any]] = dict(getattr(pickle, "_Unpickler").dispatch)  # noqa: B009


def placing_call(call: Call, module: str, name: str) -> Call:
    """A function of the table, for arguments that know where they lie.

    It is given what does not, as it expects it; of the bytes of an array it goes on to be known.
    """
    if (module, name) in _HANDING_ON:
        return call
    if (module, name) in _OF_BUFFERS:
        return Call(lambda data, *rest: call(data, *map(stripped, rest)), call.label)
    if (module, name) in _OF_LETTERS:
        return Call(lambda *arguments: _of_letters(call, arguments), call.label)
    return Call(lambda *arguments: call(*(stripped(each, NAMES) for each in arguments)), call.label)


def _of_letters(call: Call, arguments: tuple[Any, ...]) -> Any:  # noqa: ANN401
    made = call(*map(stripped, arguments))
    text = arguments[0] if arguments else None
    if not isinstance(text, PlacedStr) or text.spot.code != "text" or len(made) != len(text):
        return made
    spot = text.spot
    return place(made, Spot(spot.path, spot.start, spot.stop, "latin1", spot.fixed))


def _value(code: Code, width: int, step: _Step) -> _Step:
    def run(self: Machine) -> None:
        start = self.at() + width
        step(self)
        stop = self.at()
        if code in ("digits", "number", "escaped"):
            stop -= 1  # the end of the line
        self.stack[-1] = place(self.stack[-1], self.spot(start, stop, code))

    return run


def _bool(step: _Step) -> _Step:
    def run(self: Machine) -> None:
        step(self)
        self.stack[-1] = place(self.stack[-1], self.spot(self.at() - 1, self.at(), "bool"))

    return run


def _bytearray(step: _Step) -> _Step:
    def run(self: Machine) -> None:
        step(self)
        held, stop = bytes(self.stack[-1]), self.at()
        self.stack[-1] = place(held, self.spot(stop - len(held), stop, "bytes"))

    return run


def _without_frames(self: Machine) -> None:
    self.read(8)  # how much may be read at once


def _of_names(count: int, step: _Step) -> _Step:
    """What the last values on the stack are that a step takes: names, and no state."""

    def run(self: Machine) -> None:
        self.stack[-count:] = [stripped(each, NAMES) for each in self.stack[-count:]]
        step(self)

    return run


def _setitem(step: _Step) -> _Step:
    def run(self: Machine) -> None:
        self.stack[-2] = stripped(self.stack[-2], NAMES)
        step(self)

    return run


def _setitems(step: _Step) -> _Step:
    def run(self: Machine) -> None:
        self.stack[::2] = [stripped(key, NAMES) for key in self.stack[::2]]
        step(self)

    return run


def _of_a_set(step: _Step) -> _Step:
    def run(self: Machine) -> None:
        # A set has no order of its own: who alters a part of it alters which one each of them is.
        self.stack[:] = [stripped(each, "it is one of a set, which has no order") for each in self.stack]
        step(self)

    return run


def _build(step: _Step) -> _Step:
    def run(self: Machine) -> None:
        state = self.stack[-1]
        if isinstance(self.stack[-2], NumpyArray) and isinstance(state, tuple):
            self.stack[-1] = (*(stripped(each, NAMES) for each in state[:-1]), *state[-1:])
        step(self)

    return run


def _fill() -> None:
    steps: dict[int, Any] = Machine.dispatch
    for code, (written, width) in _VALUES.items():
        steps[code[0]] = _value(written, width, steps[code[0]])
    for code in (pickle.NEWTRUE, pickle.NEWFALSE):
        steps[code[0]] = _bool(steps[code[0]])
    steps[pickle.BYTEARRAY8[0]] = _bytearray(steps[pickle.BYTEARRAY8[0]])
    steps[pickle.FRAME[0]] = _without_frames
    for code, count in ((pickle.STACK_GLOBAL, 2), (pickle.BINPERSID, 1)):
        steps[code[0]] = _of_names(count, steps[code[0]])
    steps[pickle.SETITEM[0]] = _setitem(steps[pickle.SETITEM[0]])
    for code in (pickle.SETITEMS, pickle.DICT):
        steps[code[0]] = _setitems(steps[code[0]])
    for code in (pickle.ADDITEMS, pickle.FROZENSET):
        steps[code[0]] = _of_a_set(steps[code[0]])
    steps[pickle.BUILD[0]] = _build(steps[pickle.BUILD[0]])


_fill()
