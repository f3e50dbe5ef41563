"""Schedules: complete, in dependency order, and free of deadlock with sends that never wait."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.trainers.native.arguments import parse
from harness.trainers.native.parallel import Layout
from harness.trainers.native.pipeline import Action, schedule


def layouts(pp: int, vp: int) -> list[Layout]:
    words = (
        f"--num-layers {pp * vp} --hidden-size 8 --num-attention-heads 1 --seq-length 8 "
        f"--micro-batch-size 1 --train-iters 1 --global-batch-size {4 * pp} "
        f"--pipeline-model-parallel-size {pp}"
    )
    layout = Layout.of(parse(words.split(), pp), 0)
    return [replace(layout, rank=rank, vp=vp) for rank in range(pp)]


@pytest.mark.parametrize(("pp", "vp"), [(1, 1), (2, 1), (4, 1), (2, 2), (4, 2), (4, 3)])
@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_every_rank_can_run_its_schedule_to_the_end(pp: int, vp: int, blocks: int) -> None:
    count = blocks * pp
    ranks = layouts(pp, vp)
    plans = [list(schedule(layout, count)) for layout in ranks]
    for plan in plans:
        assert len(plan) == len(set(plan)) == 2 * count * vp
    # Play all ranks against each other; lanes are first-in, first-out, as the wire is.
    forward: dict[int, list[tuple[int, int]]] = {r: [] for r in range(pp)}
    backward: dict[int, list[tuple[int, int]]] = {r: [] for r in range(pp)}
    done = [0] * pp
    seen: set[tuple[int, Action]] = set()
    progress = True
    while progress:
        progress = False
        for rank, plan in enumerate(plans):
            while done[rank] < len(plan):
                action = plan[done[rank]]
                stage = action.chunk * pp + rank
                last = pp * vp - 1
                wire = forward if action.forward else backward
                starts = stage == 0 if action.forward else stage == last
                if not starts:
                    if not wire[rank]:
                        break
                    # What arrives next on the wire is what this action wants next.
                    assert wire[rank].pop(0) == (stage, action.microbatch)
                if not action.forward:
                    assert (rank, replace(action, forward=True)) in seen
                step = 1 if action.forward else -1
                ends = stage == last if action.forward else stage == 0
                if not ends:
                    wire[(rank + step) % pp].append((stage + step, action.microbatch))
                seen.add((rank, action))
                done[rank] += 1
                progress = True
    assert done == [len(plan) for plan in plans]


def test_interleaving_keeps_fewer_stages_idle_than_plain_1f1b() -> None:
    # The last rank of plain 1F1B warms up with nothing; interleaved it has (V-1) * PP forwards.
    last = layouts(4, 2)[3]
    actions = list(schedule(last, 8))
    assert [a.forward for a in actions[:6]] == [True] * 5 + [False]
