"""The training loop: steps, logs, validation, saves."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.checkpoints.components import TIED_SOURCE
from harness.trainers.native import moe
from harness.trainers.native.arguments import Arguments
from harness.trainers.native.checkpoint import Checkpointer
from harness.trainers.native.comm.world import World
from harness.trainers.native.data import Data, combine_digests
from harness.trainers.native.layers import Factory
from harness.trainers.native.optimizer import build_optimizers
from harness.trainers.native.parallel import Layout, Parallel, make_parallel
from harness.trainers.native.pipeline import Batch, Pipeline
from harness.trainers.native.rng import Streams
from harness.trainers.native.schedules import LossScaler, ParamScheduler, batch_size
from harness.trainers.native.state import TrainingState
from harness.trainers.native.telemetry import ScalarWriter, Stopwatch, memory
from harness.trainers.native.transformer import GPTChunk, build_chunks


@dataclass(frozen=True)
class Outcome:
    """Numbers of one optimizer step; the same on every rank."""

    grad_norm: float
    zeros: int
    skipped: bool


class Trainer:
    """One rank's trainer: builds the model, resumes, trains to the phase's last iteration."""

    def __init__(self, args: Arguments, world: World) -> None:
        self.args, self.device = args, world.device
        layout = Layout.of(args, world.rank)
        self.parallel: Parallel = make_parallel(layout, world)
        streams = Streams(args, layout, world.device)
        factory = Factory(args, self.parallel, streams, world.device)
        self.chunks: list[GPTChunk] = build_chunks(factory)
        for chunk in self.chunks:
            chunk.train()
        self.routers = moe.routers(self.chunks)
        optimizers = build_optimizers(args, factory.specs, self.parallel.dp, self.parallel.edp)
        groups = [g for optimizer in optimizers for g in optimizer.adam.param_groups]
        self.state = TrainingState(
            parallel=self.parallel,
            optimizers=optimizers,
            buffers=factory.buffers,
            scheduler=ParamScheduler(args, groups),
            scaler=LossScaler(args),
            streams=streams,
            data=Data(args, layout.dp_rank, world.device),
        )
        self.pipeline = Pipeline(args, self.parallel, self.chunks, factory.dtype)
        self.checkpointer = Checkpointer(args, self.state)
        self.writes = layout.rank == layout.world - 1 and bool(args.tensorboard_dir)
        self.writer = ScalarWriter(args.tensorboard_dir) if self.writes else None

    def run(self, heartbeat: Callable[[int], None]) -> None:
        """Resume where ``--load`` says, train to the end of the phase, save there."""
        self.checkpointer.load()
        state, args = self.state, self.args
        saved = -1
        heartbeat(state.iteration)
        while state.iteration < args.stop:
            scalars = self.train_step()
            if args.eval_interval and state.iteration % args.eval_interval == 0:
                scalars |= self.evaluate()
            self.log(scalars)
            if args.save and args.save_interval and state.iteration % args.save_interval == 0:
                self.checkpointer.save()
                saved = state.iteration
            heartbeat(state.iteration)
        if args.save and saved != state.iteration:
            self.checkpointer.save()
        self.checkpointer.wait()
        if self.writer is not None:
            self.writer.close()

    def train_step(self) -> dict[str, float]:
        """One iteration; returns its scalars by metric name."""
        state, args = self.state, self.args
        watch = Stopwatch(self.device)
        samples = batch_size(args, state.data.train.sampler.consumed)
        batches, digests = state.data.batch(state.data.train, samples)
        loss_scale = state.scaler.scale
        scale = loss_scale / len(batches)
        moe.set_aux_loss_scale(scale)
        losses = self.pipeline.train(batches, scale)
        lr = self._learning_rates()
        outcome = self.update()
        if not outcome.skipped:
            state.scheduler.step(samples)
        state.iteration += 1
        scalars = {
            **self._sums(losses, len(batches)),
            "grad-norm": outcome.grad_norm,
            "num-zeros": float(outcome.zeros),
            "loss-scale": loss_scale,
            "batch-size": float(samples),
            "consumed-samples": float(state.data.train.sampler.consumed),
            "batch-digest": float(self._digest(digests)),
            **lr,
        }
        scalars["iteration-time"] = watch.seconds()
        return scalars

    def update(self) -> Outcome:
        """Reduce gradients, clip, step. An overflow under fp16 skips the step."""
        state, args = self.state, self.args
        self.finalize_grads()
        for optimizer in state.optimizers:
            optimizer.reduce_grads(1.0 / state.scaler.scale)
        squares, zeros, bad = 0.0, 0, 0.0
        for optimizer in state.optimizers:
            squares += optimizer.sum_of_squares(optimizer.shard_grads)
            zeros += optimizer.zeros() if args.log_num_zeros_in_grad else 0
        bad = 0.0 if math.isfinite(squares) else 1.0
        found = torch.tensor([0.0 if bad else squares, zeros, bad], dtype=torch.float64)  # [3]
        total, count, overflow = self._everywhere(found)
        skipped = bool(overflow) and args.fp16
        norm = math.sqrt(total) if not overflow else math.inf
        if not skipped:
            if args.clip_grad > 0:
                factor = min(1.0, args.clip_grad / (norm + 1e-6))
                for optimizer in state.optimizers:
                    if factor < 1.0:
                        optimizer.shard_grads.mul_(factor)
            for optimizer in state.optimizers:
                optimizer.step()
            if args.moe_router_enable_expert_bias:
                moe.update_expert_bias(
                    self.routers,
                    args.moe_router_bias_update_rate,
                    [self.parallel.tp, self.parallel.dp],
                )
        state.scaler.update(found_inf=skipped)
        for optimizer in state.optimizers:
            optimizer.grads.zero_()
        # A skipped step has no norm: log 0 rather than a number no curve can hold.
        return Outcome(0.0 if skipped else norm, int(count), skipped)

    def finalize_grads(self) -> None:
        """Sums that belong to the model, not to the replicas: sequence shards, tied embedding."""
        slots = [(o, s) for o in self.state.optimizers for s in o.slots]
        partial = [o.main_grad(s) for o, s in slots if s.spec.sum_over_tp]
        if partial and self.parallel.tp.size > 1:
            flat = self.parallel.tp.all_reduce(torch.cat([g.flatten() for g in partial]))
            for grad, part in zip(partial, flat.split([g.numel() for g in partial]), strict=True):
                grad.copy_(part.view_as(grad))
        group = self.parallel.embedding
        if group is not None and not self.args.untie_embeddings_and_output_weights:
            for optimizer, slot in slots:
                first = slot.spec.name == TIED_SOURCE
                if first or slot.spec.tied_copy:
                    grad = optimizer.main_grad(slot)
                    grad.copy_(group.all_reduce(grad))

    def evaluate(self) -> dict[str, float]:
        """Validation loss over ``--eval-iters`` global batches."""
        valid = self.state.data.valid
        if valid is None:
            return {}
        batches: list[Batch] = []
        for _ in range(self.args.eval_iters):
            batches += self.state.data.batch(valid, self.args.global_batch_size)[0]
        losses = self.pipeline.evaluate(batches)
        return {"lm loss validation": self._mean_loss(losses, len(batches))}

    def log(self, scalars: dict[str, float]) -> None:
        """Write the scalars; the last rank does, as in Megatron-LM."""
        if self.writer is None or self.state.iteration % self.args.tensorboard_log_interval:
            return
        now, highest = memory(self.device)
        scalars |= {"mem-allocated-bytes": float(now), "mem-max-allocated-bytes": float(highest)}
        self.writer.write(self.state.iteration, scalars)
        iteration, loss = self.state.iteration, scalars["lm loss"]
        print(
            f"iteration {iteration}/{self.args.train_iters} | lm loss {loss!r} | "
            f"grad norm {scalars['grad-norm']!r} | time {scalars['iteration-time']:.3f} s",
            flush=True,
        )

    # -- numbers -----------------------------------------------------------------------------

    def _everywhere(self, values: Tensor) -> list[float]:
        result: list[float] = self.parallel.world.all_reduce(values.to(self.device)).tolist()
        return result

    def _sums(self, losses: list[Tensor], count: int) -> dict[str, float]:
        """What every rank knows a part of, in one reduction: loss, norm of the parameters, balance."""
        args, layout = self.args, self.parallel.layout
        squares = aux = 0.0
        for optimizer in self.state.optimizers if args.log_params_norm else ():
            squares += optimizer.sum_of_squares(optimizer.master)
        for router in self.routers:
            aux += router.take_aux_loss()
        # Every TP rank holds the same balance; count it once for each replica.
        parts = [self._loss_part(losses), squares, aux if layout.tp_rank == 0 else 0.0]
        loss, squares, aux = self._everywhere(torch.tensor(parts, dtype=torch.float64))
        out = {"lm loss": loss / (count * layout.dp)}
        if args.log_params_norm:
            out["params-norm"] = math.sqrt(squares)
        if args.num_experts and args.moe_aux_loss_coeff:
            out["load_balancing_loss"] = aux / (count * layout.dp * args.num_layers)
        return out

    def _loss_part(self, losses: list[Tensor]) -> float:
        # The last stage knows; sums are taken in float64 and over the first TP rank of each replica.
        mine = self.parallel.layout.tp_rank == 0 and bool(losses)
        return float(torch.stack(losses).double().sum()) if mine else 0.0

    def _mean_loss(self, losses: list[Tensor], count: int) -> float:
        part = torch.tensor([self._loss_part(losses)], dtype=torch.float64)
        return self._everywhere(part)[0] / (count * self.parallel.layout.dp)

    def _learning_rates(self) -> dict[str, float]:
        plain = self.args.decoupled_lr is None
        out: dict[str, float] = {}
        for group in (g for o in self.state.optimizers for g in o.adam.param_groups):
            name = "decoupled-learning-rate" if ".decoupled" in group["name"] else "learning-rate"
            out.setdefault(name, group["lr"])
        return {"learning-rate": out["learning-rate"]} if plain else out

    def _digest(self, mine: list[int]) -> int:
        # By micro-batch, then replica: the order of the samples, whatever the layout.
        parts = self.parallel.dp.all_gather(torch.tensor([mine], device=self.device))  # [dp, m]
        return combine_digests(parts.t().flatten().tolist())
