"""Lightning's own Trainer, as it is: it cannot be told where to stop, so the harness ends it there."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader, IterableDataset


class Stream(IterableDataset):  # type: ignore[type-arg]
    """Batches in an order that depends on the step alone, so that any step can be gone on from."""

    def __init__(self, start: int) -> None:
        self.step = start

    def __iter__(self) -> Iterator[torch.Tensor]:
        while True:
            self.step += 1
            yield torch.randn(16, 8, generator=torch.Generator().manual_seed(self.step))


class Model(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 8))

    def training_step(self, x: torch.Tensor, _: int) -> Any:
        return (self.net(x) - x.flip(1)).square().mean()

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class LogAndSave(Callback):
    """One JSON object a line, and a checkpoint every 20 steps."""

    def __init__(self, metrics: Path, folder: Path) -> None:
        self.metrics, self.folder = metrics, folder

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
        step = trainer.global_step
        with self.metrics.open("a") as file:
            file.write(json.dumps({"step": step, "loss": outputs["loss"].item()}) + "\n")
        if step % 20 == 0:
            trainer.save_checkpoint(self.folder / f"step={step}.ckpt")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--iters", type=int, required=True)
    parser.add_argument("--save", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--load", type=Path)
    args = parser.parse_args()
    lightning.seed_everything(1)
    torch.set_num_threads(1)
    last = max(args.load.glob("step=*.ckpt"), default=None) if args.load else None
    start = int(last.stem.removeprefix("step=")) if last else 0
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=args.iters,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        callbacks=[LogAndSave(args.out / "metrics.jsonl", args.save)],
    )
    trainer.fit(Model(), DataLoader(Stream(start), batch_size=None), ckpt_path=last)


if __name__ == "__main__":
    main()
