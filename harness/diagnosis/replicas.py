"""Where all that is saved came back: a replica that is in no checkpoint, or the place in the data."""

from __future__ import annotations

from dataclasses import replace

from harness.diagnosis.candidates import KEPT
from harness.diagnosis.result import Diagnosis


def asks_for_replicas(found: Diagnosis | None) -> bool:
    """Whether it is left open what was lost, though all that is saved came back."""
    return found is not None and found.component == "unknown" and KEPT in found.evidence


def settled(found: Diagnosis, *, alike: bool) -> Diagnosis:
    """The diagnosis of a trainer that saves all but copies of what it saves.

    Args:
        found: as it is without knowing of the replicas.
        alike: whether the weights of all replicas are the same, loaded from the checkpoint.
    """
    if not alike:
        said = (
            "its data-parallel replicas do not have the same weights as they are loaded; one of them is saved"
        )
        return replace(found, component="weights", evidence=(*found.evidence, said), candidates=())
    place = next(one for one in found.candidates if one.component == "data-order")
    said = (
        "all replicas of the weights are the same: the loader did not go on from the place that it was given"
    )
    evidence = (*found.evidence, *place.speaks_for, said)
    return replace(found, component="data-order", evidence=evidence, candidates=())
