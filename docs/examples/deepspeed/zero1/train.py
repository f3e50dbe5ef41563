"""DeepSpeed's engine with ZeRO-1, bf16 and a schedule of its configuration, as its examples have it."""

import argparse

import deepspeed
import torch
from torch import nn


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--train_steps", type=int, default=1000)
    parser.add_argument("--save_interval", type=int, default=100)
    parser.add_argument("--save_dir", default="checkpoints")
    parser.add_argument("--load_dir", help="where checkpoints to go on from are")
    parser.add_argument("--local_rank", type=int, default=-1)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(8, 64), nn.GELU(), nn.Dropout(0.1), nn.Linear(64, 8))
    config = {
        "train_micro_batch_size_per_gpu": 8,
        "gradient_accumulation_steps": 1,
        "steps_per_print": 10,
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-2, "torch_adam": True}},
        "scheduler": {
            "type": "WarmupDecayLR",
            "params": {"warmup_num_steps": 5, "total_num_steps": args.train_steps, "warmup_max_lr": 1e-2},
        },
        "zero_optimization": {"stage": 1},
        "bf16": {"enabled": True},
        "gradient_clipping": 1.0,
    }
    engine, _, _, _ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=config)
    if args.load_dir:
        _, client = engine.load_checkpoint(args.load_dir)
        torch.set_rng_state(client["rng"])
    rank = torch.distributed.get_rank()
    while engine.global_steps < args.train_steps:
        # Rows that the step and the rank decide.
        draw = torch.Generator().manual_seed(1000 * engine.global_steps + rank)
        x = torch.randn(8, 8, generator=draw).to(engine.device, torch.bfloat16)
        loss = (engine(x) - x.flip(1)).float().square().mean()
        engine.backward(loss)
        engine.step()
        step = engine.global_steps
        if rank == 0:
            print(
                f"step {step} loss {loss.item()} lr {engine.get_lr()[0]} grad_norm {float(engine.get_global_grad_norm())}"
            )
        if step % args.save_interval == 0:
            engine.save_checkpoint(args.save_dir, client_state={"rng": torch.get_rng_state()})


if __name__ == "__main__":
    main()
