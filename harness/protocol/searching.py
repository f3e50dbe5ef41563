"""The protocols ``every`` and ``chain``: which stops are tried, and what is said of the least that fail."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from harness.protocol import judge, shrinking
from harness.protocol.findings import Findings, Found, Recorded
from harness.protocol.shrinking import Chain
from harness.protocol.steps import Steps
from harness.protocol.stops import Stops, Tried, candidates, named, shown

if TYPE_CHECKING:
    from harness.checks import Check
    from harness.protocol.plan import Options
    from harness.verdict import Verdict

_MANY = 12  # stops in a sentence
_FEW = 3
_ORDINALS = ("first", "second", "third")


@dataclass(frozen=True, kw_only=True)
class Searched(Found):
    """What became of all the stops that were tried; its checks are one for each chain of them.

    Args:
        steps: those of the run that is shown, with its k; the plan of the least that fails names it.
        least: the stops that the search came down to; empty where everything held.
        evidence: what the others say of them.
        message: the same in one clause; empty where everything held and was tried.
        said: for those who read the verdict by a program.
    """

    steps: Steps
    least: Chain
    evidence: tuple[str, ...]
    message: str
    said: Mapping[str, Any]


def try_every(steps: Steps, continuous: Recorded) -> Iterator[Found]:
    """Resume at each checkpoint there is, or at each that was named, as far as the budget goes."""
    plan, stops = steps.plan, Stops(steps, continuous)
    kept = {k for k in plan.trainer.kept(continuous.phase) if 0 < k < plan.n}
    wanted = list(plan.options.stops) or sorted(kept | set(candidates(plan)))
    first = plan.k if plan.k in wanted else wanted[len(wanted) // 2]
    for _ in shrinking.every(wanted, first, stops.fails):
        pass
    failed = [one for one in stops.tried.values() if one.failed is not None]
    every: set[Chain] = {(k,) for k in wanted}
    stops.untried = every - stops.tried.keys()
    yield from _concluded(stops, min(failed, key=lambda one: one.stops, default=None))


def try_chain(steps: Steps, continuous: Recorded) -> Iterator[Found]:
    """Resume at one stop after the other; where that fails, look for less that does."""
    plan, stops = steps.plan, Stops(steps, continuous)
    there = candidates(plan)
    chain = plan.options.stops or shrinking.evenly(there)
    tried = stops.try_(chain)
    if tried.failed is not None:
        tried = stops.try_(_least(stops, tried, sorted({*there, *chain})))
    yield from _concluded(stops, tried if tried.failed is not None else None)


def _least(stops: Stops, tried: Tried, there: Sequence[int]) -> Chain:
    """What is behind the resume that fails says nothing; but its end may: what it saved there."""
    place = tried.failed or 0
    for chain in (tried.stops[: place + 1], tried.stops[: place + 2]):
        if stops.fails(chain):
            return shrinking.shrink(chain, there, stops.fails)
    return tried.stops


def _concluded(stops: Stops, least: Tried | None) -> Iterator[Found]:
    """One run in full, all others by a check each."""
    one = least or next(iter(stops.tried.values()))
    yield from shown(one)
    steps, phases = one.steps, stops.steps.phases
    untried = sorted(stops.untried - stops.tried.keys())
    if untried:
        said = f"not tried, for want of time (--budget {steps.plan.options.budget:g}): {_listed(untried)}"
        phases.observer.note(said)
        phases.notes = (*phases.notes, said)
    steps.phases.notes = phases.notes
    if least is not None:
        steps.plan = replace(steps.plan, options=_only(steps.plan.options, least.stops))
    tried = list(stops.tried.values())
    yield Searched(
        checks=tuple(map(_check, tried)),
        steps=steps,
        least=least.stops if least else (),
        evidence=_evidence(least, tried) if least else (),
        message=_message(least, untried),
        said={
            "tried": [{"stops": list(t.stops), "held": t.failed is None} for t in tried],
            "least": list(least.stops) if least else None,
            "not_tried": [list(chain) for chain in untried],
        },
    )
    if least is not None and least.error is not None:
        raise least.error


def _only(options: Options, stops: Chain) -> Options:
    """To run these stops again and nothing else."""
    if len(stops) == 1:
        return replace(options, protocol="full", resume_at=stops[0], stops=(), budget=None)
    return replace(options, protocol="chain", stops=stops, budget=0.0)


def _check(tried: Tried) -> Check:
    held = tried.failed is None
    said = f"resumed {_words(tried.stops)}: "
    said += f"{tried.checks} checks of the last run hold" if held else tried.why()
    return judge.present(f"stops: {named(tried.stops)}", "continuous", passed=held, message=said)


def _words(stops: Chain) -> str:
    """``at 4``, ``at 4 and again at 8``, ``at 4, again at 8 and again at 12``."""
    first, *more = stops
    if not more:
        return f"at {first}"
    if len(stops) > _FEW:
        return f"at each of {named(stops)}"
    between = "".join(f", again at {stop}" for stop in more[:-1])
    return f"at {first}{between} and again at {more[-1]}"


def _evidence(least: Tried, tried: Sequence[Tried]) -> tuple[str, ...]:
    """What makes these stops the least, as far as it was tried."""
    held = [one.stops for one in tried if one.failed is None]
    failed = [one.stops for one in tried if one.failed is not None]
    if len(least.stops) == 1:
        others = [(name, [one for one in chains if len(one) == 1]) for name, chains in
                  (("fails", failed), ("holds", held))]  # fmt: skip
        said = "; ".join(f"it {name} when resumed once at {_listed(some)}" for name, some in others if some)
        return (f"the smallest k that fails is {least.stops[0]}: {said}",)
    parts = sorted(chain for chain in held if set(chain) < set(least.stops))
    said = f"the shortest chain that fails is {named(least.stops)}: resumed {_words(least.stops)} it fails"
    if parts:
        said += f"; resumed at {' or at '.join(named(one) for one in parts[:_MANY])} alone it holds"
    place = least.failed or 0
    which = f"the {_ORDINALS[place] if place < len(_ORDINALS) else f'{place + 1}th'} resumed run"
    return (said, f"it is {which} that differs, from {least.stops[place]} to {least.steps.until}")


def _message(least: Tried | None, untried: Sequence[Chain]) -> str:
    parts = []
    if least is not None:
        what = "smallest k" if len(least.stops) == 1 else "shortest chain of stops"
        parts.append(f"the {what} that fails: {named(least.stops)}")
    if untried:
        parts.append(f"not tried: {_listed(untried)}")
    return "; ".join(parts)


def _listed(chains: Sequence[Chain]) -> str:
    ordered = sorted(chains, key=lambda chain: (len(chain), chain))
    apart = ", " if all(len(chain) == 1 for chain in ordered) else "; "
    more = f"{apart}and {len(ordered) - _MANY} more" if len(ordered) > _MANY else ""
    return apart.join(named(chain) for chain in ordered[:_MANY]) + more


# -- the verdict --------------------------------------------------------------------------------


def at_least(steps: Steps, findings: Findings) -> Steps:
    """The steps of the run that a verdict is about: of the least stops that fail, if any were tried."""
    searched = findings.last(Searched)
    return searched.steps if searched is not None else steps


def of_one_run(findings: Findings) -> Findings:
    """Without what became of the other stops: the diagnosis is of one resumed run."""
    return Findings([found for found in findings.found if not isinstance(found, Searched)])


def told(verdict: Verdict, findings: Findings) -> Verdict:
    """A verdict that names the least stops that fail, and what was not tried."""
    searched = findings.last(Searched)
    if searched is None:
        return verdict
    diagnosis = verdict.diagnosis
    if diagnosis is not None and searched.least:
        diagnosis = replace(diagnosis, evidence=(*searched.evidence, *diagnosis.evidence))
    message = "; ".join(filter(None, (verdict.message, searched.message)))
    provenance = {**verdict.provenance, "stops": searched.said}
    return replace(verdict, diagnosis=diagnosis, message=message, provenance=provenance)
