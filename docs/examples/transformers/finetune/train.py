"""Fine-tune a causal language model with transformers' Trainer: a tiny GPT-2 from its configuration, on a made-up text."""

from dataclasses import dataclass, field

import torch
from torch.utils.data import Dataset
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
    default_data_collator,
    set_seed,
)


@dataclass
class ModelArguments:
    n_layer: int = field(default=2, metadata={"help": "how many blocks"})
    n_embd: int = field(default=32)


@dataclass
class DataArguments:
    block_size: int = field(default=16, metadata={"help": "tokens in a row"})
    rows: int = field(default=96)


class Text(Dataset):
    def __init__(self, rows: int, length: int, seed: int, vocabulary: int = 64) -> None:
        start = torch.randint(vocabulary, (rows, 1), generator=torch.Generator().manual_seed(seed))
        self.rows = (start + torch.arange(length) * (1 + start % 5)) % vocabulary

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int):
        return {"input_ids": self.rows[index], "labels": self.rows[index]}


def main() -> None:
    parser = HfArgumentParser((ModelArguments, DataArguments, TrainingArguments))
    model_args, data_args, training_args = parser.parse_args_into_dataclasses()
    set_seed(training_args.seed)
    config = GPT2Config(
        vocab_size=64,
        n_positions=data_args.block_size,
        n_embd=model_args.n_embd,
        n_layer=model_args.n_layer,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    trainer = Trainer(
        model=GPT2LMHeadModel(config),
        args=training_args,
        train_dataset=Text(data_args.rows, data_args.block_size, seed=3),
        eval_dataset=Text(16, data_args.block_size, seed=4),
        data_collator=default_data_collator,
    )
    result = trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)
    trainer.save_model()
    trainer.log_metrics("train", result.metrics)
    trainer.save_state()


if __name__ == "__main__":
    main()
