"""Stands in for Megatron-LM's ``pretrain_gpt.py`` where there is no GPU to run the real one.

Started by the real torchrun with the real arguments, in real processes that meet over gloo. It
writes TensorBoard events (last rank) and checkpoints (``mp_rank_TT[_PPP]/model_optim_rng.pt`` of
data-parallel rank 0, the tracker after all of them) where Megatron-LM does, and resumes from them.
What it trains is a toy: one matrix per model-parallel rank, noise from a saved RNG stream, and Adam
by hand (torch's own costs each rank an import of seconds). As there, what training draws comes of the
device's stream, and the host's is restored before the loaders' iterators draw a seed each from it.

``STAND_IN_FORGETS=optimizer,rng,scheduler,iteration`` plants a resume bug: what is named is not
restored. ``STAND_IN_FAILS_AT=7`` makes the last rank exit with status 3 at iteration 7.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

SIZE = 8
TRACKER = "latest_checkpointed_iteration.txt"


def parse() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("train-iters", "save-interval"):
        parser.add_argument(f"--{name}", type=int, required=True)
    for name in ("tensor-model-parallel-size", "pipeline-model-parallel-size"):
        parser.add_argument(f"--{name}", type=int, default=1)
    for name in ("save", "load", "tensorboard-dir"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--exit-interval", type=int, default=0)
    parser.add_argument("--ckpt-convert-format")
    parser.add_argument("--ckpt-convert-save", type=Path)
    parser.add_argument("--timing-log-level", type=int, default=0)
    parser.add_argument("--global-batch-size", type=int, default=8)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--min-lr", type=float, default=0.0)
    parser.add_argument("--lr-decay-iters", type=int, default=1000)
    return parser.parse_known_args()


class Training:
    """One rank's state, and what saves and restores it."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        rank, tp = dist.get_rank(), args.tensor_model_parallel_size
        pp = args.pipeline_model_parallel_size
        dp = dist.get_world_size() // (tp * pp)
        self.tp_rank, self.dp_rank, self.pp_rank = rank % tp, rank // tp % dp, rank // (tp * dp)
        name = f"mp_rank_{self.tp_rank:02d}" + (f"_{self.pp_rank:03d}" if pp > 1 else "")
        self.file = Path(name, "model_optim_rng.pt")
        torch.manual_seed(1234 + 100 * self.pp_rank + self.tp_rank)
        self.weight = (torch.randn(SIZE, SIZE) / SIZE).requires_grad_()
        self.device = torch.Generator().manual_seed(torch.initial_seed())
        self.moments = {"exp_avg": torch.zeros(SIZE, SIZE), "exp_avg_sq": torch.zeros(SIZE, SIZE)}
        self.iteration = 0
        self.scheduler_steps = 0

    def rate(self) -> float:
        part = min(self.scheduler_steps / self.args.lr_decay_iters, 1.0)
        low, high = float(self.args.min_lr), float(self.args.lr)
        return low + (high - low) * 0.5 * (1 + math.cos(math.pi * part))

    def step(self) -> tuple[float, float]:
        """One iteration; the loss over all ranks, and how many gradients are zero."""
        data = torch.Generator().manual_seed(self.iteration)
        x, y = torch.randn(16, SIZE, generator=data), torch.randn(16, SIZE, generator=data)
        made = x @ self.weight
        noisy = made * torch.rand(made.shape, generator=self.device).gt(0.1) / 0.9
        loss = (noisy - y).square().mean()
        (gradient,) = torch.autograd.grad(loss, self.weight)
        first = self.moments["exp_avg"].lerp_(gradient, 0.1)
        second = self.moments["exp_avg_sq"].lerp_(gradient.square(), 0.05)
        self.weight.data -= self.rate() * first / (second.sqrt() + 1e-8)
        self.iteration += 1
        self.scheduler_steps += 1
        told = torch.stack([loss.detach(), (gradient.abs() < 1e-2).sum()]).double()
        dist.all_reduce(told)
        return told[0].item() / dist.get_world_size(), told[1].item()

    def save(self) -> None:
        if self.dp_rank == 0:
            path = self.args.save / f"iter_{self.iteration:07d}" / self.file
            path.parent.mkdir(parents=True, exist_ok=True)
            adam = {"state": {0: self.moments}, "param_groups": [{"lr": self.rate()}]}
            state = {
                "args": self.args,
                "checkpoint_version": 3.0,
                "iteration": self.iteration,
                "model": {"decoder.weight": self.weight.detach()},
                "optimizer": {"optimizer": adam},
                "opt_param_scheduler": {"max_lr": self.args.lr, "num_steps": self.scheduler_steps},
                "rng_state": [
                    {"torch_rng_state": torch.get_rng_state(), "cuda_rng_state": self.device.get_state()}
                ],
            }
            torch.save(state, path)
        dist.barrier()
        if dist.get_rank() == 0:
            (self.args.save / TRACKER).write_text(str(self.iteration))
        dist.barrier()

    def load(self) -> None:
        tracker = self.args.load / TRACKER
        if not tracker.is_file():
            print(f"WARNING: could not find the metadata file {tracker}", flush=True)
            return
        folder = self.args.load / f"iter_{int(tracker.read_text()):07d}"
        # The stand-in wrote it itself, a moment ago, and it holds its arguments.
        state = torch.load(folder / self.file, weights_only=False)
        forgotten = os.environ.get("STAND_IN_FORGETS", "").split(",")
        self.weight.data.copy_(state["model"]["decoder.weight"])
        if "iteration" not in forgotten:
            self.iteration = state["iteration"]
        if "optimizer" not in forgotten:
            self.moments = state["optimizer"]["optimizer"]["state"][0]
        if "scheduler" not in forgotten:
            self.scheduler_steps = state["opt_param_scheduler"]["num_steps"]
        if "rng" not in forgotten:
            torch.set_rng_state(state["rng_state"][0]["torch_rng_state"])
            self.device.set_state(state["rng_state"][0]["cuda_rng_state"])

    def make_iterators(self) -> None:
        """For training, validation and testing: each draws a seed from the host's stream."""
        for _ in range(3):
            iter(torch.utils.data.DataLoader([0]))  # type: ignore[arg-type]


def write(
    writer: EventFileWriter, training: Training, loss: float, zeros: float, began: float, *, first: bool
) -> None:
    """The series that Megatron-LM writes: also times, and curves over samples instead of steps.

    The time of an iteration is not among them at the first one of a process.
    """
    step = training.iteration
    samples = step * training.args.global_batch_size
    took = time.monotonic() - began
    curves = {"lm loss": loss, "num-zeros": zeros, "learning-rate": training.rate()}
    found = {**curves, "mem-allocated-bytes": 1e6, "mem-max-allocated-bytes": 2e6}
    if not first:
        found["iteration-time"] = took
    if training.args.timing_log_level > 0:
        found["forward-backward-time"] = 0.9 * took
    writer.add_event(event(step, found))
    writer.add_event(event(samples, {f"{name} vs samples": value for name, value in curves.items()}))


def event(step: int, scalars: dict[str, float]) -> Event:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
    return Event(wall_time=time.time(), step=step, summary=Summary(value=values))


def main() -> None:
    args, others = parse()
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    last = dist.get_rank() == dist.get_world_size() - 1
    training = Training(args)
    training.load()
    if args.ckpt_convert_format is not None:
        args.save = args.ckpt_convert_save / args.ckpt_convert_format
        training.save()
        sys.exit()
    training.make_iterators()
    writer = None
    if last:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        writer = EventFileWriter(str(args.tensorboard_dir))
        told = {"argv": sys.argv, "environment": dict(os.environ), "cwd": os.getcwd(), "pid": os.getpid()}
        (args.tensorboard_dir / "started.json").write_text(json.dumps(told))
    print(f"rank {dist.get_rank()}: {len(others)} other arguments", flush=True)
    started = training.iteration
    while training.iteration < args.train_iters:
        began = time.monotonic()
        if last and os.environ.get("STAND_IN_FAILS_AT") == str(training.iteration + 1):
            sys.exit(3)
        loss, zeros = training.step()
        if writer is not None:
            write(writer, training, loss, zeros, began, first=training.iteration == started + 1)
        leaving = args.exit_interval and training.iteration % args.exit_interval == 0
        ends = leaving or training.iteration == args.train_iters
        if ends or training.iteration % args.save_interval == 0:
            training.save()
        if leaving:
            break
    else:  # whoever exits before that does not validate
        if writer is not None:
            validation = {"lm loss validation": training.weight.square().mean().item()}
            writer.add_event(event(training.iteration, validation))
    if writer is not None:
        writer.close()
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
