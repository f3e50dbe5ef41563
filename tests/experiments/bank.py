"""Two training scripts, and what each loses: an edit of the script, as a person would make it by mistake."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

SCRIPTS = Path(__file__).parent / "scripts"
#: Of one in a line of its own: what is looked for, and what stands there instead.
Edits = tuple[tuple[str, str], ...]


class PlaceError(Exception):
    """A fault has no place, or several, in the script."""


@dataclass(frozen=True)
class Script:
    """One that trains, with its case.

    Args:
        name: of its file without ``.py``, and of its case.
        about: what it is, in a few words.
        n, every: how long it trains, and how often it saves.
        start: the command up to the script.
        words: of the script, in every phase.
        resume: the option that names where to go on from.
        stop: the option that names where to stop.
        world_size: processes.
    """

    name: str
    about: str
    n: int
    every: int
    start: tuple[str, ...]
    words: tuple[str, ...]
    resume: str
    stop: str
    world_size: int = 1

    def config(self) -> dict[str, object]:
        """The case file."""
        train = [*self.start, "train.py", *self.words, self.stop, "${EXIT_ITERS}"]
        harness: dict[str, object] = {
            "trainer": "command",
            "command": {"train": train, "resume": [*train, self.resume, "${CHECKPOINT_LOAD_PATH}"]},
        }
        if self.world_size > 1:
            harness["world_size"] = self.world_size
        return {
            "ENV_VARS": {"OMP_NUM_THREADS": "1"},
            "MODEL_ARGS": {"--train-iters": self.n, "--save-interval": self.every},
            "HARNESS": harness,
        }

    def write(self, cases: Path, edits: Edits = ()) -> Path:
        """Write the case and the edited script into ``cases``; the case's folder.

        Raises:
            PlaceError: see :func:`edited`.
        """
        folder = cases / "experiments" / self.name
        folder.mkdir(parents=True)
        (folder / "train.py").write_text(edited((SCRIPTS / f"{self.name}.py").read_text(), edits))
        (folder / "model_config.yaml").write_text(json.dumps(self.config(), indent=1) + "\n")
        return folder


def edited(text: str, edits: Edits) -> str:
    """A script after its edits.

    Raises:
        PlaceError: the lines of one are not there, or are there twice.
    """
    for old, new in edits:
        if text.count(old) != 1:
            raise PlaceError(f"expected once, found {text.count(old)} times: {old!r}")
        text = text.replace(old, new)
    return text


GRU = Script(
    "gru_lm",
    "one process: a GRU with tied embeddings, BatchNorm, a scaler, a carried hidden state; torch.save",
    n=24,
    every=6,
    start=("python",),
    words=(
        "--iters", "${TRAIN_ITERS}", "--ckpt-every", "${SAVE_INTERVAL}",
        "--ckpt-dir", "${CHECKPOINT_SAVE_PATH}", "--log", "${OUTPUT_PATH}/metrics.jsonl",
    ),
    resume="--resume",
    stop="--stop",
)  # fmt: skip
VIT = Script(
    "ddp_vit",
    "torchrun, two ranks: a transformer on pictures, Adafactor by hand, an average of the weights, gradients "
    "accumulated over three; safetensors, JSON and a file a rank",
    n=20,
    every=5,
    start=("torchrun", "--standalone", "--nproc_per_node", "2"),
    words=(
        "--train-steps", "${TRAIN_ITERS}", "--save-steps", "${SAVE_INTERVAL}",
        "--output", "${CHECKPOINT_SAVE_PATH}", "--metrics", "${OUTPUT_PATH}/metrics.jsonl",
    ),
    resume="--resume-from",
    stop="--max-steps-this-run",
    world_size=2,
)  # fmt: skip
BY_NAME = {script.name: script for script in (GRU, VIT)}


@dataclass(frozen=True)
class Fault:
    """What a script loses.

    Args:
        name: of the fault.
        script: the one that loses it.
        component: what is really lost.
        lost: the same in words.
        reference: a report of the like of it.
        edits: of the script.
    """

    name: str
    script: Script
    component: str
    lost: str
    reference: str
    edits: Edits = field(repr=False)


_LOAD_MODEL = '        model.load_state_dict(checkpoint["model"])\n'
_LOAD_OPTIMIZER = '        optimizer.load_state_dict(checkpoint["optimizer"])\n'
_LOAD_SCHEDULER = '        scheduler.load_state_dict(checkpoint["scheduler"])\n'
_SET_RNG = """\
        if self.rng:
            self.set_rng(self.rng)
            self.rng = None
"""

FAULTS = (
    Fault(
        "layer-initialised-again", GRU, "weights", "one layer is initialised again after the load",
        "picotron#32",
        ((_LOAD_MODEL, _LOAD_MODEL + "        model.project.reset_parameters()\n"),),
    ),
    Fault(
        "optimizer-built-again", GRU, "optimizer", "the optimizer is made anew after its state was loaded",
        "OpenNMT-py#617",
        ((_LOAD_SCHEDULER, _LOAD_SCHEDULER + """\
        optimizer = scheduler.optimizer = build_optimizer(model)
        for group, rate in zip(optimizer.param_groups, scheduler.get_last_lr()):
            group.update(lr=rate, initial_lr=args.lr)
"""),),
    ),
    Fault(
        "second-moments-zero", GRU, "optimizer", "the second moments begin at zero, the first ones do not",
        "Megatron-LM#602",
        ((_LOAD_OPTIMIZER, _LOAD_OPTIMIZER + """\
        for state in optimizer.state.values():
            state["exp_avg_sq"].zero_()
"""),),
    ),
    Fault(
        "second-group-lost", GRU, "optimizer", "only the first parameter group gets its state",
        "pytorch#143828",
        ((_LOAD_OPTIMIZER, """\
        first = checkpoint["optimizer"]["param_groups"][0]["params"]
        kept = {i: state for i, state in checkpoint["optimizer"]["state"].items() if i in first}
        optimizer.load_state_dict({**checkpoint["optimizer"], "state": kept})
"""),),
    ),
    Fault(
        "parameters-in-another-order", GRU, "optimizer",
        "parameters are listed in another order than when the moments were saved", "pytorch#1489",
        (("    for name, p in model.named_parameters():\n        (no_decay", """\
    named = list(model.named_parameters())
    if args.resume:
        named[1:9] = named[8:0:-1]
    for name, p in named:
        (no_decay"""),),
    ),
    Fault(
        "batches-tracked-lost", GRU, "buffers", "BatchNorm's count of batches is 0 again", "pytorch#110361",
        ((_LOAD_MODEL, """\
        kept = {k: v for k, v in checkpoint["model"].items() if not k.endswith("num_batches_tracked")}
        model.load_state_dict(kept, strict=False)
"""),),
    ),
    Fault(
        "statistics-never-saved", GRU, "buffers",
        "only parameters are saved, not BatchNorm's running statistics", "torch/nn#1165",
        (
            (_LOAD_MODEL, '        model.load_state_dict(checkpoint["model"], strict=False)\n'),
            ('"model": model.state_dict(),',
             '"model": {k: p.detach() for k, p in model.named_parameters()},'),
        ),
    ),
    Fault(
        "hidden-state-lost", GRU, "buffers", "the hidden state that is carried on begins at zero",
        "torch-rnn#38",
        (('        hidden = checkpoint["hidden"]\n', ""),),
    ),
    Fault(
        "head-untied", GRU, "embedding", "the head is no alias of the embedding any more after the load",
        "pytorch#188346",
        ((_LOAD_MODEL, _LOAD_MODEL + """\
        model.decoder.weight = nn.Parameter(checkpoint["model"]["decoder.weight"].clone())
"""),),
    ),
    Fault(
        "schedule-built-after-load", GRU, "lr-schedule",
        "the schedule is built after the load, and sets the rate of step 0", "torch-points3d#630",
        ((_LOAD_SCHEDULER, "        scheduler = LambdaLR(optimizer, warmup_cosine)\n" + _LOAD_SCHEDULER),),
    ),
    Fault(
        "growth-tracker-lost", GRU, "grad-scaler", "the scaler counts steps without overflow from 0 again",
        "accelerate#4289",
        (('scaler.load_state_dict(checkpoint["scaler"])',
          'scaler.load_state_dict({**checkpoint["scaler"], "_growth_tracker": 0})'),),
    ),
    Fault(
        "position-before-the-batch", GRU, "data-order", "the position is saved as it was before the batch",
        "Lightning#18060",
        (
            ("        x, y, begins = corpus.next_window()\n",
             "        taken = corpus.state_dict()\n        x, y, begins = corpus.next_window()\n"),
            ('"corpus": corpus.state_dict(),', '"corpus": taken,'),
        ),
    ),
    Fault(
        "numpy-stream-lost", GRU, "rng", "NumPy's stream, which drops words, begins again", "DeepSpeed#8460",
        (('        np.random.set_state(checkpoint["rng"]["numpy"])\n', ""),),
    ),
    Fault(
        "streams-of-rank-0", VIT, "rng", "every rank restores the streams of rank 0", "miles#3187",
        (('        self.rng = own["rng"]\n',
          '        self.rng = torch.load(path / "rank_0.pt", weights_only=False)["rng"]\n'),),
    ),
    Fault(
        "average-lost", VIT, "buffers", "the average of the weights begins at the weights", "ace#349",
        (('        self.ema.shadow = load_file(path / "ema.safetensors")\n',
          "        self.ema = EMA(self.model, self.args.ema_decay)\n"),),
    ),
    Fault(
        "partial-gradients-lost", VIT, "optimizer", "gradients that were accumulated in part are dropped",
        "OneTrainer#1465",
        (("""\
        for name, p in self.model.named_parameters():
            if name in own["pending_grads"]:
                p.grad = own["pending_grads"][name]
""", ""),),
    ),
    Fault(
        "sampler-epoch-lost", VIT, "data-order", "the epoch that is gone on with is shuffled as epoch 0",
        "accelerate#4071",
        (("        self.sampler.set_epoch(self.epoch)\n",
          "        if not self.batches_seen:\n            self.sampler.set_epoch(self.epoch)\n"),),
    ),
    Fault(
        "older-checkpoint", VIT, "checkpoint",
        "the newest checkpoint is the last by name: step_5 after step_10", "strands-labs/robots#3165",
        (('return max(found, key=lambda path: int(path.name.split("_")[1]))',
          "return max(found, key=lambda path: path.name)"),),
    ),
    Fault(
        "schedule-one-ahead", VIT, "lr-schedule", "the schedule is one step ahead after the load",
        "Lightning#20495",
        (("""\
        self.last_update = state["last_update"]
        self.apply()
""", """\
        self.last_update = state["last_update"]
        self.step()
"""),),
    ),
    Fault(
        "one-rank-loads", VIT, "weights", "only rank 0 loads the weights; nothing sends them to the other",
        "detectron2#1732",
        (('        self.model.load_state_dict(load_file(path / "model.safetensors"))\n', """\
        if self.rank == 0:
            self.model.load_state_dict(load_file(path / "model.safetensors"))
"""),),
    ),
    Fault(
        "step-count-lost", VIT, "optimizer",
        "the optimizer's count of steps, which sets its decay, is 0 again", "DeepSpeed#5263",
        (("            self.state[name] = values\n",
          '            self.state[name] = values | {"step": 0}\n'),),
    ),
    Fault(
        "half-precision", VIT, "weights", "weights are saved in half precision", "ultralytics#3089",
        (("{k: v.contiguous() for k, v in", "{k: v.half().contiguous() for k, v in"),),
    ),
    Fault(
        "python-stream-never-saved", VIT, "rng", "Python's stream, which flips the pictures, is not saved",
        "transformers#11582",
        (
            ('return {"python": random.getstate(), ', "return {"),
            ('        random.setstate(rng["python"])\n', ""),
        ),
    ),
    Fault(
        "streams-restored-too-early", VIT, "rng",
        "streams are restored before the batches are skipped, which draws from them", "transformers#46628",
        (
            ("        iterator = iter(self.loader)\n", _SET_RNG + "        iterator = iter(self.loader)\n"),
            ("            pass\n" + _SET_RNG, "            pass\n"),
        ),
    ),
    Fault(
        "trained-anew", VIT, "checkpoint",
        "nothing but the step is read: training begins at 0, and logs from k+1 on", "miss-alignment#113",
        (
            ("        trainer.load(args.resume_from)\n", """\
        trainer.resumed_at = int(trainer.latest(args.resume_from).name.split("_")[1])
"""),
            ("        self.rng = None\n        # from here", """\
        self.rng = None
        self.resumed_at = 0
        # from here"""),
            ("        if log:\n", "        if log and self.step > self.resumed_at:\n"),
        ),
    ),
)  # fmt: skip
