"""The case of a script, from what can be told of it; what was guessed, and what could not be seen."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.init.advice import advised, framework_words, keeps_the_best
from harness.init.printed import Printed
from harness.init.script import Option, Saved, Script

#: Where the lines of code are that a message speaks of.
PAGE = "docs/resume-bit-for-bit.md"
_STEPS, _EPOCHS = 40, 4  # N where the script does not say; a loss moves within it, and it takes seconds
_STEPS_IN_AN_EPOCH = 10  # where an epoch is counted in steps, which nobody can tell without the data
_PLAIN = re.compile(r"[A-Za-z0-9_./=-]+")


@dataclass(frozen=True)
class Guess:
    """A case, and how it came about.

    Args:
        text: of its ``model_config.yaml``.
        guessed: a sentence each, with the line of the script.
        unseen: what is missing, and what to do; a sentence each.
    """

    text: str
    guessed: tuple[str, ...]
    unseen: tuple[str, ...]


def guess(script: Script, root: Path) -> Guess:
    """The case that starts ``script`` from the repository's ``root``."""
    writer = _Writer(script, root)
    return Guess(writer.text(), tuple(writer.guessed), tuple(writer.unseen))


class _Writer:
    def __init__(self, script: Script, root: Path) -> None:
        self.script = script
        self.guessed: list[str] = []
        self.unseen: list[str] = []
        self.name = os.path.relpath(script.path.absolute(), root.absolute())
        self.advice = advised(script, self.name)
        self.options: dict[str, Option] = dict((*script.options.items(), *self.advice.options.items()))
        self.n, self.every = self._iterations()
        self.k = self.n // 2
        self.save_name = next((one.name for one in script.saves if one.name), None)

    def option(self, role: str) -> Option | None:
        return self.options.get(role)

    def say(self, words: str, line: int | None = None) -> None:
        self.guessed.append(f"{self.name}:{line}: {words}" if line else f"{self.name}: {words}")

    # -- parts ---------------------------------------------------------------------------------

    def _iterations(self) -> tuple[int, int]:
        if self._epochs_in_steps():
            return _EPOCHS * _STEPS_IN_AN_EPOCH, (self.advice.every or 1) * _STEPS_IN_AN_EPOCH
        every = self.advice.every or (self.script.every if not self.option("every") else None)
        if every and every <= 5000:
            k = max(every, 2 if self._of_epochs() else 1)
            self.say(f"saves every {every} steps: N is {2 * k}, stopped and resumed at {k}")
            return 2 * k, every
        default = next((one.default for one in (self.option("steps"), self.option("epochs")) if one), None)
        most = _EPOCHS if self._of_epochs() else _STEPS
        n = default if isinstance(default, int) and 4 <= default <= most else most
        n -= n % 4
        return n, n // 2

    def _of_epochs(self) -> bool:
        """Whether an iteration is an epoch."""
        return self.option("epochs") is not None and self.option("steps") is None

    def _epochs_in_steps(self) -> bool:
        known = self.script.known
        return known is not None and known.logs_steps and self._of_epochs()

    def text(self) -> str:
        train, resume = self._train(), self._resume()
        lines = [
            f"# Written by `harness init {self.name}`; docs/command-trainer.md has every key.",
            "TEST_TYPE: ckpt-resume",
            "MODEL_ARGS:",
            f"  --train-iters: {self.n}  # N, the iterations of a whole run",
            f"  --save-interval: {self.every}  # it is stopped and resumed after "
            + ("this many" if self.k == self.every else str(self.k)),
            *self._variables(),
            "HARNESS:",
            "  trainer: {default: command}",
            "  command:",
            "    cwd: ${REPOSITORY}",
            f"    train: [{', '.join(map(_word, train))}]",
            f"    resume: [{', '.join(map(_word, resume))}]",
        ]
        expression = self._metrics()
        if expression:
            lines += ["  metrics:", f"    stdout: {_quoted(expression)}"]
        self._remarks()
        return "\n".join(lines) + "\n"

    def _variables(self) -> list[str]:
        lines = [f"  {name}: {_word(value)}" for name, value in self.advice.variables.items()]
        return ["ENV_VARS:", *lines] if lines else []

    def _begin(self) -> list[str]:
        known = self.script.known
        return [*(known.launcher if known else ("python",)), self.name]

    def _train(self) -> list[str]:
        words = self._begin()
        if self.script.parsed:
            self._asks_for()
            return [*words, *framework_words(self.script, folder="${CHECKPOINT_SAVE_PATH}")]
        steps, epochs = self.option("steps"), self.option("epochs")
        if steps:
            words += [steps.flag, "${TRAIN_ITERS}"]
            self._say_of(steps, "steps", "is the number of iterations")
        elif epochs and self._epochs_in_steps():
            words += [epochs.flag, str(_EPOCHS)]
            self._say_of(epochs, "epochs", f"is how long it trains: {_EPOCHS} epochs")
            self.unseen.append(
                f"how many steps an epoch has: {_STEPS_IN_AN_EPOCH} stand for them in the case, where "
                f"--train-iters is {_EPOCHS} epochs and --save-interval {self.every // _STEPS_IN_AN_EPOCH}"
            )
        elif epochs:
            words += [epochs.flag, "${TRAIN_ITERS}"]
            self._say_of(epochs, "epochs", "is the number of iterations: an iteration is an epoch here")
        else:
            self.unseen.append(
                f"no option for the number of steps: {self.name} must train {self.n} steps; let it take "
                "--steps, and give it ${TRAIN_ITERS}"
            )
        for role, value, said in (
            ("stop", "${EXIT_ITERS}", "is where a launch ends"),
            ("save-when", "steps", "is when it saves: after a number of steps"),
            ("every", "${SAVE_INTERVAL}", "is how often it saves"),
            ("endless", "-1", "is how many epochs it trains: the steps say it"),
            ("keep", "-1", "is how many checkpoints it keeps: all"),
            ("eval-when", "steps", "is when it evaluates: where it saves"),
            ("eval-every", "${SAVE_INTERVAL}", "is how often it evaluates"),
            ("log-when", "steps", "is when it logs: after a number of steps"),
            ("log", "1", "is how often it logs: at every step"),
            ("metrics", "${OUTPUT_PATH}", "is the folder of its log"),
            ("events", "${TENSORBOARD_PATH}", "is the folder of its event files"),
            ("report", "tensorboard", "is where it logs to"),
        ):
            option = self.option(role)
            if role == "eval-when" and not keeps_the_best(self.script.told):
                continue
            if option:
                words += [option.flag, value]
                self._say_of(option, role, said)
        self._asks_for()
        return [*words, *self._saving("${CHECKPOINT_SAVE_PATH}")]

    def _say_of(self, option: Option, role: str, said: str) -> None:
        """Unless it is one that the script is advised to have: then that is said."""
        if role not in self.advice.options:
            self.say(f"{option.flag} {said}", option.line)

    def _asks_for(self) -> None:
        for option in self.script.others:
            asked = f"{self.name}:{option.line} asks for {option.flag}"
            self.unseen.append(f"{asked}, and what it is cannot be told: give it in `train` and `resume`")

    def _saving(self, folder: str, *, quiet: bool = False) -> list[str]:
        option = self.option("save")
        if option is None:
            return []
        saved = next((one for one in self.script.saves if option.dest in one.below), None)
        default = Path(str(option.default or ""))
        is_file = saved.name is None if saved else bool(default.suffix)
        is_file = is_file and self.script.known is None  # theirs are folders
        name = default.name if default.suffix else "checkpoint.pt"
        if not quiet:
            self._say_of(option, "save", f"is the {'file' if is_file else 'folder'} that it saves to")
        if is_file:
            self.save_name = name
        return [option.flag, f"{folder}/{name}" if is_file else folder]

    def _resume(self) -> list[str]:
        option, train = self.option("resume"), self._train_again()
        if self.script.known:
            return self._resume_known(option, train)
        if option is None:
            own = self._loads_own()
            if own:
                self.say("resumes from the folder that it saves to, where there is a checkpoint", own.line)
                return self._same(train, "${CHECKPOINT_LOAD_PATH}")
            self.unseen.append(
                "no option to resume with: let it take --resume with the checkpoint, load all that it saved, "
                f"and give it ${{CHECKPOINT_LOAD_PATH}} in `resume` ({PAGE})"
            )
            return train
        if option.is_flag:
            self.say(f"{option.flag} resumes from the folder that it saves to", option.line)
            return [*self._same(train, "${CHECKPOINT_LOAD_PATH}"), option.flag]
        loaded = next((one for one in self.script.loads if option.dest in one.below), None)
        is_file = loaded.name is None if loaded else self.save_name is not None and "{" not in self.save_name
        path = "${CHECKPOINT_LOAD_PATH}"
        if is_file and self.save_name:
            path += f"/{_filled(self.save_name, self.k)}"
        self.say(f"{option.flag} is the {'file' if is_file else 'folder'} that it resumes from", option.line)
        return [*train, option.flag, path]

    def _resume_known(self, option: Option | None, train: list[str]) -> list[str]:
        """In the folder that it saved to, as such scripts do."""
        known = self.script.known
        assert known is not None
        if self.script.parsed:
            words = [*self._begin(), *framework_words(self.script, folder="${CHECKPOINT_LOAD_PATH}")]
            return [*words, *known.parser_resume]
        train = self._same(train, "${CHECKPOINT_LOAD_PATH}")
        if option is None:
            return train
        if option.is_flag:
            self._say_of(option, "resume", "resumes from the folder that it saves to")
            return [*train, option.flag]
        told = next((one for one in self.script.told if one.place.role == "resume"), None)
        in_folder = told is not None and bool(re.search(known.finds, told.made_of))
        self._say_of(
            option, "resume", f"is the {'folder' if in_folder else 'checkpoint'} that it resumes from"
        )
        return [*train, option.flag, "${CHECKPOINT_LOAD_PATH}" if in_folder else "${CHECKPOINT_TO_LOAD}"]

    def _train_again(self) -> list[str]:
        said, self.guessed, unseen, self.unseen = self.guessed, [], self.unseen, []
        try:
            return self._train()
        finally:
            self.guessed, self.unseen = said, unseen

    def _same(self, train: list[str], folder: str) -> list[str]:
        """With what it saves to where it was resumed from."""
        saving = self._saving(folder, quiet=True)
        if not saving:
            return train
        at = train.index(saving[0])
        return [*train[:at], *saving, *train[at + 2 :]]

    def _loads_own(self) -> Saved | None:
        option = self.option("save")
        return next((one for one in self.script.loads if option and option.dest in one.below), None)

    def _metrics(self) -> str:
        if self.option("metrics") or self.option("events") or self.advice.by_itself:
            return ""
        if self.script.logs:
            self.say("it logs by harness.log")
            return ""
        if self.script.writes_metrics:
            self.unseen.append(
                "event files or metrics.jsonl are written, and no option says where: let one be given "
                "${TENSORBOARD_PATH} or ${OUTPUT_PATH}"
            )
            return ""
        epochs = self._of_epochs()
        printed = _best([one for one in self.script.prints if epochs or not one.of_epoch])
        if printed is None:
            self.unseen.append(
                "no line is printed with a step and a loss: add import harness, and where a step is done "
                'harness.log(step, loss=loss); or print(f"step {step} loss {loss.item()}")'
            )
            return ""
        self.say("the metrics are read from this line", printed.line)
        return printed.expression

    def _remarks(self) -> None:
        script = self.script
        self.unseen += self.advice.unseen
        for said, line in self.advice.guessed:
            self.say(said, line or None)
        if script.known:
            return
        if self.unseen and not ({"parse_args", "parse_known_args"} & script.reads or script.options):
            self.unseen.insert(
                0,
                f"{self.name} reads no options: begin it with import argparse and parser = "
                'argparse.ArgumentParser(), then parser.add_argument("--steps", type=int) and its like for '
                "what is missing below, then args = parser.parse_args()",
            )
        if script.framework not in ("plain torch", "none"):
            self.unseen.append(
                f"{self.name} uses {script.framework}, whose own saving and resuming is not known here"
            )
        if not script.saves and script.framework == "plain torch":
            self.unseen.append("no call of torch.save: what is not saved cannot be resumed from")
        elif script.saves and not self.option("save"):
            saved = script.saves[0]
            self.unseen.append(
                f"no option for the folder to save to ({self.name}:{saved.line} saves "
                f"{saved.name or 'somewhere'}): let it take --out, and give it ${{CHECKPOINT_SAVE_PATH}}"
            )
        names = [self.save_name, *(one.name for one in script.loads)]
        fixed = next((name for name in names if name and "{" not in name), None)
        if script.distributed:
            self.unseen.append(
                f"{self.name} makes a process group: start it in `train` and `resume` with torchrun in the "
                'place of python, [torchrun, --standalone, --nproc_per_node, "2", …], and say world_size: 2 '
                "below HARNESS"
            )
        if not self.option("stop") and fixed:
            self.unseen.append(
                f"no option to stop at a step, and {fixed} has no step in its name, so nobody can "
                f"tell when the checkpoint of {self.k} is there: let it take --stop and end there, and give "
                f"it ${{EXIT_ITERS}} ({PAGE})"
            )
        elif not self.option("stop"):
            self.say("has no option to stop at a step: it is ended when its checkpoint is there")
        if not script.seeded and "torch" in script.imports and script.framework == "plain torch":
            self.unseen.append(
                f"no seed: two runs differ from the first step on; call torch.manual_seed ({PAGE})"
            )


def _best(printed: Sequence[Printed]) -> Printed | None:
    """That of an epoch, where those count; the line with most losses; of equals the first."""
    return max(printed, key=lambda one: (one.of_epoch, one.expression.count("(?P<")), default=None)


def _filled(name: str, k: int) -> str:
    """``ckpt_{:06d}.pt`` → ``ckpt_000020.pt``: what the script's own format makes of the iteration."""

    def number(match: re.Match[str]) -> str:
        spec = (match[1] or "").lstrip(":")
        return format(k, spec) if re.fullmatch(r"0?\d{0,2}d?", spec) else str(k)

    return re.sub(r"\{(:[^}]*)?\}", number, name)


def _word(word: str) -> str:
    plain = _PLAIN.fullmatch(word) and not word.lstrip("-").replace(".", "").isdigit()
    return word if plain else json.dumps(word)


def _quoted(text: str) -> str:
    """In YAML's single quotes, in which a backslash is one."""
    return "'" + text.replace("'", "''") + "'"
