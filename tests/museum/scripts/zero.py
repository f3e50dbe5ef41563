"""DeepSpeed on a CPU: ZeRO, bf16, its own scheduler, its own checkpoints."""

import argparse
import json
from pathlib import Path

import deepspeed
import torch
from torch import nn


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--iters", type=int, required=True)
    parser.add_argument("--stop", type=int, required=True)
    parser.add_argument("--save-every", type=int, required=True)
    parser.add_argument("--save", required=True)
    parser.add_argument("--load")
    parser.add_argument("--metrics", type=Path, required=True)
    parser.add_argument("--stage", type=int, default=1)
    a = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 8))
    warm_up = {"warmup_num_steps": 30, "total_num_steps": a.iters, "warmup_max_lr": 1e-2}
    engine, *_ = deepspeed.initialize(
        model=model,
        model_parameters=model.parameters(),
        config={
            "train_micro_batch_size_per_gpu": 8,
            "optimizer": {"type": "AdamW", "params": {"lr": 1e-2, "torch_adam": True}},
            "scheduler": {"type": "WarmupDecayLR", "params": warm_up},
            "zero_optimization": {"stage": a.stage},
            "bf16": {"enabled": True},
            "gradient_clipping": 1.0,
        },
    )
    if a.load:
        engine.load_checkpoint(a.load)
    with a.metrics.open("a") as log:
        while engine.global_steps < a.stop:
            order = torch.Generator().manual_seed(engine.global_steps)
            batch = torch.randn(8, 8, generator=order).bfloat16()
            loss = (engine(batch) - batch.flip(1)).float().square().mean()
            engine.backward(loss)
            engine.step()
            line = {"step": engine.global_steps, "loss": loss.item(), "lr": engine.get_lr()[0]}
            line["grad_norm"] = float(engine.get_global_grad_norm())
            log.write(json.dumps(line) + "\n")
            if engine.global_steps % a.save_every == 0:
                engine.save_checkpoint(a.save)


if __name__ == "__main__":
    main()
