"""mmengine's Runner: a model, a dataset and hooks, as in its tutorial of fifteen minutes."""

import argparse

import torch
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset


@DATASETS.register_module()
class Rows(Dataset):
    def __init__(self) -> None:
        self.rows = torch.randn(80, 8, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int):
        return {"x": self.rows[index]}


@MODELS.register_module()
class Model(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 8))

    def forward(self, x, mode: str):
        return {"loss": nn.functional.mse_loss(self.net(x), x.flip(1))}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work-dir", default="work_dir")
    parser.add_argument("--log-dir", default="logs")
    parser.add_argument("--max-epochs", type=int, default=12)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --work-dir")
    args = parser.parse_args()
    runner = Runner(
        model=dict(type="Model"),
        work_dir=args.work_dir,
        train_dataloader=dict(
            dataset=dict(type="Rows"),
            batch_size=8,
            sampler=dict(type="DefaultSampler", shuffle=True),
            collate_fn=dict(type="default_collate"),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=args.max_epochs),
        optim_wrapper=dict(optimizer=dict(type="AdamW", lr=1e-2)),
        param_scheduler=dict(type="CosineAnnealingLR", by_epoch=True, T_max=args.max_epochs),
        default_hooks=dict(
            logger=dict(type="LoggerHook", interval=1),
            checkpoint=dict(type="CheckpointHook", interval=1),
        ),
        visualizer=dict(
            type="Visualizer", vis_backends=[dict(type="TensorboardVisBackend", save_dir=args.log_dir)]
        ),
        resume=args.resume,
        randomness=dict(seed=1),
    )
    runner.train()


if __name__ == "__main__":
    main()
