"""The table of faults: every class of resume bug that is known to have happened, as a plant.

The classes and their references come from public trackers. A class that needs what the native
trainer has not is built as the nearest true equivalent, and ``equivalent`` says how.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.faults.plants import (
    checkpoint,
    data_order,
    features,
    modules,
    optimizer,
    rng,
    schedule,
    weights,
)

CASES = Path(__file__).parent / "cases"
Plant = Callable[[], None]
Acts = Literal["load", "save", "save and load", "start"]

#: What a case has beyond the native trainer, in clean runs too.
FEATURES: dict[str, tuple[Plant, ...]] = {
    "averaged_weights": (features.averaged_weights,),
    "accumulation_over_iterations": (features.accumulation_over_iterations,),
}


@dataclass(frozen=True)
class Fault:
    """One class of fault and how it is planted.

    Args:
        number: the class's number.
        lost: what was lost, in words.
        component: the true one, a word of :mod:`harness.diagnosis`.
        tracker: where it happened.
        case: the case that it runs on, below :data:`CASES`.
        plant: patches the trainer in the process of a rank; in every phase.
        acts: when the patched code does something else than the clean one.
        equivalent: how it differs from what happened, where the trainer has no such thing.
        protocol: the protocol that reaches it.
        disk: what the resume finds, from (source, target, k); None: what the harness puts there.
    """

    number: int
    lost: str
    component: str
    tracker: str
    case: str
    plant: Plant
    acts: Acts = "load"
    equivalent: str = ""
    protocol: str = "full"
    disk: Callable[[Path, Path, int], None] | None = None

    @property
    def plants(self) -> tuple[Plant, ...]:
        """The case's features, then the fault."""
        return (*FEATURES.get(self.case, ()), self.plant)


FAULTS: tuple[Fault, ...] = (
    Fault(
        1,
        "expert-parallel ranks restore a peer's stream",
        "rng",
        "Megatron-LM#6858",
        "tp2_ep2_torch_dist",
        rng.peers_stream,
        acts="save and load",
    ),
    Fault(
        2,
        "iterator built after RNG restore draws once more",
        "rng",
        "Megatron-Bridge#5257",
        "dense_torch",
        rng.iterator_draws,
        acts="start",
    ),
    Fault(3, "reseeded after load", "rng", "ms-swift#9935", "dense_torch_dist_async", rng.reseeded),
    Fault(
        4,
        "RNG not loaded at an epoch boundary",
        "rng",
        "transformers#17032",
        "epoch_boundary",
        rng.not_at_an_epoch_boundary,
    ),
    Fault(
        5,
        "sampler ignores consumed samples, restarts at 0",
        "data-order",
        "Megatron-Bridge#3503",
        "dense_torch",
        data_order.starts_at_zero,
    ),
    Fault(
        6,
        "resume offset applied again in every epoch",
        "data-order",
        "Megatron-Bridge#4601",
        "dense_torch",
        data_order.offset_in_every_epoch,
    ),
    Fault(
        7,
        "validation position reset to 0",
        "data-order",
        "Megatron-Bridge#5987",
        "dense_torch_dist_async",
        data_order.validation_starts_again,
    ),
    Fault(
        8,
        "fast-forward ignores gradient accumulation",
        "data-order",
        "gpt-neox#308",
        "dense_torch_dist_async",
        data_order.accumulation_ignored,
    ),
    Fault(
        9,
        "fewer DP ranks silently drop loader state",
        "data-order",
        "torchtitan#816",
        "fewer_replicas",
        data_order.replicas_keep_their_own,
        acts="save and load",
        equivalent="the loader's position is saved as each replica's share of the consumed samples",
        protocol="reshard",
    ),
    Fault(
        10,
        "sampler epoch reset to 0 (same shuffle again)",
        "data-order",
        "accelerate#4071",
        "dense_torch",
        data_order.same_shuffle,
    ),
    Fault(
        11,
        "resume at an epoch boundary skips the next epoch, exit 0",
        "data-order",
        "verl#7401",
        "epoch_boundary",
        data_order.next_epoch_skipped,
        equivalent="iterations bound training, so the plant takes an epoch's worth of them away",
    ),
    Fault(
        12,
        "batch-size ramp restarts",
        "data-order",
        "MaxText#2656",
        "rampup",
        data_order.ramp_restarts,
    ),
    Fault(
        13,
        "batch progress saved before it was incremented",
        "data-order",
        "Lightning#18060",
        "dense_torch_dist_async",
        data_order.saved_before_counted,
        acts="save",
    ),
    Fault(
        14,
        "scheduler position doubled",
        "lr-schedule",
        "slime#1546",
        "dense_torch",
        schedule.position_doubled,
    ),
    Fault(
        15,
        "scheduler not saved",
        "lr-schedule",
        "torchtitan#275",
        "dense_torch_dist_async",
        schedule.not_saved,
        acts="save and load",
    ),
    Fault(16, "off by one step", "lr-schedule", "Lightning#1772", "dense_torch", schedule.off_by_one),
    Fault(
        17,
        "first step after resume uses the initial rate",
        "lr-schedule",
        "pytorch#129079",
        "dense_torch_dist_async",
        schedule.initial_rate_at_first,
    ),
    Fault(
        18,
        "per-group min/max rate overwritten (decoupled rate lost)",
        "lr-schedule",
        "Megatron-LM#4705",
        "decoupled_lr",
        schedule.group_limits_overwritten,
    ),
    Fault(
        19,
        "only the first group keeps its rate and betas",
        "optimizer",
        "pytorch#143828",
        "dense_torch",
        optimizer.first_group_only,
    ),
    Fault(
        20,
        "MoE's second optimizer gets the wrong state",
        "optimizer",
        "Megatron-LM#761",
        "tp2_ep2_torch_dist",
        optimizer.second_gets_the_firsts,
    ),
    Fault(
        21,
        "Adam's step count dropped",
        "optimizer",
        "Megatron-Bridge#3832",
        "dense_torch_dist_async",
        optimizer.step_count_dropped,
        acts="save and load",
    ),
    Fault(
        22,
        "scaler created after the load",
        "grad-scaler",
        "composer#1376",
        "fp16",
        schedule.scaler_made_later,
    ),
    Fault(
        23,
        "step count lost in a converted checkpoint",
        "optimizer",
        "DeepSpeed#5263",
        "dense_torch",
        optimizer.converted_without_step,
        equivalent="the conversion is made while the checkpoint is read",
    ),
    Fault(
        24,
        "partly accumulated gradients lost",
        "optimizer",
        "transformers#22143",
        "accumulation_over_iterations",
        optimizer.partial_gradients_lost,
        acts="save and load",
        equivalent="the trainer steps every iteration: the bank gives it a window of three, "
        "rightly saved, and the fault is planted on that",
    ),
    Fault(
        25,
        "parameter all-gather after load skipped; loss looks normal at first",
        "weights",
        "Megatron-LM#6920",
        "bf16_dp2",
        weights.gather_skipped,
        acts="save and load",
        equivalent="the trainer makes its parameters whole at each step: the plant saves other "
        "ranks' parts one step old, as an overlapped all-gather does",
    ),
    Fault(
        26,
        "low-precision weights rebuilt from bf16, not from the fp32 master",
        "weights",
        "Megatron-LM#6666",
        "fp16",
        weights.rebuilt_from_bf16,
        equivalent="float16 in the place of FP8 weights",
    ),
    Fault(
        27,
        "fp32 masters not saved",
        "weights",
        "miles#3143",
        "bf16_dp2",
        weights.masters_not_saved,
        acts="save and load",
    ),
    Fault(
        28,
        "quantisation scale not recomputed",
        "buffers",
        "TransformerEngine#123",
        "fp8",
        modules.scale_not_recomputed,
        equivalent="FP8 by delayed scaling, rounded and back in software",
    ),
    Fault(
        29,
        '"tied" head dropped though not really aliased',
        "embedding",
        "Automodel#2571",
        "untied",
        modules.head_dropped,
        acts="save and load",
    ),
    Fault(
        30,
        "tied embedding of the last stage not synchronised",
        "embedding",
        "Megatron-Bridge#5380",
        "pp2_tied",
        modules.copy_not_synchronised,
    ),
    Fault(
        31,
        "first-microbatch flag reset discards a gradient",
        "optimizer",
        "Megatron-LM#6965",
        "dense_torch",
        optimizer.first_microbatch_flag,
        acts="start",
        equivalent="the flag is the process's: the second micro-batch overwrites the first's "
        "gradient, in the place of a layer that is used twice",
    ),
    Fault(
        32,
        "router's expert bias not saved",
        "experts",
        "FlagScale#412",
        "tp2_ep2_torch_dist",
        modules.bias_not_saved,
        acts="save and load",
    ),
    Fault(
        33,
        "only one rank's experts saved",
        "experts",
        "KempnerForge#202",
        "tp2_ep2_torch",
        modules.one_ranks_experts,
        acts="save and load",
    ),
    Fault(
        34,
        "uneven vocabulary shards cut or padded wrong",
        "weights",
        "torchtitan#1136",
        "tp2_uneven_vocabulary",
        weights.even_vocabulary,
    ),
    Fault(
        35,
        "EMA counter reset",
        "buffers",
        "lightly-train#892",
        "averaged_weights",
        modules.counter_reset,
        equivalent="the trainer averages nothing: the bank adds averaged weights with their "
        "counter, rightly saved, and validates with them",
    ),
    Fault(
        36,
        "`latest` advanced before the async flush was done",
        "checkpoint",
        "KempnerForge#102",
        "dense_torch_dist_async",
        checkpoint.tracker_first,
        acts="save",
        equivalent="not killed: what a kill would leave is copied at that moment, and resumed from",
        disk=checkpoint.killed,
    ),
    Fault(
        37,
        "tracker never written; training restarts at 0, exit 0",
        "checkpoint",
        "verl#7952",
        "dense_torch",
        checkpoint.no_tracker,
        acts="save",
        disk=checkpoint.as_it_is,
    ),
    Fault(
        38,
        "save not atomic: a torn file is accepted",
        "checkpoint",
        "Lightning#688",
        "dense_torch_dist_async",
        checkpoint.torn_accepted,
        acts="save and load",
        equivalent="not killed: what a kill would leave is copied at that moment, and resumed from",
        disk=checkpoint.killed,
    ),
)
