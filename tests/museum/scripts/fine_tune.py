"""transformers' Trainer, causal or masked, as a fine-tuning script has it; made-up text, a tiny model."""

import argparse
import inspect
import os

import torch
import transformers
from torch.utils.data import Dataset
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

WORDS, LENGTH, SPECIAL = 60, 16, ("[PAD]", "[UNK]", "[MASK]", "[CLS]")


class Counting(Dataset):
    """Rows that count on in steps of their own: something that a small model can learn."""

    def __init__(self, rows: int, seed: int, masked: bool, strides: int = 5) -> None:
        draw = torch.Generator().manual_seed(seed)
        first = torch.randint(WORDS, (rows, 1), generator=draw)
        stride = torch.randint(1, strides + 1, (rows, 1), generator=draw)
        self.rows = len(SPECIAL) + (first + stride * torch.arange(LENGTH)) % WORDS
        self.masked = masked

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        row = self.rows[index]
        return {"input_ids": row.tolist()} if self.masked else {"input_ids": row, "labels": row}


def causal_model() -> torch.nn.Module:
    sizes = {"n_positions": LENGTH, "n_embd": 32, "n_layer": 2, "n_head": 2}
    config = transformers.GPT2Config(vocab_size=len(SPECIAL) + WORDS, bos_token_id=0, eos_token_id=0, **sizes)
    return transformers.GPT2LMHeadModel(config)


def masked_model() -> torch.nn.Module:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    return transformers.BertForMaskedLM(
        transformers.BertConfig(vocab_size=len(SPECIAL) + WORDS, max_position_embeddings=LENGTH, **sizes)
    )


def masking() -> object:
    from tokenizers import Tokenizer, models

    words = {word: index for index, word in enumerate([*SPECIAL, *map(str, range(WORDS))])}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="[UNK]")),
        pad_token="[PAD]", unk_token="[UNK]", mask_token="[MASK]", cls_token="[CLS]",
    )  # fmt: skip
    return transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.3)


def named(**wanted: object) -> TrainingArguments:
    """Arguments under the names that this release has for them."""
    known = inspect.signature(TrainingArguments).parameters
    others = {"eval_strategy": "evaluation_strategy", "use_cpu": "no_cuda"}
    arguments = {name if name in known else others.get(name, name): value for name, value in wanted.items()}
    if "logging_dir" not in known:  # from transformers 5 on, the variable's
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(arguments.pop("logging_dir"))
    return TrainingArguments(**arguments)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--iters", type=int, required=True)
    parser.add_argument("--save-every", type=int, required=True)
    parser.add_argument("--save", required=True)
    parser.add_argument("--load")
    parser.add_argument("--tensorboard", required=True)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--by-epoch", action="store_true", help="save at the end of each")
    parser.add_argument("--masked", action="store_true", help="the collator draws masks")
    parser.add_argument("--patience", type=int, help="stop early, after so many evaluations; keep the best")
    parser.add_argument("--restore-callbacks", action="store_true", help="with their counts")
    a = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    when = {"save_strategy": "epoch"} if a.by_epoch else {"save_steps": a.save_every}
    early = {}
    if a.patience:
        early = {"eval_strategy": "steps", "eval_steps": a.save_every, "load_best_model_at_end": True}
        early |= {"metric_for_best_model": "eval_loss", "learning_rate": 1e-2, "warmup_steps": 2}
        early["restore_callback_states_from_checkpoint"] = a.restore_callbacks
    arguments = named(**{
        "output_dir": a.save, "max_steps": a.iters, "per_device_train_batch_size": 4, "learning_rate": 1e-3,
        "warmup_steps": 5, "lr_scheduler_type": "cosine", "logging_steps": 1, "report_to": ["tensorboard"],
        "logging_dir": a.tensorboard, "use_cpu": True, "disable_tqdm": True, **when, **early,
    })  # fmt: skip
    Trainer(
        model=masked_model() if a.masked else causal_model(),
        args=arguments,
        train_dataset=Counting(a.rows, 3, a.masked),
        eval_dataset=Counting(16, 4, a.masked, strides=39),  # unlike what is learned: it gets worse
        data_collator=masking() if a.masked else None,
        callbacks=[EarlyStoppingCallback(a.patience)] if a.patience else [],
    ).train(resume_from_checkpoint=get_last_checkpoint(a.load) if a.load else None)


if __name__ == "__main__":
    main()
