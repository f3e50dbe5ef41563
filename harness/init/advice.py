"""A script of a framework that has a page: what it is given, and what it should be changed to take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from harness.init.frameworks import Framework, Role, installed
from harness.init.script import Option, Script
from harness.init.told import Told

_WHAT: Mapping[Role, str] = {
    "save": "where it saves",
    "steps": "how many steps it trains",
    "epochs": "how many epochs it trains",
    "every": "how often it saves",
    "log": "how often it logs",
    "events": "where its log is",
    "metrics": "where its log is",
    "resume": "what it resumes from",
    "save-when": "when it saves",
    "log-when": "when it logs",
    "eval-when": "when it evaluates",
    "eval-every": "how often it evaluates",
    "keep": "how many checkpoints it keeps",
    "endless": "how many epochs it trains",
}
_NUMBERS = ("steps", "epochs", "every", "log", "eval-every", "keep", "endless")
_OFTEN = 50  # steps between two saves that are written down: twice that many are trained


@dataclass(frozen=True)
class Advice:
    """What becomes of what a framework is told.

    Args:
        options: those that the script has, or is advised to have, by role.
        guessed: sentences, with the line of each.
        unseen: what to change, a sentence each.
        variables: for the case's ``ENV_VARS``.
        every: the number of steps between two saves, where it is written down.
        resumes: it goes on from the folder that it saves to, without being told.
        by_itself: its log is found without being told where.
    """

    options: Mapping[Role, Option] = field(default_factory=dict)
    guessed: tuple[tuple[str, int], ...] = ()
    unseen: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    every: int | None = None
    resumes: bool = False
    by_itself: bool = False


def advised(script: Script, name: str) -> Advice:
    """Of a script whose framework is known; nothing of another.

    Args:
        name: the script's, as messages have it.
    """
    framework = script.known
    if framework is None:
        return Advice()
    if script.parsed:
        return _with_its_own_parser(script, framework, name)
    options: dict[Role, Option] = {}
    unseen: list[str] = []
    guessed: list[tuple[str, int]] = []
    every, resumes = None, False
    logs = [one for one in script.told if one.place.role in ("events", "metrics")]
    for one in (*_otherwise(script.told), *_asked(script.told)):
        role = one.place.role
        if one.option:
            continue
        if role == "log" and one.value == 1:
            continue
        if role == "every" and isinstance(one.value, int) and 0 < one.value <= _OFTEN:
            every = one.value
            guessed.append((f"{one.place.keyword}={every} is how often it saves", one.line))
            continue
        if role == "resume" and one.given and one.value not in (None, False):
            resumes = True
            guessed.append((f"{_said(one)} resumes from the folder that it saves to", one.line))
            continue
        if role == "resume" and one.given and one.value is None and one.text not in ("None", ""):
            resumes = True
            guessed.append((f"{_said(one)} finds what it resumes from by itself", one.line))
            continue
        if role in ("events", "metrics") and any(other.given for other in logs if other is not one):
            continue
        if role in ("events", "metrics") and (script.logs or {"events", "metrics"} & set(script.options)):
            continue
        if not one.line and role in ("save", "every") and "save" in script.options:  # in a way of its own
            continue
        if role == "log" and "metrics" in script.options and not any(other.given for other in logs):
            continue
        if role == "metrics" and not one.given and any(other.place.role == "events" for other in logs):
            continue  # one of them is enough
        options[role] = _option(one, script)
        unseen.append(_change(one, options[role], script, name))
    variables, said, by_itself = _log_of(framework, script, name)
    unseen += said
    if framework.seed and not script.seeded:
        unseen.append(
            f"{name}: no seed: what is made at random (a new head, a split) is another in each run: "
            f"begin it with {framework.seed}"
        )
    if unseen and not ({"parse_args", "parse_known_args"} & script.reads or script.options):
        unseen.insert(
            0,
            f"{name} reads no options: begin it with import argparse and parser = argparse.ArgumentParser(), "
            f"then what is added below, then {script.namespace} = parser.parse_args()",
        )
    if by_itself:
        guessed.append((by_itself, 0))
    return Advice(
        options, tuple(guessed), tuple(unseen), variables, every, resumes, by_itself=bool(by_itself)
    )


def framework_words(script: Script, *, folder: str) -> list[str]:
    """What a script is given whose options are its framework's own.

    Args:
        folder: where it saves.
    """
    assert script.known is not None
    words = [word.replace("${CHECKPOINT_SAVE_PATH}", folder) for word in script.known.parser_words]
    if "do_train" in script.reads:
        words.append("--do_train")
    if script.known.name == "transformers":
        words += ["--report_to", "tensorboard"]
        if (installed("transformers") or 5) < 5:
            words += ["--logging_dir", "${TENSORBOARD_PATH}"]
    return words


def _with_its_own_parser(script: Script, framework: Framework, name: str) -> Advice:
    unseen: list[str] = []
    resume = next((one for one in script.told if one.place.role == "resume"), None)
    if resume is not None and resume.line and not resume.given:
        unseen.append(
            f"{name}:{resume.line}: {resume.place.call}() is not told what it resumes from: "
            f"add {resume.place.keyword}=training_args.{resume.place.keyword} ({framework.page})"
        )
    said = f"it has {framework.name}'s own options: where it saves, how long it trains, what it resumes from"
    return Advice({}, ((said, script.parsed),), tuple(unseen), framework.variables, by_itself=True)


def _asked(said: tuple[Told, ...]) -> list[Told]:
    """Those that a script must have; of steps and epochs, where either will do, that which it has."""
    found = [one for one in said if one.place.asked]
    lengths = [one for one in said if one.place.role in ("steps", "epochs") and not one.place.asked]
    if lengths and not any(one.option for one in lengths):
        found.append(next((one for one in lengths if one.given), lengths[-1]))
    return found


def _otherwise(said: tuple[Told, ...]) -> list[Told]:
    """Those that are told something which will not do in the case, and should take it by an option."""
    by_role = {
        one.place.role: one for one in said if one.place.must or one.place.role in ("eval-every", "best")
    }
    found = [one for one in by_role.values() if one.place.must and one.given and not _will_do(one)]
    evaluates = by_role.get("eval-when")
    if evaluates is None or not evaluates.given:
        return found
    if not keeps_the_best(said):
        found = [one for one in found if one is not evaluates]
    every = by_role["eval-every"]
    # The best can only be told at a step that is saved; and without a number it evaluates whenever it logs.
    if keeps_the_best(said) or (_will_do(evaluates) and not every.given):
        found.append(every)
    return found


def keeps_the_best(said: tuple[Told, ...]) -> bool:
    """Whether a checkpoint is chosen by an evaluation, which then must be made wherever one is saved."""
    best = next((one for one in said if one.place.role == "best"), None)
    return best is not None and best.given and best.value is not False


def _will_do(one: Told) -> bool:
    return str(one.value) == one.place.must or one.text.lower().endswith(f".{one.place.must}")


def _option(one: Told, script: Script) -> Option:
    """The option that a script should have; it may have one of that name already."""
    there = next((own for own in script.options.values() if own.flag == one.place.flag), None)
    dest = one.place.flag.lstrip("-").replace("-", "_")
    new = Option(one.place.flag, dest, one.value, is_flag=False, required=False, line=one.line)
    return replace(there, line=one.line) if there else new


def _change(one: Told, option: Option, script: Script, name: str) -> str:
    """What to write instead, and where."""
    place, where = one.place, f"{name}:{one.line}" if one.line else name
    kind = ", type=int" if place.role in _NUMBERS else ""
    written = repr(one.value) if one.value is not None else one.text if place.must else place.default
    default = f", default={written}" if written else ""
    new = f"{place.keyword}={script.namespace}.{option.dest}"
    call = place.call.partition("|")[0].replace(r"\w*", "")
    if one.given:
        said = f"{place.keyword}={one.text} says {_WHAT[place.role]}: write {new} instead"
    elif one.line:
        said = f"{call}(…) does not say {_WHAT[place.role]}: add {new}"
    else:
        said = f"no {call} says {_WHAT[place.role]}: add one with {new}"
    return f"{where}: {said}, and {script.parser}.add_argument({option.flag!r}{kind}{default})".replace(
        "'", '"'
    )


def _said(one: Told) -> str:
    text = one.text if len(one.text) <= 60 else f"{one.text[:57]}..."
    return f"{one.place.keyword}={text}"


def _log_of(framework: Framework, script: Script, name: str) -> tuple[Mapping[str, str], list[str], str]:
    """Variables, what to change, and what finds the log without a change."""
    if framework.name != "transformers":
        return framework.variables, [], ""
    told = {one.place.role: one for one in script.told}
    report, events = told["report"], told["events"]
    written = str(report.value) if report.given else ""
    elsewhere = written and not any(word in written for word in ("tensorboard", "all"))
    old = (installed("transformers") or 5) < 5
    if report.option or (not elsewhere and (written or old)):
        if not old or events.option:
            return framework.variables, [], "TENSORBOARD_LOGGING_DIR says where its event files are"
        asked = replace(events, place=replace(events.place, flag="--logging_dir"))
        return framework.variables, [_change(asked, _option(asked, script), script, name)], ""
    quiet = {"WANDB_MODE": "disabled"} if "wandb" in written or report.value is None else {}
    return quiet, [], "the metrics are read from trainer_state.json, which it saves"
