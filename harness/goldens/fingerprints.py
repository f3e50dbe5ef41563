"""What a run was made on and with, split by what it means for a comparison with a golden.

The *environment* (device, libraries, numerics) chooses the lane. Where both have measured what bits their
operations give (``numerics``, :mod:`harness.machine.numerics`), that decides, whatever the machines are
called. The *subject* (precision, layout, arguments, data, switches of determinism) is what is under test:
another one is no reason to compare less closely, it is a finding. Of the *version* of the code under test
only a note is made: that it changes is what runs are for. What changes a *cost* and no bits decides whether
memory and times are judged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

Kind = Literal["environment", "version", "circumstance", "cost", "subject"]

#: The digests of a run's operations, by name.
NUMERICS: Final = "numerics"
#: The one of them that gives other numbers, not only other roundings of the same.
RANDOM: Final = "random numbers"
#: Keys of a fingerprint that say on what, by the reason why they may change bits and are not under test.
_ENVIRONMENT: Final[dict[str, tuple[str, ...]]] = {
    "the machine": (
        "platform", "device", "devices", "device_name", "gpu", "gpus", "gpu_name", "cpu",
        "cpu_name", "cpus", "cores", "machine", "arch", "architecture", "os", "kernel", "system",
        "driver", "cuda_driver", "sm", "capability", "compute_capability", "cpu_capability",
        "cuda_capability",
    ),
    "how many threads share a sum": ("threads", "num_threads", "interop_threads"),
    "which kernels and collectives are taken": ("cublas_workspace", "backend", "comm", "cpu_switches"),
    "what bits the operations give": (NUMERICS,),
    "a library": (
        "torch", "pytorch", "numpy", "python", "cuda", "cudnn", "cublas", "nccl", "rccl", "rocm",
        "hip", "mkl", "onednn", "openmp", "transformer_engine", "te", "apex", "flash_attn",
        "flash_attention", "xformers", "triton", "deepspeed", "transformers", "accelerate",
        "lightning", "pytorch_lightning", "composer", "datasets", "tokenizers", "safetensors",
        "bitsandbytes", "torchvision", "torchaudio", "torchao", "jax", "jaxlib", "flax",
        "tensorflow", "scipy", "pandas", "container", "image", "libc", "glibc", "mosaicml",
        "mosaicml_streaming", "torchmetrics", "torchdata", "torchtitan", "mmengine", "diffusers", "keras",
        "nemo_toolkit", "optax", "orbax_checkpoint", "peft", "sentence_transformers", "timm", "trl",
        "unsloth",
    ),
}  # fmt: skip
_ENVIRONMENT_KEYS: Final = {key: reason for reason, keys in _ENVIRONMENT.items() for key in keys}
#: Variables of libraries: the machine's, unless the case sets them (then they are recorded with it).
_SWITCHES: Final = re.compile(
    r"(?:aten|mkl|omp|kmp|onednn|dnnl|cublas|cudnn|cuda|nccl|nvte|tf32|xla|hip)_\w+"
)
#: The code under test; what the native trainer's own tests and a release change.
_VERSIONS: Final = frozenset({
    "trainer_version", "version", "commit", "git_commit", "git_sha", "git_hash", "git_revision",
    "git", "sha", "revision", "branch", "git_branch", "tag", "code", "code_version",
    "megatron_core", "megatron_lm", "harness",
})  # fmt: skip
#: What memory and times depend on and bits do not: torch 2.13.0 for CUDA computes on a CPU what the build
#: without does, and takes 500 MB where that takes 330.
_COSTS: Final = frozenset({"torch_build"})
#: What no two runs share, and a script may write down all the same.
_CIRCUMSTANCES: Final = frozenset({
    "host", "hostname", "node", "node_name", "nodename", "user", "username", "pid", "cwd", "folder",
    "path", "output", "output_path", "output_dir", "log_dir", "save_dir", "time", "date",
    "datetime", "timestamp", "start", "started", "start_time", "started_at", "end", "end_time",
    "ended", "finished", "created", "created_at", "duration", "elapsed", "seconds", "run", "run_id",
    "run_name", "id", "uuid", "job", "job_id", "jobid", "slurm_job_id", "ip", "port", "master_addr",
    "master_port", "rendezvous", "url",
})  # fmt: skip


def kind_of(key: str) -> Kind:
    """What a key of a fingerprint is; one that nobody knows is under test."""
    name = re.sub(r"[^a-z0-9]+", "_", key.lower()).strip("_")
    if name in _VERSIONS:
        return "version"
    if name in _CIRCUMSTANCES:
        return "circumstance"
    if name in _COSTS:
        return "cost"
    bare = name.removesuffix("_version").removeprefix("version_")
    if bare in _ENVIRONMENT_KEYS or _SWITCHES.fullmatch(name):
        return "environment"
    return "subject"


@dataclass(frozen=True)
class Apart:
    """How two fingerprints differ.

    Args:
        environment: sentences; any of them and bits cannot be expected to be the same.
        versions: sentences; they change nothing.
        costs: sentences; any of them and memory and times say nothing of each other.
        subject: sentences; any of them and it is not the same training.
        names: sentences about environments that are called otherwise, and give the same bits.
        operations: those that do not give the same bits, in the order of a training step.
    """

    environment: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    costs: tuple[str, ...] = ()
    subject: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()


def apart(recorded: Mapping[str, Any], run: Mapping[str, Any]) -> Apart:
    """Compare the fingerprint of a golden with a run's, key by key.

    What a run says of its subject and the golden does not was not recorded: there is nothing to compare.
    """
    found: dict[Kind, list[str]] = {kind: [] for kind in get_args(Kind)}
    for key in sorted({*recorded, *run} - {NUMERICS}):
        there, here = recorded.get(key), run.get(key)
        kind = kind_of(key)
        if there == here or (kind == "subject" and key not in recorded):
            continue
        if kind == "subject":
            found[kind].append(differs(key, there, here))
        else:
            found[kind].append(f"{key} {there!r} there, {here!r} here")
    named = tuple(found["environment"])
    versions, costs, subject = tuple(found["version"]), tuple(found["cost"]), tuple(found["subject"])
    shared = _shared(recorded.get(NUMERICS), run.get(NUMERICS))
    if not shared:  # nobody has measured: names are all there is
        return Apart(named, versions, costs, subject)
    operations = tuple(name for name, (there, here) in shared.items() if there != here)
    measured = (_measured(operations, len(shared)),) if operations else ()
    return Apart((*measured, *named) if measured else (), versions, costs, subject, named, operations)


def _shared(recorded: object, run: object) -> dict[str, tuple[object, object]]:
    """Digests of the operations that both have measured; one that only one has is no witness."""
    if not isinstance(recorded, Mapping) or not isinstance(run, Mapping):
        return {}
    return {str(name): (recorded[name], digest) for name, digest in run.items() if name in recorded}


def _measured(operations: tuple[str, ...], of: int) -> str:
    more = f", as do {len(operations) - 1} more of {of} operations" if len(operations) > 1 else ""
    return f"numerics: {operations[0]!r} gives other bits{more}"


def differs(what: str, recorded: object, run: object) -> str:
    """One difference of a subject, for a person; None stands for what is not there."""
    if recorded is None:
        return f"{what}: recorded without, run with {_shown(run)}"
    if run is None:
        return f"{what}: recorded with {_shown(recorded)}, run without"
    return f"{what}: recorded with {_shown(recorded)}, run with {_shown(run)}"


def _shown(value: object) -> str:
    if isinstance(value, (list, tuple)):
        value = " ".join(map(str, value))
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 80 else text[:77] + "…"
