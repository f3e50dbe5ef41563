"""Lightning with its own logger and its own checkpoints; the batches within an epoch are drawn anew."""

import argparse
import json
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class OwnLog(Callback):
    """Lines of one's own: Lightning's loggers number a batch that is trained again as the one before."""

    def __init__(self, path: str) -> None:
        self.path = path

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        line = {"step": trainer.global_step, "loss": outputs["loss"].item(), "batch_idx": batch_idx}
        line |= {"epoch": trainer.current_epoch, "lr": trainer.optimizers[0].param_groups[0]["lr"]}
        with open(self.path, "a") as file:
            file.write(json.dumps(line) + "\n")


class Flip(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 8))

    def training_step(self, batch: list, batch_idx: int) -> torch.Tensor:
        loss = (self.net(batch[0]) - batch[0].flip(1)).square().mean()
        self.log("loss", loss)
        self.log("batch_idx", float(batch_idx))
        return loss

    def configure_optimizers(self) -> tuple:
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--iters", type=int, required=True)
    parser.add_argument("--save-every", type=int, required=True)
    parser.add_argument("--save", required=True)
    parser.add_argument("--load", type=Path)
    parser.add_argument("--tensorboard", required=True)
    parser.add_argument("--csv", help="log there instead")
    parser.add_argument("--own-log", help="log there by a callback of one's own")
    a = parser.parse_args()
    lightning.seed_everything(1)
    torch.set_num_threads(1)
    rows = torch.randn(80, 8, generator=torch.Generator().manual_seed(0))  # ten batches an epoch
    logger = CSVLogger(a.csv, "", "") if a.csv else TensorBoardLogger(a.tensorboard, name="", version="")
    checkpoints = ModelCheckpoint(
        dirpath=a.save, filename="{epoch}-{step}", every_n_train_steps=a.save_every, save_top_k=-1
    )
    own = [OwnLog(a.own_log)] if a.own_log else [LearningRateMonitor("step")]
    trainer = lightning.Trainer(
        accelerator="cpu", max_steps=a.iters, logger=not a.own_log and logger, log_every_n_steps=1,
        callbacks=[checkpoints, *own],
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    newest = None
    if a.load:
        newest = max(a.load.glob("*.ckpt"), key=lambda file: int(file.stem.partition("step=")[2]))
    trainer.fit(Flip(), DataLoader(TensorDataset(rows), batch_size=8), ckpt_path=newest)


if __name__ == "__main__":
    main()
