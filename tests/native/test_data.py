"""The corpus, and a sampler that can be stopped anywhere."""

from __future__ import annotations

import pytest
import torch

from harness.errors import CaseError
from harness.trainers.native.arguments import Arguments, parse
from harness.trainers.native.data import Data, Sampler


def arguments(words: str = "", world: int = 1) -> Arguments:
    needed = (
        "--num-layers 1 --hidden-size 8 --num-attention-heads 1 --seq-length 8 "
        "--micro-batch-size 2 --train-iters 10 --global-batch-size 4 --eval-interval 5 "
        "--data-path synthetic-400 --vocab-size 31 "
    )
    return parse((needed + words).split(), world)


def test_every_epoch_takes_every_sample_once_in_a_new_order() -> None:
    sampler = Sampler(10, 1)
    first, second = sampler.take(10), sampler.take(10)
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


@pytest.mark.parametrize("stop", [1, 9, 10, 11, 20])
def test_restored_sampler_goes_on_with_the_next_sample(stop: int) -> None:
    run, resumed = Sampler(10, 1), Sampler(10, 1)
    run.take(stop)
    resumed.restore(run.state())
    assert run.take(15) == resumed.take(15)


def test_replicas_share_the_batch_that_one_process_reads_alone() -> None:
    device = torch.device("cpu")
    alone = Data(arguments(), 0, device)
    parts = [Data(arguments(world=2), rank, device) for rank in range(2)]
    whole, _ = alone.batch(alone.train, 4)
    shared = [part.batch(part.train, 4)[0][0] for part in parts]
    assert torch.equal(whole[0].tokens, shared[0].tokens)
    assert torch.equal(whole[1].tokens, shared[1].tokens)
    assert torch.equal(whole[0].tokens[:, 1:], whole[0].labels[:, :-1])


def test_corpus_shorter_than_a_sample_is_an_error() -> None:
    with pytest.raises(CaseError, match="synthetic-5"):
        Data(arguments("--data-path synthetic-5"), 0, torch.device("cpu"))
