"""What a trainer can be asked beside training: to load and save without a step, to compare its replicas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.errors import HarnessError, TrainerFailed, Unforeseen, UsageError
from harness.protocol.findings import Probed, Recorded
from harness.protocol.refusal import sentence

if TYPE_CHECKING:
    from harness.protocol.phases import Phases
    from harness.protocol.states import States


def probe(phases: Phases, states: States, source: Recorded) -> Probed:
    """Load ``source``'s checkpoint of k and save it again without a step."""
    if not phases.plan.trainer.can_probe:
        return Probed(problem=UsageError("the trainer cannot load and save without a step"))
    k, load = phases.plan.k, phases.folder.checkpoints("probe-from")
    try:
        phases.plan.trainer.rewind(source.phase, load, k)
        probed = phases.run("probe", load=load, start=k, stop=k)
        saved = phases.plan.trainer.saved(source.phase, k)
        return Probed(difference=states.diff(saved, probed.saved, resumed=True, probed=True))
    except (HarnessError, OSError) as error:  # the diagnosis then goes without it
        problem = error if isinstance(error, HarnessError) else Unforeseen(sentence(error))
        phases.observer.note(f"probe: {problem}")
        return Probed(problem=problem)


def replicas_alike(phases: Phases, source: Recorded) -> bool | None:
    """Whether all that hold the same weights have loaded the same; None where that cannot be told."""
    trainer, k = phases.plan.trainer, phases.plan.k
    alike = None if trainer.unasked else True
    if trainer.replicas < 2:
        return alike if trainer.replicas else None
    load = phases.folder.checkpoints("replicas-from")
    try:
        trainer.rewind(source.phase, load, k)
        phases.run("replicas", load=load, start=k, stop=k + 1)
    except (HarnessError, OSError) as error:
        raised = error.raised if isinstance(error, TrainerFailed) else None
        if raised is not None and any(trainer.unlike in one.message for one in raised.chain()):
            return False
        phases.observer.note(f"replicas: {error}")
        return None
    return alike
