"""What a case says that decides the numbers of its uninterrupted run; recorded with a golden.

Whatever nobody knows decides numbers. What does not is left out, with the reason.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from harness.goldens.fingerprints import apart, differs
from harness.machine.secrets import Secrets, is_secret, is_secret_argument

if TYPE_CHECKING:
    from harness.cases import Case

Subject = Mapping[str, Mapping[str, Any]]

#: Arguments, as patterns of their whole names without ``--``.
_IDLE_ARGUMENTS: Final[dict[str, str]] = {
    r"save|load|save-dir|load-dir|output|output-dir|out|results-dir|log-dir|tensorboard-dir|data-cache-path":
        "a path: where, not what",
    r"save-(?:interval|every|steps|freq|retain-interval)|non-persistent-.*|retain-.*":
        "when checkpoints are written changes nothing of what is trained",
    r"ckpt-.*|dist-ckpt-.*|use-dist-ckpt.*|async-.*|use-persistent-ckpt-worker|no-ckpt-.*|auto-detect-ckpt-format":
        "how checkpoints are written; their format is in the fingerprint",
    r"no-save-.*|no-load-.*|override-.*|use-checkpoint-.*|exit-on-missing-checkpoint|resume.*|auto-resume":
        "of saving and loading; an uninterrupted run loads nothing",
    r"exit-.*|stop|stop-at|max-restarts|distributed-timeout-.*": "when a process ends, not what it computes",
    r"log-.*|logging-.*|timing-.*|tensorboard-.*|wandb-.*|one-logger-.*|enable-one-logger|no-one-logger|verbose|quiet"
    r"|profile|profile-.*|use-pytorch-profiler|record-memory-history|memory-snapshot-path|barrier-with-L1-time":
        "what is logged and measured",
    r"master[-_].*|rdzv[-_].*|node[-_]rank|standalone|redirects|tee|local[-_]ranks[-_]filter|start-method":
        "how processes find each other",
    r"num-workers|num-dataset-builder-threads|no-create-attention-mask-in-dataloader":
        "who reads the data, not which",
}  # fmt: skip
_IDLE: Final = re.compile("|".join(_IDLE_ARGUMENTS), re.IGNORECASE)
#: Variables of ENV_VARS that say nothing of numbers: logs, folders, addresses, trackers.
_IDLE_VARIABLES: Final = re.compile(
    r".*_(?:DEBUG|LOG|LOGS|LOGGING|LOG_LEVEL|VERBOSITY|DIR|HOME|CACHE|PATH|FOLDER|FILE|ADDR|PORT|IFNAME|TIMEOUT)"
    r"|(?:WANDB|MLFLOW|COMET|NEPTUNE|ONE_LOGGER|TORCHELASTIC|SLURM|HARNESS)_.*|NCCL_DEBUG.*|PATH|HOME|TMPDIR"
    r"|LD_.*|PYTHON(?:PATH|UNBUFFERED|WARNINGS|FAULTHANDLER|DONTWRITEBYTECODE)|TQDM.*|TERM|LANG|LC_.*"
    r"|TF_CPP_MIN_LOG_LEVEL|NO_COLOR|HF_HUB_OFFLINE|TRANSFORMERS_OFFLINE"
)
#: What the harness puts in place of these is a path, or a place on the way, of one phase.
_OF_A_PHASE: Final = re.compile(
    r"\$\{?(?:TENSORBOARD_PATH|CHECKPOINT_SAVE_PATH|CHECKPOINT_LOAD_PATH|CHECKPOINT_TO_LOAD|OUTPUT_PATH|DATA_CACHE_PATH|LOG_DIR"
    r"|EXIT_ITERS|SAVE_INTERVAL|TRAIN_ITERS)\b"
)
_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_]\w*)\}|\$([A-Za-z_]\w*)")
_STARTS: Final = ("-m", "-c")
_NUMBER: Final = re.compile(r"-\.?\d.*")


def subject_of(case: Case, hardware: str) -> dict[str, dict[str, Any]]:
    """Arguments and variables of the case, recorded with a golden beside the fingerprint of its run.

    Values are the case's own text; a variable of the environment in it is what it stands for, unless that
    is a path or a secret. The code that is under test is not part of it.
    """
    arguments = {str(key): _value(value) for key, value in case.arguments(hardware).items()}
    trainer = case.trainer(hardware)
    if trainer == "command" and case.harness.command is not None:
        kept = {key: value for key, value in arguments.items() if key == "--train-iters"}
        arguments = kept | _by_option(case.harness.command.train)
    if trainer == "native":
        from harness.trainers.native.ignored_arguments import IGNORED

        arguments = {key: value for key, value in arguments.items() if key not in IGNORED}
    return {
        "arguments": {key: value for key, value in sorted(arguments.items()) if _counts(key, value)},
        "variables": {
            key: _expanded(value)
            for key, value in sorted(case.env_vars.items())
            if not is_secret(key) and not _IDLE_VARIABLES.fullmatch(key) and not _OF_A_PHASE.search(value)
        },
    }


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, ...]:
    """In what two provenances are of different trainings, a sentence each."""
    tables = [[one.get(key) for one in (old, new)] for key in ("fingerprint", "subject")]
    known, said = ([found if isinstance(found, dict) else {} for found in pair] for pair in tables)
    of_runs = apart(known[0], known[1]).subject if all(known) else ()
    return (*of_runs, *(subject_apart(said[0], said[1]) if all(said) else ()))


def subject_apart(recorded: Subject, run: Subject) -> tuple[str, ...]:
    """Sentences about what differs; of what the golden does not have there is nothing to compare."""
    found: list[str] = []
    for part, idle in (("arguments", _idle_argument), ("variables", _idle_variable)):
        there, here = recorded.get(part), run.get(part, {})
        if there is None:
            continue
        keys = sorted(key for key in {*there, *here} if not idle(key))
        pairs = ((key, there.get(key), here.get(key)) for key in keys)
        found += [differs(key, one, other) for key, one, other in pairs if not _same(one, other)]
    return tuple(found)


def _idle_argument(key: str) -> bool:
    return bool(_IDLE.fullmatch(key.lstrip("-"))) or is_secret_argument(key)


def _idle_variable(key: str) -> bool:
    return bool(_IDLE_VARIABLES.fullmatch(key)) or is_secret(key)


def _counts(key: str, value: Any) -> bool:  # noqa: ANN401 - text, a flag, or a list of texts
    texts = value if isinstance(value, list) else [value]
    return not _idle_argument(key) and not any(isinstance(t, str) and _OF_A_PHASE.search(t) for t in texts)


def _value(value: Any) -> Any:  # noqa: ANN401 - as a case has it
    if isinstance(value, (tuple, list)):
        return [_expanded(str(one)) for one in value]
    return True if value is True or value == "true" else _expanded(str(value))


def _expanded(text: str) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        found = os.environ.get(name)
        hidden = found is None or os.sep in found or is_secret(name) or _OF_A_PHASE.match(match[0])
        return match[0] if hidden or found is None else found

    return Secrets().text(_VARIABLE.sub(value, text))


def _by_option(words: Iterable[str]) -> dict[str, Any]:
    """The options of a command line, without the program and the script, whose bytes are under test.

    ``name=value`` is an option too, as some have it; words that stand alone are ``words``.
    """
    found: dict[str, list[str]] = {}
    key, script = "", False
    for word in words:
        option, equals, value = word.partition("=")
        if word.startswith("-") and len(word) > 1 and not _NUMBER.fullmatch(word):
            key = option
            found.setdefault(key, []).extend([value] if equals else [])
        elif not script and (word.endswith((".py", ".sh")) or key in _STARTS):
            key, script = "", True
        elif equals and not key and re.fullmatch(r"[+~]*[A-Za-z_][\w./-]*", option):
            found.setdefault(option, []).append(value)
        elif key:
            found[key].append(word)
        elif script:
            found.setdefault("words", []).append(word)
    return {
        option: True if not values else _value(values[0] if len(values) == 1 else values)
        for option, values in found.items()
        if option not in (*_STARTS, "-u")
    }


def _same(recorded: Any, run: Any) -> bool:  # noqa: ANN401 - of a file, and of a case
    """``0.005`` is ``5e-3``, and a flag is ``true``."""
    if isinstance(recorded, list) and isinstance(run, list):
        return len(recorded) == len(run) and all(map(_same, recorded, run))
    if recorded is None or run is None or isinstance(recorded, list) or isinstance(run, list):
        return bool(recorded == run)
    one, other = (str(value).lower() if isinstance(value, bool) else str(value) for value in (recorded, run))
    if one == other:
        return True
    try:
        return float(one) == float(other)
    except ValueError:
        return False
