"""What a script printed: lines of the log of its command, found by the regular expressions of its case.

The log holds stdout and stderr as they came: with what ``torchrun`` puts before a line (``[rank0]:``), with
colours, and with the lines that a progress bar ends with a carriage return.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from harness.errors import MetricsError
from harness.expressions import Expression
from harness.metrics.rows import number_of
from harness.metrics.series import Series

LOG = Path("logs", "trainer.log")
#: In a phase's own folder: the expressions that its log is read with, so that nobody needs the case for it.
DECLARED = "stdout_metrics.json"
_KEY = "HARNESS.metrics.stdout"
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")
_SHOWN = 160  # characters of a line


def declare(folder: Path, expressions: Sequence[str]) -> None:
    """Say with which expressions the log of the phase in ``folder`` is read."""
    text = json.dumps(list(expressions), indent=1, ensure_ascii=False)
    (folder / DECLARED).write_text(text + "\n", encoding="utf-8")


def is_declared(folder: Path) -> bool:
    """Whether the log of the phase in ``folder`` is read at all."""
    return (folder / DECLARED).is_file()


def files(folder: Path) -> list[Path]:
    """The log of a phase, where it is declared that it holds metrics."""
    path = folder / LOG
    return [path] if is_declared(folder) and path.is_file() else []


def read(paths: Sequence[Path], *, killed: bool, notes: list[str] | None = None) -> dict[str, Series]:
    """Read the lines of each log; a line that no expression matches says nothing.

    Several ranks may print a line: with the same values it counts once.

    Args:
        paths: the logs.
        killed: leave out a last line that does not end.
        notes: no matter here: whoever prints says more than numbers.

    Raises:
        MetricsError: a step or a value that is no number or a part of one, or two values of one step; with
            the line.
    """
    del notes
    values: dict[str, dict[int, float]] = {}
    seen: dict[tuple[str, int], str] = {}
    for path in paths:
        expressions = _expressions(path.parent.parent)
        for number, line in _lines(path, killed=killed):
            for expression in expressions:
                if groups := expression.found(line):
                    if cut := expression.cut(line):
                        raise _part_of(*cut, groups[cut[0]], f"{path}:{number}")
                    _take(values, seen, f"{path}:{number}", groups, expression)
    return {name: Series.of(name, of, list(of.values())) for name, of in values.items()}


def _part_of(name: str, whole: str, part: str | None, where: str) -> MetricsError:
    return MetricsError(
        f"{where}: {name!r} is {_short(part)}, a part of the number {whole}",
        f"let the group (?P<{name}>…) of {_KEY} match all of it, e.g. [-+.\\deE]+, and what stands before "
        "it nothing of it, e.g. .*? in place of .*",
    )


def _take(
    values: dict[str, dict[int, float]],
    seen: dict[tuple[str, int], str],
    where: str,
    groups: dict[str, str | None],
    expression: Expression,
) -> None:
    """One line's values to those that there are."""
    step = number_of(groups[expression.step] or "")
    if not isinstance(step, int) or not -(1 << 63) <= step < 1 << 63:
        found = groups[expression.step]
        raise MetricsError(
            f"{where}: the step is {_short(found)}, expected a whole number",
            f"the group (?P<{expression.step}>…) of {_KEY} matches a number and nothing else",
        )
    for name in expression.metrics:
        text = groups[name]
        if text is None:  # the other branch of an alternative
            continue
        value = number_of(text)
        if value is None:
            raise MetricsError(
                f"{where}: {name!r} is {_short(text)}, expected a number",
                f"the group (?P<{name}>…) of {_KEY} matches a number and nothing else",
            )
        known = values.setdefault(name, {})
        first = seen.setdefault((name, step), where)
        if not _same(known.setdefault(step, value), value):
            raise MetricsError(
                f"{where}: {name!r} of step {step} is {value!r}, expected {known[step]!r} "
                f"as in line {first.rpartition(':')[2]}",
                f"let one rank print it, once a step, or let {_KEY} match those lines only",
            )


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def unmatched(folder: Path) -> list[str]:
    """The declared expressions that match no line of the log at all."""
    left = {expression.text: expression for expression in _expressions(folder)}
    for path in files(folder):
        for _, line in _lines(path, killed=False):
            left = {text: one for text, one in left.items() if one.found(line) is None}
            if not left:
                break
    return list(left)


def advice(folder: Path, instead: str = "") -> str:
    """What a script that logged nothing would have to do; with a line of its log, where one has numbers.

    Args:
        instead: what it may do as well, as the reader of metrics says.
    """
    path = folder / LOG
    line, expression = None, None
    if path.is_file():
        with suppress(MetricsError):
            line, expression = _suggestion((text for _, text in _lines(path, killed=False)), epochs=True)
    said = ""
    if line is not None and expression is not None:
        quoted = expression.replace("'", "''")
        said = f"its log has lines like {_short(line)}; to read those, say in the case: "
        said += f"HARNESS: {{metrics: {{stdout: '{quoted}'}}}}; or "
    if instead and "${OUTPUT_PATH}" not in instead:
        said = f"{instead}; or {said}"
    return (
        f"{said}let one process write a line a step to ${{OUTPUT_PATH}}/metrics.jsonl: with "
        "ENV_VARS: {OUTPUT_PATH: '${OUTPUT_PATH}'} in the case, "
        'with open(os.environ["OUTPUT_PATH"] + "/metrics.jsonl", "a") as log: '
        'print(json.dumps({"step": step, "loss": loss.item()}), file=log)'
    )


# -- lines -----------------------------------------------------------------------------------------


def _expressions(folder: Path) -> list[Expression]:
    path = folder / DECLARED
    try:
        texts = json.loads(path.read_bytes())
        return [Expression.of(text) for text in texts]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise MetricsError(f"{path}: cannot be read: {said}", "run the phase again") from error


def _lines(path: Path, *, killed: bool) -> Iterator[tuple[int, str]]:
    """Number (as an editor counts) and text of each line; what a carriage return ends is one too."""
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                pieces = raw.rstrip(b"\r\n").split(b"\r")
                if killed and not raw.endswith((b"\n", b"\r")):
                    pieces.pop()
                for piece in pieces:
                    if piece:
                        yield number, plain(piece.decode(errors="replace"))
    except OSError as error:
        raise MetricsError(f"{path}: cannot be read: {error.strerror or error}") from error


def plain(line: str) -> str:
    """A line without the escape sequences of a terminal."""
    return _ESCAPES.sub("", line) if "\x1b" in line else line


def _short(text: str | None) -> str:
    shown = repr(text if text is None else " ".join(text.split()))
    return shown if len(shown) <= _SHOWN else shown[: _SHOWN - 3] + "..."


# -- guessing --------------------------------------------------------------------------------------

_NUMBER = r"[-+]?\d+\.?\d*(?:[eE][-+]?\d+)?|[-+]?(?i:nan|inf)"
_WORD = r"[-+.\w]+"  # as good where it holds the same, and easier to read
_AT = r"([\"']?\s*[:=#\[(]?\s*)\d+(?![\d.]*\d)"
_STEP = re.compile(rf"(?<![A-Za-z0-9_])((?:global[ _-]?)?(?:step|iteration|iter|it)s?){_AT}", re.IGNORECASE)
_EPOCH = re.compile(rf"(?<![A-Za-z0-9_])(epoch){_AT}", re.IGNORECASE)
_LOSS = re.compile(
    rf"(?<![A-Za-z0-9_])((?:[A-Za-z]+[ _/-]){{0,2}}[A-Za-z]*loss)([\"']?\s*[:=]?\s*)({_NUMBER})(?![\w%])",
    re.IGNORECASE,
)
_LONGEST, _MOST = 1000, 20_000  # characters of a line, and lines, that are looked at
_LOSSES = 8  # of a line


def suggest(lines: Iterable[str], *, epochs: bool = False) -> str | None:
    """An expression for ``HARNESS.metrics.stdout`` that fits what a script prints.

    Looked for are lines with a word for the step (``step``, ``iter``, ``iteration``, ``global_step``) before
    a whole number, and words for losses (``loss``, ``train loss``, ``val_loss``) before a number, whichever
    comes first. Of several shapes the one with the most lines is taken, and of those the first. A shape with
    two losses for one step (which begins again every epoch) is passed over.

    Args:
        lines: of a log, in any number; colours and what ``torchrun`` puts before them do no harm.
        epochs: where no line says a step, an epoch's number is one.

    Returns:
        A regular expression (RE2's and Python's) with the group ``step`` and one for each loss, named as the
        script does: in lower case, with ``_`` for what a group's name cannot have. None: no line has both.
    """
    return _suggestion(lines, epochs=epochs)[1]


def _suggestion(lines: Iterable[str], *, epochs: bool) -> tuple[str | None, str | None]:
    """The first line of the shape, and its expression."""
    lines = [plain(line).strip()[:_LONGEST] for line in itertools.islice(lines, _MOST)]
    found = _most(lines, _STEP)
    return _most(lines, _EPOCH) if epochs and found == (None, None) else found


def _most(lines: Sequence[str], counts: re.Pattern[str]) -> tuple[str | None, str | None]:
    shapes: dict[str, tuple[str, Expression, dict[str, dict[str, str | None]]]] = {}
    torn: set[str] = set()
    for text in lines:
        if (shape := _shape(text, counts)) is None:
            continue
        _, expression, steps = shapes.setdefault(shape, (text, Expression.of(shape), {}))
        if (groups := expression.found(text)) and steps.setdefault(str(groups["step"]), groups) != groups:
            torn.add(shape)
    fit = [shape for shape in shapes if shape not in torn]
    best = max(fit, key=lambda shape: len(shapes[shape][2]), default=None)
    return (None, None) if best is None else (shapes[best][0], best)


def _shape(line: str, counts: re.Pattern[str]) -> str | None:
    """An expression for lines like this one."""
    step = counts.search(line)
    if step is None:
        return None
    parts = {step.start(): rf"\b{_literal(step[1] + step[2])}(?P<step>\d+)"}
    names: set[str] = set()
    for found in itertools.islice(_LOSS.finditer(line), _LOSSES):
        name = re.sub(r"\W+", "_", found[1].lower())
        if name not in names and not step.start() <= found.start() < step.end():
            names.add(name)
            word = re.compile(_WORD).match(line, found.start(3))
            number = _WORD if word and word[0] == found[3] else _NUMBER
            parts[found.start()] = rf"\b{_literal(found[1] + found[2])}(?P<{name}>{number})"
    return ".*?".join(part for _, part in sorted(parts.items())) if names else None


def _literal(text: str) -> str:
    """What matches this text, with other spaces: a column may be aligned."""
    found = r"\s+".join(map(_escaped, re.split(r"\s+", text)))
    return re.sub(r"(?<=[:=])\\s\+", lambda _: r"\s*", found)


def _escaped(text: str) -> str:
    return re.sub(r"[][(){}.*+?|^$\\]", r"\\\g<0>", text)
