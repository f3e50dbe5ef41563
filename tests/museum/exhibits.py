"""The exhibits: a real release with a real resume bug, and beside it a sound one.

Versions and references are facts of the trackers; the scripts are ours, written as their users write them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(__file__).parent / "scripts"
_OWN_LOG = ("--own-log", "${OUTPUT_PATH}/metrics.jsonl")
_EARLY = ("--patience", "4", "--rows", "256")
_TRAINER = ("transformers==4.57.6", "torchdata==0.11.0", "tensorboard")


@dataclass(frozen=True)
class Release:
    """What is installed, and what the script is told beside.

    Args:
        pins: requirements; without one of torch, torch is the track ``dev``'s.
        words: of the command line.
    """

    pins: tuple[str, ...]
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Exhibit:
    """One bug, or one sound release that must be green.

    Args:
        name: of it.
        script: below ``scripts/``.
        about: what is lost, or what is peculiar.
        faulty: the release that loses it; None for one that is only sound.
        sound: one that does not; None where none was released, or the fault is nobody's but the script's.
        components: any of which is a right answer.
        reference: the tracker's number, or where it is told.
        python: of both environments.
        save_interval: of the case; N is 40.
        env: variables of the case.
    """

    name: str
    script: str
    about: str
    faulty: Release | None = None
    sound: Release | None = None
    components: tuple[str, ...] = ()
    reference: str = ""
    python: str = "3.11"
    save_interval: int = 20
    env: tuple[tuple[str, str], ...] = ()


EXHIBITS = (
    Exhibit(
        "trainer-epoch-of-the-sampler", "fine_tune.py",
        "the sampler's epoch is 0 again: the first epoch's order is repeated",
        Release((*_TRAINER, "accelerate==1.13.0")), Release((*_TRAINER, "accelerate==1.15.0")),
        ("data-order",), "accelerate#4071",
    ),
    Exhibit(
        "trainer-rows-skipped-twice", "fine_tune.py",
        "rows are skipped twice, or in the first epoch's order",
        Release(("transformers==4.32.1", "accelerate==0.22.0", "numpy<2", "tensorboard")),
        Release(("transformers==4.29.2", "accelerate==0.19.0", "numpy<2", "setuptools<80", "tensorboard")),
        ("data-order",), "transformers#25340",
    ),
    Exhibit(
        "trainer-rng-at-an-epoch-boundary", "fine_tune.py",
        "the random state is not loaded at the end of an epoch",
        Release(("torch==1.12.1", "transformers==4.18.0", "numpy<2", "tensorboard", "setuptools<70", "six"),
                ("--by-epoch", "--rows", "80")),
        Release(("torch==1.12.1", "transformers==4.20.1", "numpy<2", "tensorboard", "setuptools<70", "six"),
                ("--by-epoch", "--rows", "80")),
        ("rng",), "transformers#17032", python="3.10",
    ),
    Exhibit(
        "trainer-masks-before-the-rng", "fine_tune.py",
        "the first mask is drawn before the random state is restored",
        Release((*_TRAINER, "accelerate==1.15.0"), ("--masked", "--rows", "256")),
        Release((*_TRAINER, "accelerate==1.15.0"), ("--rows", "256")),
        ("rng",), "transformers#39215",
    ),
    Exhibit(
        "trainer-early-stopping", "fine_tune.py",
        "early stopping counts from 0 again, and training goes on",
        Release((*_TRAINER, "accelerate==1.15.0"), _EARLY),
        Release((*_TRAINER, "accelerate==1.15.0"), (*_EARLY, "--restore-callbacks")),
        ("buffers",), "transformers#28544", save_interval=5,
    ),
    Exhibit(
        "accelerate-seedable-sampler", "no_trainer.py",
        "the seedable sampler's epoch is not saved",
        Release((*_TRAINER, "accelerate==1.15.0")),
        Release((*_TRAINER, "accelerate==1.15.0"), ("--set-epoch",)),
        ("data-order",), "accelerate#3996",
    ),
    Exhibit(
        "lightning-batch-progress", "lightning_module.py",
        "the batch's progress is saved before it is counted",
        Release(("lightning==2.4.0", "setuptools<80", "tensorboard"), _OWN_LOG),
        Release(("lightning==2.6.6", "tensorboard"), _OWN_LOG),
        ("data-order",), "Lightning#18060",
    ),
    Exhibit(
        "stateful-loader-draws-once-more", "loop.py",
        "an iterator that is built after the restore draws a seed more",
        Release(("torchdata==0.11.0", "numpy==2.2.6"), ("--stateful-loader",)), None,
        ("rng",), "torchdata 0.11.0",
    ),
    Exhibit(
        "scheduler-overwrites-the-rate", "loop.py",
        "building SequentialLR overwrites the restored rate",
        Release(("numpy==2.2.6",), ("--warm-up", "optimizer-first")),
        Release(("numpy==2.2.6",), ("--warm-up", "scheduler-first")),
        ("lr-schedule",), "pytorch#119168",
    ),
    Exhibit(
        "lightning-steps-from-zero", "lightning_module.py", "its loggers count steps from 0; metrics.csv",
        sound=Release(("lightning==2.6.6",), ("--csv", "${OUTPUT_PATH}")),
    ),
    Exhibit(
        "deepspeed-zero", "zero.py", "ZeRO-1 in bf16, its own scheduler, `latest`",
        sound=Release(("deepspeed==0.19.8", "setuptools<80", "numpy==2.2.6")),
        env=(("DS_ACCELERATOR", "cpu"), ("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1"),
             ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "29611")),
    ),
    Exhibit(
        "orbax-manager", "manager.py", "OCDBT",
        sound=Release(("jax==0.10.2", "optax==0.2.8", "orbax-checkpoint==0.12.8", "numpy==2.2.6")),
        env=(("JAX_PLATFORMS", "cpu"),),
    ),
)  # fmt: skip
