"""Two checkpoints, name by name and bit by bit → what differs, by component."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.checkpoints import components, stamped
from harness.checkpoints.alike import equal_files
from harness.checkpoints.checkpoint import Checkpoint, iteration_of, open_checkpoint
from harness.checkpoints.conditions import CONDITIONS
from harness.checkpoints.coverage import Coverage
from harness.checkpoints.entries import BLOCK_BYTES, Entry, Plain, Reader, alone, itemsize, original
from harness.checkpoints.gaps import Gap, find_gaps
from harness.checkpoints.ledger import Ledger
from harness.checkpoints.places import Places, of_checkpoints
from harness.checkpoints.rules import Rule, differing_words
from harness.checkpoints.tallying import Tallying
from harness.errors import CheckpointError

TEXT_SHOWN = 80
#: Of two kinds of value, what the pair counts as.
_PLAINEST: tuple[Plain, ...] = ("", "list", "float", "value")


@dataclass(frozen=True)
class TensorDiff:
    """One name that differs.

    Args:
        name, component: what, and which part of the training state it belongs to.
        reason: ``values``, ``dtype``, ``shape``, ``only in a``, ``only in b``, ``incomplete in a``,
            ``incomplete in b``, ``tied copies differ in a``, ``tied copies differ in b``.
        elements: elements of the tensor (of the larger one when shapes differ).
        differing: elements whose bits differ; all of them unless the reason is about values.
        max_abs, max_rel: largest |b − a| and |b − a| / |a| over finite elements; None without any.
        index: index of the first differing element.
        a, b: its value in each checkpoint; for text, what surrounds it.
        rows: first and last differing index of dimension 0.
        detail: what else there is to say.
        key, file: its name inside its file, and that file; empty for what is spread over several.
        plain: what kind of plain value it is on both sides; empty where it is none on one of them.
        words: of texts, the places of the words that differ; empty where it is all of them, or their number.
    """

    name: str
    component: str
    reason: str
    elements: int
    differing: int
    max_abs: float | None = None
    max_rel: float | None = None
    index: tuple[int, ...] | None = None
    a: float | int | str | None = None
    b: float | int | str | None = None
    rows: tuple[int, int] | None = None
    detail: str = ""
    key: str = ""
    file: str = ""
    plain: Plain = ""
    words: tuple[int, ...] = ()

    def sentence(self) -> str:
        """What differs, for a person to check."""
        detail = f" ({self.detail})" if self.detail else ""
        if self.reason != "values":
            return f"{self.name}: {self.reason}{detail}"
        count = f"{self.differing} of {self.elements} elements differ" if self.elements > 1 else "differs"
        largest = f", at most by {self.max_abs:.3g}" if self.max_abs is not None else ""
        at = f" at {list(self.index)}" if self.index else ""
        first = f"; first{at}: {self.a} against {self.b}" if self.a is not None else ""
        return f"{self.name}: {count}{largest}{first}{detail}"


@dataclass(frozen=True)
class StateDiff:
    """What differs between checkpoint ``a`` and checkpoint ``b``.

    Args:
        entries: every name that differs, by name; empty when the states are equal.
        compared: names that both sides hold and that were compared.
        names: how many of them there are of each component.
        not_comparable: names (per-rank state) that have no counterpart in the other layout.
        coverage: what was compared, and what a rule left out.
        gaps_a, gaps_b: what a whole training state should hold and this one does not.
        layouts_differ: the two were saved by different parallel layouts.
        bytes_read: bytes read from both.
        as_allowed: how many names of each component differ, and in just the way that a rule allows.
        unread: files that could not be read, or not all of them, and why; all that they hold is uncompared.
    """

    a: str
    b: str
    entries: tuple[TensorDiff, ...]
    compared: int
    not_comparable: tuple[str, ...] = ()
    coverage: Coverage = field(default_factory=Coverage)
    gaps_a: tuple[Gap, ...] = ()
    gaps_b: tuple[Gap, ...] = ()
    layouts_differ: bool = False
    bytes_read: int = 0
    names: Mapping[str, int] = field(default_factory=dict)
    as_allowed: Mapping[str, int] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)

    @property
    def equal(self) -> bool:
        """Nothing differs, something was compared, and nothing was overlooked."""
        return not self.entries and self.compared > 0 and not self.coverage.uncompared

    def by_component(self) -> dict[str, tuple[TensorDiff, ...]]:
        """Differing names grouped by component."""
        found: dict[str, list[TensorDiff]] = {}
        for entry in self.entries:
            found.setdefault(entry.component, []).append(entry)
        return {component: tuple(group) for component, group in sorted(found.items())}

    def as_dict(self) -> dict[str, Any]:
        """For JSON; every number in it is finite."""
        return {"equal": self.equal, **asdict(self)}


def diff(
    a: Path,
    b: Path,
    *,
    layouts_differ: bool | None = None,
    rules: Iterable[Rule] = (),
    places: Places | None = None,
) -> StateDiff:
    """Compare two checkpoints of any formats and layouts, bit for bit, in bounded memory.

    Args:
        a, b: the uninterrupted run's and the resumed one's, where that matters to a rule.
        layouts_differ: whether they come from different parallel layouts; None finds out.
        rules: what is no state, and left out.
        places: folders that stand in names and texts by their placeholders; None: the checkpoints' own.

    Raises:
        CheckpointError: nothing of one of them can be read. A file that cannot be, beside others that can, is
            uncompared.
    """
    one, two = _opened(Path(a), Path(b), places)
    with Tallying() as tallying:
        return _Comparison(one, two, tallying, layouts_differ, tuple(rules)).run()


def _opened(a: Path, b: Path, places: Places | None) -> tuple[Checkpoint, Checkpoint]:
    """Both with the same names: a file's own is left out where it is alone on either side."""
    places = places or of_checkpoints(a, b)
    equal = equal_files(iteration_of(a), iteration_of(b))
    sides = list(zip((a, b), equal, strict=True))
    one, two = (open_checkpoint(path, places, as_bytes=held) for path, held in sides)
    if (len(one.files) == 1) != (len(two.files) == 1):
        one, two = (open_checkpoint(path, places, single=False, as_bytes=held) for path, held in sides)
    return stamped.paired(one, two)


@dataclass
class _Comparison:
    a: Checkpoint
    b: Checkpoint
    tallying: Tallying
    given: bool | None
    rules: tuple[Rule, ...] = ()
    found: list[TensorDiff] = field(default_factory=list)
    compared: int = 0
    names: dict[str, int] = field(default_factory=dict)
    as_allowed: dict[str, int] = field(default_factory=dict)

    def run(self) -> StateDiff:
        apart = self._layouts_differ() if self.given is None else self.given
        ledger = Ledger((self.a, self.b), self.rules, apart=apart)
        left, right = ledger.judged(self.a), ledger.judged(self.b)
        both = sorted(left.keys() & right.keys(), key=lambda name: left[name].order)
        for name in both:
            try:
                self._pair(left[name], right[name], ledger)
            except CheckpointError as error:
                ledger.missed(left[name], self.a.files_of(left[name]), str(error))
        for name in sorted(left.keys() - right.keys()):
            self._lone(left[name], right, "only in a")
        for name in sorted(right.keys() - left.keys()):
            self._lone(right[name], left, "only in b")
        for name in both:
            if name not in ledger.unread:
                self._tied(name, left, right)
        return StateDiff(
            str(self.a.path),
            str(self.b.path),
            tuple(sorted(map(self._placed, self.found), key=lambda d: d.name)),
            self.compared,
            tuple(sorted(ledger.per_rank)),
            ledger.coverage(),
            find_gaps(self.a),
            find_gaps(self.b),
            apart,
            self.tallying.bytes_read,
            self.names,
            self.as_allowed,
            ledger.reasons,
        )

    def _placed(self, difference: TensorDiff) -> TensorDiff:
        """With where it lies, and what kind of value it is on both sides."""
        held = [side.entries[difference.name] for side in (self.a, self.b) if difference.name in side.entries]
        kinds = {entry.plain for entry in held}
        return replace(
            difference,
            key=held[0].key,
            file=held[0].file,
            plain=next(kind for kind in _PLAINEST if kind in kinds),
        )

    def _layouts_differ(self) -> bool:
        if self.a.layout and self.b.layout:
            return dict(self.a.layout) != dict(self.b.layout)
        if any(e.unread_file for c in (self.a, self.b) for e in c.entries.values()):
            return False  # a rank whose file is torn is missing there, and no other layout
        ranks = [{_rank(name) for name, e in c.entries.items() if e.per_rank} for c in (self.a, self.b)]
        return bool(ranks[0] and ranks[1]) and ranks[0] != ranks[1]

    # -- one name ----------------------------------------------------------------------------

    def _pair(self, a: Entry, b: Entry, ledger: Ledger) -> None:
        difference = self._compare(a, b)
        allowed = False
        if difference is not None:
            rule = ledger.conditional(self.a, a) if difference.reason == "values" else None
            unlike = _unlike(rule, a, b) if rule is not None else ""
            allowed = rule is not None and not unlike
            if rule is not None and allowed:
                ledger.met(rule, a.name)
            else:
                difference = replace(difference, detail=unlike or difference.detail)
        counts = self.as_allowed if allowed else self.names
        counts[a.component] = counts.get(a.component, 0) + 1
        self.compared += not allowed
        if difference is not None and not allowed:
            self.found.append(difference)
            return
        boxes = [[(p.offsets, p.sizes) for p in e.copies] for e in (a, b)]
        if boxes[0] == boxes[1] and not allowed:
            pairs = [(one, two) for one, two in zip(a.copies, b.copies, strict=True)]
        else:
            # Other numbers of replicas: each must equal what it is a replica of.
            pairs = [(original(e, copy), copy) for e in (a, b) for copy in e.copies]
        for one, two in pairs:
            difference = self._compare(alone(a, one), alone(b, two))
            if difference is not None:
                where = Path(two.order[0]).parent.name
                self.found.append(replace(difference, detail=f"the copy in {where}"))
                return

    def _compare(self, a: Entry, b: Entry) -> TensorDiff | None:
        elements = max(a.numel, b.numel)
        lacking = [(side, e.incomplete()) for side, e in (("a", a), ("b", b))]
        for side, problem in lacking:
            if problem:
                reason = f"incomplete in {side}"
                return TensorDiff(a.name, a.component, reason, elements, elements, detail=problem)
        for reason, one, two in (("dtype", a.dtype, b.dtype), ("shape", a.shape, b.shape)):
            if one != two:
                if a.dtype in ("text", "bytes", "big int") and reason == "shape":
                    break
                detail = f"{_plain(one)} against {_plain(two)}"
                return TensorDiff(a.name, a.component, reason, elements, elements, detail=detail)
        if a.shape != b.shape or a.dtype == "text":
            return self._text(a, b)
        return self._values(a, b)

    def _values(self, a: Entry, b: Entry) -> TensorDiff | None:
        tally = self.tallying.tally(a, b)
        if not tally.differing or tally.first is None or tally.last is None:
            return None
        index = _index(tally.first, a.shape)
        rows = (index[0], _index(tally.last, a.shape)[0]) if index else None
        return TensorDiff(
            a.name,
            a.component,
            "values",
            a.numel,
            tally.differing,
            tally.max_abs,
            tally.max_rel,
            index or None,
            tally.a,
            tally.b,
            rows,
            words=_differing_elements(a, b),
        )

    @staticmethod
    def _text(a: Entry, b: Entry) -> TensorDiff | None:
        one, two = a.data or b"", b.data or b""
        if one == two:
            return None
        first = next(
            (i for i, (x, y) in enumerate(zip(one, two, strict=False)) if x != y),
            min(len(one), len(two)),
        )
        start = max(0, first - TEXT_SHOWN // 4)
        shown = [t[start : start + TEXT_SHOWN].decode("utf-8", "replace") for t in (one, two)]
        return TensorDiff(
            a.name,
            a.component,
            "values",
            max(len(one), len(two)),
            abs(len(one) - len(two)) + sum(x != y for x, y in zip(one, two, strict=False)),
            index=(first,),
            a=shown[0],
            b=shown[1],
            words=differing_words(*(text.decode("utf-8", "replace") for text in (one, two))),
        )

    # -- names that one side lacks, and tied copies --------------------------------------------

    def _lone(self, entry: Entry, others: Mapping[str, Entry], reason: str) -> None:
        source = components.tied_source(entry.name)
        mine = (self.a if reason == "only in a" else self.b).entries
        if source is not None and source in others and source in mine:
            # A stage that holds both ends needs no copy: the copy must equal the embedding there.
            if self._compare(mine[source], entry) is None:
                self.compared += 1
                return
            if entry.name in self.a.aliases or entry.name in self.b.aliases:
                side = reason[-1]
                self.found.append(self._untied(entry, mine[source], side))
                return
        self.found.append(
            TensorDiff(
                entry.name,
                entry.component,
                reason,
                entry.numel,
                entry.numel,
                detail=f"{entry.dtype} {list(entry.shape)}" if entry.shape else entry.dtype,
            ),
        )

    def _untied(self, entry: Entry, source: Entry, side: str) -> TensorDiff:
        difference = self._compare(source, entry)
        reason = f"tied copies differ in {side}"
        detail = f"it must equal {source.name}"
        if difference is None:
            return TensorDiff(entry.name, "embedding", reason, entry.numel, 0, detail=detail)
        return replace(difference, name=entry.name, component="embedding", reason=reason, detail=detail)

    def _tied(self, name: str, left: Mapping[str, Entry], right: Mapping[str, Entry]) -> None:
        source = components.tied_source(name)
        if source is None or not name.startswith("model.") or source not in left.keys() & right.keys():
            return
        changed = {d.name for d in self.found} & {name, source}
        apart = {"a": self._compare(left[source], left[name]) is not None}
        apart["b"] = self._compare(right[source], right[name]) is not None if changed else apart["a"]
        # Apart on both sides and nowhere called a copy: a head with weights of its own.
        known = name in self.a.aliases or name in self.b.aliases or not all(apart.values())
        for side, held in (("a", left), ("b", right)):
            if apart[side] and known:
                self.found.append(self._untied(held[name], held[source], side))


def _unlike(rule: Rule, a: Entry, b: Entry) -> str:
    """What of two values is not as a rule's condition has it; empty where all is."""
    if max(a.nbytes, b.nbytes) > BLOCK_BYTES:
        return f"more than {BLOCK_BYTES >> 20} MiB, which no rule allows to differ"
    with Reader() as reader:
        one, two = (b"".join(bits.tobytes() for _, bits in reader.stream(entry)) for entry in (a, b))
    return CONDITIONS[rule.when](one, two)


def _differing_elements(a: Entry, b: Entry) -> tuple[int, ...]:
    """The places in two plain lists that differ; none where it is all of them, or they are no lists."""
    if a.plain != "list" or b.plain != "list" or a.data is None or b.data is None:
        return ()
    size = itemsize(a.dtype)
    apart = [
        i for i in range(a.numel) if a.data[i * size : (i + 1) * size] != b.data[i * size : (i + 1) * size]
    ]
    return tuple(apart) if len(apart) < a.numel else ()


def _rank(name: str) -> str:
    own = components.rank_of_object(name)
    return own or (name.partition(":")[0] if ":" in name else name.rpartition(".")[2])


def _plain(value: object) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)


def _index(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    found = []
    for size in reversed(shape):
        flat, here = divmod(flat, size)
        found.append(here)
    return tuple(reversed(found))
