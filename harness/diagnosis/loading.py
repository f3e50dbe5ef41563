"""Did a resumed phase end in loading its checkpoint, and what of it could not be loaded?

By what the exception says, and by the frames that it went through; nothing is guessed from where no word is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from harness.errors import Frame, Raised


def _any(*words: str) -> re.Pattern[str]:
    return re.compile(f"(?i){'|'.join(words)}")


#: The machine's fault, or the installation's: nothing that a checkpoint could have done.
_OUTSIDE: Final = _any(
    r"out of memory", r"can(?:not|'t) allocate memory", r"address already in use", "eaddrinuse",
    "failed to listen", "no space left", "disk quota exceeded", "too many open files", "input/output error",
    "stale file handle", "resource temporarily", "no cuda gpus", "cuda driver", "cuda error", "cublas_status",
    "cudnn_status", "hip error", "invalid device ordinal", "nvidia driver", "nvml", "nccl error",
    "not compiled with cuda", r"cuda\.is_available\(\) is false",
)  # fmt: skip
_OUTSIDE_KINDS: Final = (
    "OutOfMemoryError", "MemoryError", "ConnectionError", "ConnectionRefusedError", "ConnectionResetError",
    "DistNetworkError", "DistStoreError", "DistBackendError", "TimeoutError", "KeyboardInterrupt",
    "SignalException", "SystemExit", "SyntaxError", "IndentationError", "TabError",
)  # fmt: skip
_NOT_INSTALLED: Final = ("ImportError", "ModuleNotFoundError")

#: Loading: by the name of a function, or by what a line of code calls.
_LOADS: Final = _any(
    r"(?:^|_)(?:load|restore|resume|deserialize|unpickle)(?:$|_)", r"^load", "unpickl", "set_rng_state",
    r"set_(?:\w+_)?state(?:_dict)?$", "setstate", "read_metadata", "from_checkpoint",
)  # fmt: skip
_CALLS: Final = _any(
    r"\bload(?:_\w+)?\(", r"\.load_", "load_state_dict", r"restore\w*\(", r"resume\w*\(",
    r"set_\w*state\w*\(", r"setstate\(", r"from_checkpoint\(", r"safe_open\(",
)  # fmt: skip
#: Loading data, a tokenizer or a library is none of a checkpoint.
_OF_ELSE: Final = _any(
    "load_(?:dataset|data|tokenizer|library|module|config|yaml|kernels?|extension|image)", r"json\.loads?\(",
    r"\bnp\.load\(", r"numpy\.load\(", r"yaml\.\w*load", "tomllib", "load_inline", "exec_module",
    "_find_and_load", "_load_unlocked", "dataloader",
)  # fmt: skip
_DATA_STATE: Final = _any(r"(?:loader|sampler|dataset|iterator)\w*\.(?:load|set)_state")
_KINDS: Final = ("CheckpointException", "CheckpointingException", "UnpicklingError", "SafetensorError")

#: A file that is not whole, or is not there.
_TORN: Final = _any(
    "pytorchstreamreader", "zip archive", "central directory", "invalid magic number", "unpickl",
    "ran out of input", "truncated", "headertoo", "incompleteheader", "metadataincomplete", "invalid header",
    "checksum", "corrupt", "unexpected eof", "end of file", "no such file", "not a directory",
    "is a directory", "weights.only",
)  # fmt: skip
_TORN_KINDS: Final = (
    "UnpicklingError", "EOFError", "BadZipFile", "SafetensorError", "FileNotFoundError", "IsADirectoryError",
    "NotADirectoryError",
)  # fmt: skip
#: A program that ends without an exception, and says why.
_UNABLE: Final = _any(
    r"(?:unable|failed|cannot|can't|could ?n[o']t) (?:to )?(?:load|restore|resume)\b.{0,120}"
    r"(?:checkpoint|snapshot|state|optimizer|weights|\.pt\b|\.ckpt\b)"
)


@dataclass(frozen=True)
class _Part:
    """How a part of a training state is spoken of.

    Args:
        component: what it is called here.
        said: in a message.
        loaded: in a line of code that loads it, or in the file of a function that does.
        key: what it is kept under.
    """

    component: str
    said: re.Pattern[str]
    loaded: re.Pattern[str]
    key: re.Pattern[str]


def _called(names: str, *others: str) -> re.Pattern[str]:
    """``names.load_…(``, also where it is one of several."""
    return _any(rf"\b(?:{names})(?:\[[^\]]*\])?\.(?:load_|set_)", *others)


#: The first that fits is taken: a schedule's sentences speak of its optimizer too.
_PARTS: Final = (
    _Part(
        "weights",
        _any(r"error\(s\) in loading state_dict for", r"size mismatch for \S+: copying a param"),
        _called(r"\w*model\w*|ddp|net|module", r"nn/modules/module\.py$"),
        _any("^(?:model|model_state|model_state_dict|state_dict|weights|module)$", r"\.(?:weight|bias)$"),
    ),
    _Part(
        "lr-schedule",
        _any("optimizerparamscheduler", "opt_param_scheduler", "lr_?scheduler", "learning.rate schedul"),
        _called(r"\w*sched\w*", r"lr_scheduler\.py$", r"param_scheduler\.py$"),
        _any("sched"),
    ),
    _Part(
        "grad-scaler",
        _any("grad_?scaler", "loss.scaler?"),
        _called(r"\w*scaler\w*", r"grad_scaler\.py$"),
        _any("scaler"),
    ),
    _Part(
        "optimizer",
        _any("optimizer", "parameter groups?", "param_groups?", "exp_avg"),
        _called(r"\w*optim\w*|opt", "torch/optim/", "core/optimizer/", r"/\w*optim\w*\.py$"),
        _any("optim", "^opt$", "exp_avg", "param_groups"),
    ),
    _Part(
        "rng",
        _any("rng.?state", "random.?(?:number )?state", "rng.?tracker", "random stream"),
        _any(
            "set_rng_state", "set_(?:cuda_)?rng", r"random\.set_?state", "get_cuda_rng_tracker", "rng_state"
        ),
        _any("rng", "random"),
    ),
    _Part(
        "data-order",
        _any("data.?loader.?state", "sampler", "consumed.(?:train.)?samples"),
        _DATA_STATE,
        _any("sampler", "loader", "consumed", "dataset"),
    ),
    _Part(
        "iteration",
        _any("iteration count"),
        _any(r"(?!)"),
        _any("^(?:iter|iteration|iterations|step|steps|global_step|epoch)$"),
    ),
)


def could_not_load(raised: Raised | None, load: str) -> str | None:
    """What a resumed phase could not load: a component; None where it did not end in loading its checkpoint.

    Args:
        raised: what ended it; None where nothing was raised: it was killed, or left without a word.
        load: the folder that it was to load from.
    """
    chain = list(raised.chain()) if raised is not None else []
    if any(_of_outside(one) for one in chain) or not any(_is_of_loading(one, load) for one in chain):
        return None
    return _component(chain)


def said_unable(words: str) -> str | None:
    """The same, of the last words of a program that ended without an exception."""
    if not _UNABLE.search(words) or _OUTSIDE.search(words):
        return None
    return _component([Raised("", words)])


def _name(raised: Raised) -> str:
    return raised.kind.rpartition(".")[2]


def _of_outside(raised: Raised) -> bool:
    if _name(raised) in _NOT_INSTALLED:
        # A pickle may name a class of a module that is gone; any other import is the installation's.
        return not any("torch/serialization" in one.file or "pickle" in one.file for one in raised.frames)
    return _name(raised) in _OUTSIDE_KINDS or bool(_OUTSIDE.search(raised.message))


def _is_of_loading(raised: Raised, load: str) -> bool:
    if _name(raised) in _KINDS or (load and load in raised.message):
        return True
    return any(_loads(frame) for frame in raised.frames)


def _loads(frame: Frame) -> bool:
    if _DATA_STATE.search(frame.source):
        return True
    if _OF_ELSE.search(frame.function) or _OF_ELSE.search(frame.source):
        return False
    return bool(_LOADS.search(frame.function) or _CALLS.search(frame.source))


def _component(chain: Sequence[Raised]) -> str:
    """What the exception names: in its words, else by the frames that it went through, else by its key."""
    began_first = chain[::-1]
    if any(_name(one) in _TORN_KINDS or _TORN.search(one.message) for one in began_first):
        return "checkpoint"
    for one in began_first:
        said = [part.component for part in _PARTS if part.said.search(one.message)]
        if said and _name(one) != "KeyError":
            return said[0]
    for one in began_first:
        for text in _innermost_first(one):
            loaded = {part.component for part in _PARTS if part.loaded.search(text)}
            if len(loaded) == 1:
                return loaded.pop()
    for one in began_first:
        key = one.message.strip("'\" ") if _name(one) == "KeyError" else ""
        kept = [part.component for part in _PARTS if key and part.key.search(key)]
        if kept:
            return kept[0]
    return "checkpoint"


def _innermost_first(raised: Raised) -> Iterator[str]:
    """The lines of code that load, and the files of functions that do."""
    for frame in reversed(raised.frames):
        if _loads(frame):
            yield frame.source
            if _LOADS.search(frame.function):
                yield frame.file
