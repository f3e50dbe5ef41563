"""The tables: which shapes of checkpoint with which circumstances, and what is lost beside them."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

N, K = 8, 4
SCRIPT = Path(__file__).with_name("script.py")
#: What ``script.py`` can write of its circumstances, and their names; nothing else differs between two runs.
KINDS: dict[str, tuple[str, ...]] = {
    "none": (),  # callbacks that count, progress as text
    "wall_clock": ("saved_at",),
    "elapsed": ("elapsed_s", "time"),
    "milliseconds": ("train_ms",),
    "unix_seconds": ("timestamp",),  # equal in most pairs of runs
    "coarse_2": ("timestamp", "train_runtime"),  # the same, planned: other in the third launch
    "coarse_3": ("timestamp", "train_runtime"),
    "ctime": ("date",),
    "iso": ("created", "info"),
    "host": ("hostname", "rank_hosts"),
    "pid": ("pid",),
    "job": ("SLURM_JOB_ID", "job"),
    "run_id": ("run_id", "wandb"),
    "throughput": ("tokens_per_second", "stats"),
    "gpu_hours": ("gpu_hours", "cost"),
    "folder": (),  # a path below the folder of a phase is the same path in all of them
    "folder_key": (),
    "arguments": ("cli",),
    "nested": ("environment",),
    "history": ("train_time", "samples_per_second"),
    "by_step": ("timings",),
    "text_rate": ("status",),
    "yaml_date": ("date",),
    "txt_date": ("notes.txt",),
    "csv_seconds": ("seconds",),
    "log_dates": ("train.log",),
    "toml_date": ("date",),
    "stamped_file": ("reader-",),
    "objects": ("saved_at", "took", "run_id", "cli", "where"),
    "mixed": (
        "saved_at", "elapsed_s", "run_id", "pid", "info", "tokens_per_second", "train_time",
        "samples_per_second",
    ),
}  # fmt: skip
#: Where a reader may give the same place another name.
MANY = {
    "csv_seconds": ("indices.csv",),
    "yaml_date": ("sampler.yaml:line 2",),
    "toml_date": ("progress.toml:line 2",),
}
#: Whose names tell nothing to look for: they may coincide, or are the same but for the folder.
MAY_COINCIDE = frozenset({"none", "unix_seconds", "coarse_2", "coarse_3", "ctime", "folder", "folder_key"})
_DATA = (
    "none", "wall_clock", "elapsed", "milliseconds", "unix_seconds", "coarse_2", "coarse_3", "ctime", "iso",
    "host", "pid", "job", "run_id", "throughput", "gpu_hours", "folder", "folder_key", "arguments", "nested",
    "history", "by_step", "text_rate", "mixed",
)  # fmt: skip
_BESIDE = ("yaml_date", "txt_date", "csv_seconds", "log_dates", "toml_date", "stamped_file")
#: A shape, how its runs come to their end, and the kinds that are tried in it.
TABLE: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("numbered", "stops", _DATA),
    ("folder", "stops", (*_BESIDE, "mixed", "history", "folder_key")),
    ("beside", "stops", (*_BESIDE, "mixed", "unix_seconds")),
    ("last", "stops", ("wall_clock", "coarse_2", "history", "folder", "mixed")),
    ("pair", "stops", ("job", "by_step", "mixed")),
    ("stamped", "stops", ("none", "mixed")),
    ("pickled", "stops", ("objects", "arguments", "mixed")),
    ("torch", "stops", ("objects", "folder_key", "mixed")),
    ("torch_pair", "stops", ("mixed",)),
    ("numbered", "ends", ("history", "mixed")),  # the whole run is there before it is pre-empted
    ("folder", "lingers", ("mixed",)),
    ("beside", "lingers", ("mixed",)),
    ("numbered", "goes_on", ("folder", "mixed")),  # saves in the folder that it was resumed from
)


@dataclass(frozen=True)
class Sound:
    """A sound script with circumstances in its checkpoints.

    Args:
        shape: in which files it saves.
        ending: ``stops`` where it is told to; ``ends`` or ``lingers`` until it is pre-empted; ``goes_on`` in
            the folder that it loads from.
        kind: of circumstance.
    """

    shape: str
    ending: str
    kind: str

    @property
    def name(self) -> str:
        """Of the case."""
        how = "" if self.ending == "stops" else f"_{self.ending}"
        return f"{self.shape}{how}_{self.kind}"

    @property
    def circumstances(self) -> tuple[str, ...]:
        """Parts of the names of all that may differ."""
        return KINDS[self.kind]

    def words(self, save: str, out: str, *, stop: str) -> list[str]:
        """Of the command line, but for ``--load``."""
        words = ["--shape", self.shape, "--kind", self.kind, "--iters", str(N), "--every", str(K)]
        words += ["--save", save, "--out", out]
        words += ["--linger", "2.5"] if self.ending == "lingers" else []
        return words if self.ending in ("ends", "lingers") else [*words, "--stop", stop]


@dataclass(frozen=True)
class Fault:
    """A real loss in a script with circumstances, and nothing else lost.

    Args:
        shape, ending: of the case, whose circumstances are mixed.
        lose: what the script does not put back.
        shown: what a failed check must say, which is the name of the lost entry.
        kind: of the circumstances, where they stand in the same place as the loss.
    """

    shape: str
    lose: str
    shown: str
    ending: str = "stops"
    kind: str = "mixed"

    @property
    def case(self) -> Sound:
        """The same, sound."""
        return Sound(self.shape, self.ending, self.kind)

    @property
    def name(self) -> str:
        """Of the fault."""
        return f"{self.case.name}: {self.lose}"


SOUND = tuple(Sound(shape, ending, kind) for shape, ending, kinds in TABLE for kind in kinds)
#: What is lost, and the name of its entry. A name that waives state would hide most of them.
_BOOKS = {
    "consumed_train_samples": "consumed_train_samples", "tokens_seen": "tokens_seen", "consumed": "consumed",
    "duration": "duration", "version": "version", "epoch": "epoch",
    "best_metric": "best_metric", "loss_average": "loss_average", "noise_key": "noise_key",
    "warmed_up": "warmed_up", "last_eval": "last_eval", "cursor": "cursor", "seen_shards": "seen_shards",
    "streams": "position", "shown": "progress", "calls": "calls", "best_model": "best_model",
    "a record": "log_history", "a value": "log_history", "a score": "best_k_models",
    "best_k_models": "best_k_models",
}  # fmt: skip
_FILES = {
    "position": "position", "samples_read": "notes.txt", "rows": "indices.csv", "shard": "shard",
    "lines": "train.log", "reader": "reader", "linked": "linked",
    "sampler.yaml": "sampler.yaml", "notes.txt": "notes.txt", "reader.json": "reader.json",
}  # fmt: skip


def _of(shape: str, losses: dict[str, str], **more: str) -> tuple[Fault, ...]:
    return tuple(Fault(shape, lose, shown, **more) for lose, shown in losses.items())


def _some(*names: str) -> dict[str, str]:
    return {name: _BOOKS.get(name) or _FILES[name] for name in names}


FAULTS = (
    *_of("numbered", _BOOKS),
    *_of("folder", _FILES),
    *_of("folder", {"blob": "rng.bin", "hidden": "hidden", "rng.bin": "rng.bin", "index.json": "index.json",
                    ".loader.json": ".loader.json"}),
    *_of("folder", _some("tokens_seen", "epoch", "a record")),
    *_of("beside", _FILES | {"state.json": "state.json"}),
    *_of("last", _some("consumed", "tokens_seen", "shown", "a score")),
    *_of("pair", _some("consumed_train_samples", "duration", "best_metric")),
    *_of("stamped", _some("tokens_seen", "a value")),
    *_of("pickled", _some("consumed_train_samples", "tokens_seen", "a record", "seen_shards", "shown")),
    *_of("pickled", {"offset": "offset", "seen_words": "seen_words", "window": "window"}),
    *_of("torch", _some("consumed_train_samples", "cursor", "a score")),
    *_of("torch", {"updates": "updates"}),
    *_of("torch", {"offset": "offset"}, kind="objects"),
    *_of("torch_pair", {"updates": "updates", "tokens_seen": "tokens_seen"}),
    # In the same place as what is none.
    *_of("numbered", _some("a score"), kind="folder_key"),
    *_of("numbered", _some("a value", "a record"), kind="history"),
    *_of("folder", _some("position"), kind="yaml_date"),
    *_of("folder", _some("shard"), kind="toml_date"),
    *_of("folder", _some("samples_read"), kind="txt_date"),
    *_of("folder", _some("rows"), kind="csv_seconds"),
    *_of("folder", _some("lines"), kind="log_dates"),
    *_of("folder", {"reader": "reader"}, kind="stamped_file"),
    *_of("pickled", _some("tokens_seen"), kind="objects"),
    *_of("numbered", _some("tokens_seen", "epoch"), kind="coarse_2"),
    *_of("last", _some("duration", "epoch"), kind="coarse_2"),
    # However the run ended.
    *_of("numbered", _some("consumed", "epoch"), ending="ends"),
    *_of("folder", _some("tokens_seen", "position"), ending="lingers"),
    *_of("beside", _some("reader"), ending="lingers"),
    *_of("numbered", _some("tokens_seen", "a score"), ending="goes_on"),
)  # fmt: skip


def write_case(sound: Sound, cases: Path) -> Path:
    """The case file and the script beside it; its folder."""
    folder = cases / "circumstances" / sound.name
    save, load = "${CHECKPOINT_SAVE_PATH}", "${CHECKPOINT_LOAD_PATH}"

    def command(save: str) -> list[str]:
        return ["python", "train.py", *sound.words(save, "${OUTPUT_PATH}", stop="${EXIT_ITERS}")]

    resumed = load if sound.ending == "goes_on" else save
    commands = {"train": command(save), "resume": [*command(resumed), "--load", load]}
    config = {
        "MODEL_ARGS": {"--train-iters": N, "--save-interval": K},
        "HARNESS": {"trainer": "command", "command": commands},
    }
    # Another worker may run a script of this very folder: what is there is never written again.
    if not folder.exists():
        made = Path(tempfile.mkdtemp(dir=_made(cases)))
        shutil.copy(SCRIPT, made / "train.py")
        (made / "model_config.yaml").write_text(json.dumps(config, indent=1) + "\n")
        _made(folder.parent)
        with contextlib.suppress(OSError):  # made meanwhile
            made.rename(folder)
    return folder


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
