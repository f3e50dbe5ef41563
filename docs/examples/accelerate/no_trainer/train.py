"""A training loop of one's own on accelerate, as its no_trainer examples are: a tiny GPT-2 on a made-up text."""

import argparse
import math
import os

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, ProjectConfiguration, set_seed
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm
from transformers import GPT2Config, GPT2LMHeadModel, default_data_collator, get_scheduler


class Text(Dataset):
    def __init__(self, rows: int = 64, length: int = 16, vocabulary: int = 64) -> None:
        start = torch.randint(vocabulary, (rows, 1), generator=torch.Generator().manual_seed(3))
        self.rows = (start + torch.arange(length) * (1 + start % 5)) % vocabulary

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int):
        return {"input_ids": self.rows[index], "labels": self.rows[index]}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--output_dir", type=str, default="out")
    parser.add_argument("--logging_dir", type=str, default="logs")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--per_device_train_batch_size", type=int, default=4)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--num_warmup_steps", type=int, default=5)
    parser.add_argument("--max_train_steps", type=int, default=1000)
    parser.add_argument("--checkpointing_steps", type=int, default=100)
    parser.add_argument("--resume_from_checkpoint", type=str, default=None, help="the folder of a checkpoint")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    accelerator = Accelerator(
        log_with="tensorboard",
        project_config=ProjectConfiguration(project_dir=args.output_dir, logging_dir=args.logging_dir),
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True),
    )
    set_seed(args.seed)
    config = GPT2Config(
        vocab_size=64, n_positions=16, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    model = GPT2LMHeadModel(config)
    loader = DataLoader(
        Text(),
        shuffle=True,
        collate_fn=default_data_collator,
        batch_size=args.per_device_train_batch_size,
        generator=torch.Generator().manual_seed(args.seed),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate)
    scheduler = get_scheduler(
        "cosine",
        optimizer=optimizer,
        num_warmup_steps=args.num_warmup_steps,
        num_training_steps=args.max_train_steps,
    )
    model, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, loader, scheduler)
    accelerator.init_trackers("no_trainer", config=vars(args))

    epochs = math.ceil(args.max_train_steps / len(loader))
    completed_steps = first_epoch = skipped = 0
    if args.resume_from_checkpoint:
        accelerator.load_state(args.resume_from_checkpoint)
        completed_steps = int(os.path.basename(args.resume_from_checkpoint).removeprefix("step_"))
        first_epoch, skipped = divmod(completed_steps, len(loader))

    progress = tqdm(
        total=args.max_train_steps, initial=completed_steps, disable=not accelerator.is_local_main_process
    )
    for epoch in range(first_epoch, epochs):
        model.train()
        loader.set_epoch(epoch)
        batches = accelerator.skip_first_batches(loader, skipped) if skipped else loader
        skipped = 0
        for batch in batches:
            with accelerator.accumulate(model):
                loss = model(**batch).loss
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
            completed_steps += 1
            progress.update(1)
            accelerator.log(
                {"loss": loss.detach().item(), "lr": scheduler.get_last_lr()[0], "epoch": epoch},
                step=completed_steps,
            )
            if completed_steps % args.checkpointing_steps == 0:
                accelerator.save_state(os.path.join(args.output_dir, f"step_{completed_steps}"))
            if completed_steps >= args.max_train_steps:
                break
    accelerator.end_training()
    accelerator.unwrap_model(model).save_pretrained(args.output_dir)


if __name__ == "__main__":
    main()
