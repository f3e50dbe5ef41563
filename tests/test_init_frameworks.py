"""harness init of scripts of frameworks: how each is told where to save and resume, and where its log is."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cases import load_case
from harness.cases.case import Case
from harness.init import advice
from harness.init.case import guess
from harness.init.files import repository_files
from harness.init.script import look

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs" / "examples"
SHIPPED = {
    "transformers/finetune": "transformers",
    "accelerate/no_trainer": "Accelerate",
    "lightning/trainer": "Lightning",
    "deepspeed/zero1": "DeepSpeed",
    "mmengine/runner": "mmengine",
}


@pytest.fixture(autouse=True)
def of_today(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advice, "installed", lambda package: 5)


def read(folder: Path, text: str) -> tuple[Case, list[str]]:
    """The case, and what was not seen."""
    (folder / ".git").mkdir(exist_ok=True)
    (folder / "train.py").write_text(text)
    found = guess(look(folder / "train.py"), folder)
    case = folder / "test_cases" / "mine" / "train"
    case.mkdir(parents=True, exist_ok=True)
    (case / "model_config.yaml").write_text(found.text)
    return load_case(case), list(found.unseen)


def commands(case: Case) -> tuple[list[str], list[str]]:
    assert case.harness.command is not None
    return list(case.harness.command.train), list(case.harness.command.resume)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_case_of_an_example_is_what_init_makes_of_it(name: str, tmp_path: Path) -> None:
    made, unseen = read(tmp_path, (EXAMPLES / name / "train.py").read_text())
    ours = load_case(EXAMPLES / name)
    assert unseen == [] or (name == "mmengine/runner" and unseen[0].startswith("how many steps an epoch"))
    assert look(EXAMPLES / name / "train.py").framework == SHIPPED[name]
    assert commands(made) == commands(ours)
    assert dict(made.env_vars) == dict(ours.env_vars)
    assert made.train_iters("cpu") == ours.train_iters("cpu")
    assert made.resume_at("cpu") == ours.resume_at("cpu")
    assert made.harness.metrics.stdout == ours.harness.metrics.stdout


HARD_CODED = """
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments, set_seed
set_seed(1)
OUT = "./results"
training_args = TrainingArguments(
    output_dir=OUT,
    num_train_epochs=3,
    logging_steps=10,
    report_to="wandb",
)
trainer = Trainer(model=model, args=training_args, train_dataset=data)
trainer.train()
"""


def test_of_a_script_without_options_each_line_to_change_is_named(tmp_path: Path) -> None:
    case, unseen = read(tmp_path, HARD_CODED)
    assert unseen[0].startswith("train.py reads no options: begin it with import argparse")
    told = [line.removeprefix("train.py:").split(", and parser.") for line in unseen[1:]]
    calls = "5: TrainingArguments(…) does not say"
    assert told == [
        ["5: output_dir=OUT says where it saves: write output_dir=args.output_dir instead",
         'add_argument("--output_dir", default="./results")'],
        [f"{calls} how many steps it trains: add max_steps=args.max_steps",
         'add_argument("--max_steps", type=int, default=-1)'],
        [f"{calls} how often it saves: add save_steps=args.save_steps",
         'add_argument("--save_steps", type=int, default=500)'],
        ["5: logging_steps=10 says how often it logs: write logging_steps=args.logging_steps instead",
         'add_argument("--logging_steps", type=int, default=10)'],
        ["12: train(…) does not say what it resumes from: add "
         "resume_from_checkpoint=args.resume_from_checkpoint", 'add_argument("--resume_from_checkpoint")'],
    ]  # fmt: skip
    assert dict(case.env_vars) == {"WANDB_MODE": "disabled"}


def test_when_the_lines_are_changed_the_same_case_is_made_and_nothing_is_unseen(tmp_path: Path) -> None:
    before, unseen = read(tmp_path, HARD_CODED)
    said = [line.partition("and parser.")[2] for line in unseen[1:]]
    text = HARD_CODED.replace('"wandb"', '"none"').replace("OUT,", "args.output_dir,")
    text = text.replace("num_train_epochs=3", "max_steps=args.max_steps, save_steps=args.save_steps")
    text = text.replace("logging_steps=10", "logging_steps=args.logging_steps")
    text = text.replace("train()", "train(resume_from_checkpoint=args.resume_from_checkpoint)")
    after, left = read(tmp_path, "\n".join([f"parser.{line}" for line in said]) + text)
    assert left == []
    assert commands(after) == commands(before)


BEST = """
from transformers import Trainer, TrainingArguments
training_args = TrainingArguments("out", num_train_epochs=3, logging_steps=1,
    save_strategy="epoch", eval_strategy="epoch", load_best_model_at_end=True)
Trainer(model=model, args=training_args).train()
"""


def test_where_the_best_is_loaded_it_is_evaluated_where_it_is_saved(
    tmp_path: Path,
) -> None:
    case, unseen = read(tmp_path, BEST)
    train, _ = commands(case)
    words = ["--save_strategy", "steps", "--save_steps", "${SAVE_INTERVAL}", "--eval_strategy", "steps",
             "--eval_steps", "${SAVE_INTERVAL}"]  # fmt: skip
    assert " ".join(words) in " ".join(train)
    said = "\n".join(unseen)
    for name in ("save_strategy", "eval_strategy"):
        new = f'write {name}=args.{name} instead, and parser.add_argument("--{name}", default="epoch")'
        assert new in said
    assert 'add eval_steps=args.eval_steps, and parser.add_argument("--eval_steps", type=int)' in said
    assert "no seed: " in said
    # Without it, when it evaluates is its own affair.
    case, unseen = read(tmp_path, BEST.replace("load_best_model_at_end=True", ""))
    assert not [word for word in (*commands(case)[0], *unseen) if "eval" in word]


@pytest.mark.parametrize("when", ['"steps"', "IntervalStrategy.STEPS"])
def test_what_will_do_is_left_as_it_is(tmp_path: Path, when: str) -> None:
    text = BEST.replace('"epoch"', when).replace("load_best", "eval_steps=5, load_best")
    said = "\n".join(read(tmp_path, text)[1])
    assert "strategy" not in said
    assert "eval_steps=5 says how often it evaluates: write eval_steps=args.eval_steps" in said


def test_when_it_saves_and_how_often_are_two_options(tmp_path: Path) -> None:
    own = 'p.add_argument("--when"); p.add_argument("--often"); args = p.parse_args()\n'
    case, _ = read(
        tmp_path,
        own + BEST.replace('save_strategy="epoch"', "save_strategy=args.when, save_steps=args.often"),
    )
    train, _ = commands(case)
    assert train[train.index("--when") + 1] == "steps"
    assert train[train.index("--often") + 1] == "${SAVE_INTERVAL}"


LAST = "last = get_last_checkpoint(args.resume)\ntrainer.train(resume_from_checkpoint=last)"


@pytest.mark.parametrize(
    ("resume", "given"),
    [
        ("trainer.train(resume_from_checkpoint=args.resume or None)", "${CHECKPOINT_TO_LOAD}"),
        ("trainer.train(args.resume)", "${CHECKPOINT_TO_LOAD}"),
        (LAST, "${CHECKPOINT_LOAD_PATH}"),
    ],
)
def test_what_is_resumed_from_is_a_checkpoint_or_their_folder(
    tmp_path: Path, resume: str, given: str
) -> None:
    text = f"""
from trl import SFTConfig, SFTTrainer
set_seed(1)
for name in ("--out", "--n", "--every", "--resume"):
    pass
p.add_argument("--out"); p.add_argument("--n"); p.add_argument("--every"); p.add_argument("--resume")
config = SFTConfig(output_dir=args.out, max_steps=args.n, save_steps=args.every, logging_steps=1)
{resume}
"""
    case, unseen = read(tmp_path, text)
    train, again = commands(case)
    assert unseen == []
    assert train[2:] == [
        "--n",
        "${TRAIN_ITERS}",
        "--every",
        "${SAVE_INTERVAL}",
        "--out",
        "${CHECKPOINT_SAVE_PATH}",
    ]
    assert again[-2:] == ["--resume", given]
    assert again[-4:-2] == ["--out", "${CHECKPOINT_LOAD_PATH}"]


def test_a_trainer_that_always_goes_on_from_its_folder_needs_no_option(tmp_path: Path) -> None:
    text = "from transformers import Trainer, TrainingArguments, set_seed\nset_seed(1)\n"
    text += 'p.add_argument("--out")\np.add_argument("--n")\n'
    text += "a = TrainingArguments(args.out, max_steps=args.n, save_steps=20, logging_steps=1)\n"
    text += "Trainer(args=a).train(resume_from_checkpoint=bool(os.listdir(args.out)))\n"
    case, unseen = read(tmp_path, text)
    _, again = commands(case)
    assert unseen == []
    assert again[-2:] == ["--out", "${CHECKPOINT_LOAD_PATH}"]
    assert (case.train_iters("cpu"), case.resume_at("cpu")) == (40, 20)


def test_of_an_older_transformers_the_log_has_an_argument(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advice, "installed", lambda package: 4)
    text = (EXAMPLES / "transformers/finetune/train.py").read_text()
    assert commands(read(tmp_path, text)[0])[0][-2:] == ["--logging_dir", "${TENSORBOARD_PATH}"]
    unseen = read(tmp_path, HARD_CODED.replace('"wandb"', '"all"'))[1]
    assert 'add logging_dir=args.logging_dir, and parser.add_argument("--logging_dir")' in unseen[-1]


def test_what_a_dataclass_asks_for_is_asked_for(tmp_path: Path) -> None:
    text = (EXAMPLES / "transformers/finetune/train.py").read_text()
    text = text.replace("    block_size: int", "    corpus: str\n    block_size: int")
    assert "asks for --corpus" in "\n".join(read(tmp_path, text)[1])
    text = text.replace("(resume_from_checkpoint=training_args.resume_from_checkpoint)", "()")
    assert "train() is not told what it resumes from" in "\n".join(read(tmp_path, text)[1])


def test_a_trainer_of_lightning_is_told_what_is_missing(tmp_path: Path) -> None:
    text = "import lightning as L\ntrainer = L.Trainer(max_epochs=3)\ntrainer.fit(model, data)\n"
    case, unseen = read(tmp_path, text)
    said = "\n".join(unseen)
    for words in (
        "no ModelCheckpoint says where it saves: add one with dirpath=args.checkpoints",
        "no ModelCheckpoint says how often it saves: add one with every_n_train_steps=args.save_every",
        "train.py:2: Trainer(…) does not say how many steps it trains: add max_steps=args.max_steps",
        "no TensorBoardLogger says where its log is: add one with save_dir=args.logs",
        "train.py:2: max_epochs=3 says how many epochs it trains: write max_epochs=args.max_epochs instead",
        "train.py:3: fit(…) does not say what it resumes from: add ckpt_path=args.resume",
    ):
        assert words in said
    assert "no seed" in said
    assert len(unseen) == 9  # it reads no options
    assert "${CHECKPOINT_TO_LOAD}" in commands(case)[1]


def test_a_logger_of_lightning_that_is_there_is_told_where(tmp_path: Path) -> None:
    text = """
import lightning as L
L.seed_everything(1)
keep = ModelCheckpoint(dirpath="checkpoints", monitor="val_loss", save_top_k=2)
trainer = L.Trainer(max_epochs=3, logger=CSVLogger("logs", name="net"), callbacks=[keep])
trainer.fit(model, data)
"""
    case, unseen = read(tmp_path, text)
    said = "\n".join(unseen)
    for words in (
        'save_dir="logs" says where its log is: write save_dir=args.logs instead, '
        'and parser.add_argument("--logs", default="logs")',
        'save_top_k=args.save_top_k instead, and parser.add_argument("--save_top_k", type=int, default=2)',
        'max_epochs=args.max_epochs instead, and parser.add_argument("--max_epochs", type=int, default=3)',
    ):
        assert words in said
    assert "is printed" not in said
    assert "TensorBoard" not in said
    train = " ".join(commands(case)[0])
    assert "--max_epochs -1 --save_top_k -1" in train
    assert "--logs ${OUTPUT_PATH}" in train


def test_a_command_line_of_lightnings_own_is_given_its_words(tmp_path: Path) -> None:
    case, unseen = read(
        tmp_path, "from lightning.pytorch.cli import LightningCLI\nLightningCLI(Model, Data)\n"
    )
    train, again = commands(case)
    assert unseen == []
    assert train[2] == "fit"
    assert train[-2:] == ["--trainer.callbacks.dirpath", "${CHECKPOINT_SAVE_PATH}"]
    assert again[-2:] == ["--ckpt_path", "${CHECKPOINT_TO_LOAD}"]


def test_a_script_that_takes_only_models_from_a_framework_is_plain(tmp_path: Path) -> None:
    text = "import torch\nfrom transformers import AutoModel\nmodel = AutoModel.from_pretrained('x')\n"
    (tmp_path / "train.py").write_text(text)
    assert look(tmp_path / "train.py").framework == "plain torch"


def test_a_script_that_logs_by_the_harness_needs_no_other_log_nor_is_it_a_dependency(tmp_path: Path) -> None:
    text = "import harness, torch\ntorch.manual_seed(1)\nharness.log(step, loss=loss)\n"
    assert "no line is printed" not in "\n".join(read(tmp_path, text)[1])
    script = look(tmp_path / "train.py")
    assert script.logs
    repository_files(tmp_path, script.imports)
    assert "resume-harness" not in (tmp_path / "pyproject.toml").read_text()


def test_torchtitan_is_told_by_its_own_options(tmp_path: Path) -> None:
    text = "from torchtitan.config import ConfigManager\nconfig = ConfigManager().parse_args()\n"
    case, _ = read(tmp_path, text)
    train, again = commands(case)
    assert train[:5] == ["torchrun", "--standalone", "--nproc_per_node", "1", "train.py"]
    assert again[again.index("--checkpoint.folder") + 1] == "${CHECKPOINT_LOAD_PATH}"


def test_a_name_that_is_something_elses_is_not_taken_for_the_options(tmp_path: Path) -> None:
    text = HARD_CODED.replace("training_args", "args").replace(
        "num_train", 'save_strategy="epoch", num_train'
    )
    said = "\n".join(read(tmp_path, text)[1])
    assert "resume_from_checkpoint=options.resume_from_checkpoint" in said
    assert "then options = parser.parse_args()" in said
    changed = (
        'train.py:5: save_strategy="epoch" says when it saves: write save_strategy=options.save_strategy'
    )
    assert changed in said.replace("'", '"')
    own = 'p.add_argument("--seed")\nopt = p.parse_args()\n'
    assert "and p.add_argument" in (said := "\n".join(read(tmp_path, own + text)[1]))
    assert "output_dir=opt.output_dir" in said
    assert "reads no options" not in said
