"""Which component of the training state a name belongs to."""

from __future__ import annotations

import re
from collections.abc import Collection

_NATIVE = {
    "model": "weights", "buffer": "buffers", "optimizer": "optimizer", "scheduler": "lr-schedule",
    "grad_scaler": "grad-scaler", "rng": "rng", "data": "data-order", "iteration": "iteration",
}  # fmt: skip
TIED_COPY = "output_layer.weight"
TIED_SOURCE = "embedding.word_embeddings.weight"
_RATES = {"lr", "min_lr", "max_lr"}

#: The first pattern found in a foreign name decides. Words are runs of letters, joined by blanks.
_FOREIGN = (
    ("rng", r"rngs?|random|generator states?|generator$|mt|seed state"),
    ("grad-scaler", r"\w*scaler|loss scale|grad scale"),
    ("lr-schedule", r"\w*sched|\w*scheduler|lrs?|learning rate|warmup"),
    (
        "data-order",
        r"\w*sampler|\w*loader|data|dataset|\w*consumed|epochs?|cursor|shuffle|position$"
        r"|batch (?:idx|index|num|number|count|progress|size)|(?:samples|tokens|batches) seen"
        r"|(?:seen|num) (?:samples|tokens|batches)(?: seen)?$",
    ),
    (
        "optimizer",
        r"\w*optim\w*|opt|exp avg|momentum|adam\w*|param groups|moments?|velocity|masters?",
    ),
    (
        "buffers",
        r"running (?:mean|var)|num batches tracked|ema|buffers?|amax|scale inv|extra state"
        r"|(?:hidden|recurrent|carried|memory)(?: states?)?$|hx$|mems$",
    ),
    ("experts", r"experts?|router|moe|gating"),
    ("embedding", r"embed\w*|lm head|output layer|unembed\w*|wte|wpe"),
    ("iteration", r"iterations?|iter|steps?|so far$"),
    ("weights", r"\w*weights?|bias|biases|model|module|net|network|state dict|params?|parameters?"),
)
_FOREIGN_PATTERNS = tuple(
    (component, re.compile(rf"(?:^| )(?:{words})(?: |$)")) for component, words in _FOREIGN
)
#: Arguments that a script keeps beside its state speak of nothing that could be lost, whatever words they
#: have; but those that say how far training has come.
_ARGUMENT = re.compile(r"args\.(?P<name>.+)", re.DOTALL)
#: What frameworks keep them in beside their state.
_SETTINGS = re.compile(r"(?:datamodule_)?(?:hyper_parameters|hparams)(?:\..+)?", re.DOTALL)
_SETTINGS_FILE = re.compile(
    r"(?:.*/)?(?:training_args\.bin|(?:adapter_|generation_|tokenizer_)?config\.json|tokenizer\.json|vocab\.json"
    r"|special_tokens_map\.json|(?:pre)?processor_config\.json|hparams\.yaml)"
)
#: What Lightning names a callback's state by beside what is in it: how it was told to save, `every_n_epochs`.
_CALLBACK = re.compile(r"(?<=^callbacks\.)(?:ModelCheckpoint)?|(?<=\w)\{'\w+': [^{}]*\}(?=\.)")
#: How such names end: `rng_state_0.pth`, `optimizer_state_dict.pt`, `random_states_rank3.pkl`.
_ENDS = r"(?:_?states?)?(?:_dict)?(?:[_.-]?(?:rank)?[_-]?\d+)*\.\w+"
#: What the Trainer has logged: it says how training went, and is nothing that could be lost.
_LOG = re.compile(r"log_history(?:\..+)?", re.DOTALL)
_LOG_FILE = re.compile(r"(?:.*/)?trainer_state\.json")
#: A file that has one component alone says so in its own name: `rng_state_0.pth`, `random_states_0.pkl`,
#: `scheduler.bin`, `sampler_1.bin`, `dl_state_dict.bin`. What is in it has names as plain as `last_epoch`.
_FILES = tuple(
    (component, re.compile(rf"(?:.*/)?(?:{words}){_ENDS}", re.IGNORECASE))
    for component, words in (
        ("rng", r"(?:(?:torch|cuda|numpy|python|cpu|gpu)_)*(?:rng|random)"),
        ("grad-scaler", r"(?:(?:grad|loss|amp)_)?scaler"),
        ("lr-schedule", r"(?:(?:lr|learning_rate)_)?sched(?:uler)?s?"),
        ("buffers", r"(?:model_)?(?:ema|swa|polyak|averaged?)(?:_(?:model|weights|params|shadow))?"),
        ("data-order", r"(?:(?:train|data|batch|distributed)_?)*(?:sampler|loader|dl_state)"),
    )
)
_PROGRESS = (
    (
        "data-order",
        re.compile(
            r"(?:consumed|skipped|seen|processed)_(?:\w+_)?(?:samples|tokens|sequences|batches|bins)"
            r"|(?:samples|tokens|sequences|batches)_(?:consumed|skipped|seen|processed)"
            r"|(?:cur_|curr_|current_)?(?:epoch|position|cursor)"
        ),
    ),
    ("iteration", re.compile(r"(?:cur_|curr_|current_|global_)?(?:iteration|iter|step)|\w+_so_far")),
)
#: The object in which Megatron-LM keeps what other versions of it have in ``common.pt``.
_COMMON = re.compile(r"common_state/shard_\d+(?:\.\d+)*_\d+(?:\.\d+)*\.")
#: Files of an optimizer: a parameter in it is a master, and its steps are its own.
_OPTIMIZER_FILE = re.compile(
    r"(?:.*/)?(?:layer_wise_optimizer_\d+\.pt|(?:distrib_)?optim(?:izer)?" + _ENDS
    + r"|(?:bf16_|fp16_)?zero_pp_rank_\d+_mp_rank_\d+_optim_states\.pt)"
)  # fmt: skip
_OF_AN_OPTIMIZER = ("weights", "embedding", "experts", "buffers", "iteration", "unknown")
_PER_RANK = re.compile(r"^rng\..*\.\d+_\d+_\d+$")
#: Megatron-LM's: the place of the rank among how many, (pipeline, tensor).
_RANK_S_OWN = re.compile(r"rng_state/shard_(?P<rank>[\d.]+_\d+(?:\.\d+)?)(?![\d])")


def all_native(names: Collection[str]) -> bool:
    """Whether these are the names of a checkpoint of the native trainer, all of them."""
    return "iteration" in names and all(name.partition(".")[0] in _NATIVE for name in names)


def is_per_rank(name: str) -> bool:
    """Whether a native name is one rank's own: ``rng.<stream>.<tp>_<pp>_<dp>``."""
    return bool(_PER_RANK.match(name))


def rank_of_object(name: str) -> str | None:
    """Whose own an object of a ``torch_dist`` checkpoint is, of how many: random streams; None for others."""
    found = _RANK_S_OWN.match(name)
    return found["rank"] if found else None


def tied_source(name: str) -> str | None:
    """The name that a tied copy must equal; None for everything else."""
    if name == TIED_COPY or name.endswith("." + TIED_COPY):
        return name.removesuffix(TIED_COPY) + TIED_SOURCE
    return None


def of_parameter(name: str) -> str:
    """Component of a parameter: ``weights``, ``embedding`` or ``experts``."""
    parts = name.split(".")
    if "experts" in parts or "router" in parts:
        return "experts"
    if parts[0] in ("embedding", "output_layer"):
        return "embedding"
    return "weights"


def native(name: str) -> str:
    """Component of a native name: ``<kind>.<rest>``."""
    kind, _, rest = name.partition(".")
    if kind == "model":
        return of_parameter(rest)
    if kind == "buffer" and "expert_bias" in rest.split("."):
        return "experts"
    if kind == "optimizer" and rest.startswith("group.") and rest.rpartition(".")[2] in _RATES:
        return "lr-schedule"
    return _NATIVE.get(kind, "unknown")


def key_of(name: str) -> str:
    """What a name is called in the nest that it is of: what all ranks share may be an object of its own."""
    return name[found.end() :] if (found := _COMMON.match(name)) else name


def is_argument(key: str) -> bool:
    """Whether a name, without its file's, is an argument's that says nothing of how far training has come."""
    return key == "args" or (bool(_ARGUMENT.fullmatch(key)) and _progress(key) is None)


def foreign(name: str, file: str = "") -> str:
    """Component that the words of somebody else's name speak of; ``unknown`` when none do.

    Args:
        name: without its file's.
        file: that file, relative to the checkpoint.
    """
    if is_argument(name) or _SETTINGS.fullmatch(name) or _SETTINGS_FILE.fullmatch(file):
        return "unknown"
    if _LOG.fullmatch(name) and _LOG_FILE.fullmatch(file):
        return "unknown"
    of_file = next((found for found, pattern in _FILES if pattern.fullmatch(file)), None)
    if of_file:
        return of_file
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", _CALLBACK.sub("", name))
    words = " ".join(re.findall(r"[a-z]+", spaced.lower()))
    of_words = next((found for found, pattern in _FOREIGN_PATTERNS if pattern.search(words)), "unknown")
    found = _progress(name) or of_words
    return "optimizer" if found in _OF_AN_OPTIMIZER and _OPTIMIZER_FILE.fullmatch(file) else found


def _progress(key: str) -> str | None:
    """The component of an argument that says how far training has come; None for any other name."""
    match = _ARGUMENT.fullmatch(key)
    names = ((found, pattern.fullmatch(match["name"])) for found, pattern in _PROGRESS) if match else ()
    return next((found for found, matched in names if matched), None)
