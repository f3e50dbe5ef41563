"""An ordinary Lightning script: a module, a data module, ModelCheckpoint, and TensorBoard as the logger."""

import argparse

import lightning as L
import torch
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Data(L.LightningDataModule):
    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage: str) -> None:
        rows = torch.randn(96, 8, generator=torch.Generator().manual_seed(0))
        self.train, self.val = TensorDataset(rows[:80]), TensorDataset(rows[80:])

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.val, batch_size=self.batch_size)


class Model(L.LightningModule):
    def __init__(self, lr: float, warmup: int, steps: int) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Dropout(0.1), nn.Linear(32, 8))

    def loss(self, batch) -> torch.Tensor:
        (x,) = batch
        return nn.functional.mse_loss(self.net(x), x.flip(1))

    def training_step(self, batch, batch_idx: int) -> torch.Tensor:
        loss = self.loss(batch)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, batch_idx: int) -> None:
        self.log("val/loss", self.loss(batch))

    def configure_optimizers(self):
        hp = self.hparams
        optimizer = torch.optim.AdamW(self.parameters(), lr=hp.lr)
        warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=hp.warmup)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, hp.steps - hp.warmup)
        scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, [warmup, cosine], [hp.warmup])
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    def on_save_checkpoint(self, checkpoint) -> None:
        checkpoint["rng"] = torch.get_rng_state()  # Lightning saves no random streams

    def on_load_checkpoint(self, checkpoint) -> None:
        torch.set_rng_state(checkpoint["rng"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--max_steps", type=int, default=1000)
    parser.add_argument("--save_every", type=int, default=100)
    parser.add_argument("--checkpoints", default="checkpoints")
    parser.add_argument("--logs", default="lightning_logs")
    parser.add_argument("--resume", help="a checkpoint to go on from")
    args = parser.parse_args()
    L.seed_everything(1, workers=True)
    trainer = L.Trainer(
        max_steps=args.max_steps,
        logger=TensorBoardLogger(args.logs),
        log_every_n_steps=1,
        callbacks=[
            ModelCheckpoint(
                dirpath=args.checkpoints,
                filename="{epoch}-{step}",
                every_n_train_steps=args.save_every,
                save_top_k=-1,
            ),
            LearningRateMonitor("step"),
        ],
    )
    trainer.fit(Model(lr=1e-2, warmup=5, steps=args.max_steps), Data(batch_size=8), ckpt_path=args.resume)


if __name__ == "__main__":
    main()
