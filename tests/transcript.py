"""From a script as people write them to a green cell: the transcript of docs/own-repository.md.

``python -m tests.transcript`` goes the way in an empty folder and writes the page's transcript anew; the
test goes it and compares. Numbers differ between processors, and are not compared.
"""

from __future__ import annotations

import difflib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.warm import started_warm, warm_python

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "own-repository.md"
SCRIPT = ROOT / "docs" / "examples" / "own_repository" / "train.py"
BEGIN, END = "<!-- transcript -->", "<!-- /transcript -->"
#: What a run prints beside its verdict: progress, the tables, where files are.
_BESIDE = re.compile(
    r"(waiting|continuous|interrupted|interrupted-again|resumed|trial-\d+|probe|repeat|report|again|state)\b.*"
    r"|check  .*|.*  (exact|present)  .*|recording.*|changed.*|wrote goldens/.*"
)
_NUMBER = re.compile(r"\d[\d.e+-]*|\bnan\b")


@dataclass(frozen=True)
class Step:
    """One thing that is done.

    Args:
        text: what the page says of it.
        edits: what becomes what in the script; each must be there once.
        command: what is typed then.
        status: how it ends.
        holds: what the answer must say.
    """

    text: str
    edits: tuple[tuple[str, str], ...]
    command: tuple[str, ...]
    status: int
    holds: str


STEPS = (
    Step(
        "The script trains, prints its loss every ten steps and overwrites one `ckpt.pt`. It shuffles, and "
        "sets no seed.",
        (),
        ("harness", "init", "train.py"),
        0,
        "no option to stop at a step",
    ),
    Step(
        "It gets an option that ends a launch early, while the schedule still sees `--steps`; and a seed. "
        "The case is written anew.",
        (
            (
                'parser.add_argument("--save-every"',
                'parser.add_argument("--stop", type=int, help="where this launch ends, of all --steps")\n'
                'parser.add_argument("--save-every"',
            ),
            (
                "args = parser.parse_args()\n",
                "args = parser.parse_args()\nlast = args.steps if args.stop is None else args.stop\n"
                "torch.manual_seed(1234)\n",
            ),
            ("while step < args.steps:", "while step < last:"),
            ("step == args.steps:\n", "step == last:\n"),
        ),
        ("harness", "init", "train.py"),
        0,
        "--stop is where a launch ends",
    ),
    Step(
        "Nothing is missing now. Is resuming sound?", (), ("harness", "run", "train"), 1, "may be: data-order"
    ),
    Step(
        "The first step after the resume is off already, and the checkpoint knows neither of the order "
        "of the data nor of random numbers. Both get in: an epoch's order is made from its number, and what "
        "was seen is skipped.",
        (
            (
                'def forever(loader: DataLoader):\n    """Batches, epoch after epoch."""\n    while True:\n'
                "        yield from loader\n",
                'def forever(loader: DataLoader, done: int):\n    """Batches, epoch after epoch, after those '
                'that are done."""\n    epoch, skipped = divmod(done, len(loader))\n    while True:\n'
                "        loader.generator.manual_seed(1234 + epoch)\n"
                "        for number, batch in enumerate(loader):\n            if number >= skipped:\n"
                "                yield batch\n        epoch, skipped = epoch + 1, 0\n",
            ),
            (
                "loader = DataLoader(Windows(4096, args.context), batch_size=args.batch_size, shuffle=True)",
                "data = Windows(4096, args.context)\n"
                "loader = DataLoader(data, args.batch_size, shuffle=True, generator=torch.Generator())",
            ),
            ("batches = forever(loader)", "batches = forever(loader, step)"),
            (
                '    step = checkpoint["step"]\n',
                '    step = checkpoint["step"]\n    torch.set_rng_state(checkpoint["rng"])\n',
            ),
            (
                "        torch.save(checkpoint,",
                '        checkpoint["rng"] = torch.get_rng_state()\n        torch.save(checkpoint,',
            ),
        ),
        ("harness", "run", "train"),
        1,
        "may be: optimizer",
    ),
    Step(
        "Now the first step is right and the second is not: what the update is made of was lost.",
        (
            (
                '    step = checkpoint["step"]\n',
                '    step = checkpoint["step"]\n    optimizer.load_state_dict(checkpoint["optimizer"])\n',
            ),
            (
                "        torch.save(checkpoint,",
                '        checkpoint["optimizer"] = optimizer.state_dict()\n        torch.save(checkpoint,',
            ),
        ),
        ("harness", "run", "train"),
        1,
        "resuming is sound",
    ),
    Step(
        "Resuming is sound. What is left is to record it, so that a change of training is seen too.",
        (),
        ("harness", "run", "train", "--golden-update"),
        1,
        "golden recorded, resuming is sound",
    ),
    Step("", (), ("harness", "run", "train"), 0, "PASSED cpu/dev/train"),
)


def edited(text: str, step: Step) -> str:
    """The script after the edits of a step."""
    for old, new in step.edits:
        assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
        text = text.replace(old, new)
    return text


def walk(place: Path) -> Iterator[tuple[Step, str, str]]:
    """Go the way in ``place``: each step, what it changes in the script, and what its command says."""
    (place / ".git").mkdir(parents=True)
    script = place / "train.py"
    text = SCRIPT.read_text()
    script.write_text(text)
    env = {name: value for name, value in os.environ.items() if name != "CI"}
    env |= {
        "PYTHONPATH": str(ROOT),
        "NO_COLOR": "1",
        "COLUMNS": "110",
        "HARNESS_LEASES": str(place / "leases"),
    }
    with warm_python(place.parent) as door:
        yield from _steps(place, text, env, door)


def _steps(place: Path, text: str, env: dict[str, str], door: Path) -> Iterator[tuple[Step, str, str]]:
    script = place / "train.py"
    for step in STEPS:
        before, text = text, edited(text, step)
        script.write_text(text)
        if step.command[1] == "init":
            for case in (place / "test_cases").rglob("model_config.yaml"):
                case.unlink()
        done = subprocess.run(
            [sys.executable, "-m", *step.command],
            cwd=place, env=env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        for case in (place / "test_cases").rglob("model_config.yaml") if step.command[1] == "init" else ():
            case.write_text(started_warm(case.read_text(), door))
        said = done.stdout + done.stderr
        assert done.returncode == step.status, said
        assert step.holds in said, said
        lines = difflib.unified_diff(before.splitlines(), text.splitlines(), lineterm="", n=0)
        diff = "\n".join(line for line in list(lines)[2:] if not line.startswith("@@"))
        kept = [line for line in said.splitlines() if not _BESIDE.fullmatch(line)]
        text_said = "\n".join(kept).strip().replace(str(place), "…")
        # How the harness is installed where the tests run is nobody's affair.
        yield step, diff, re.sub(r"(?m)^(wrote noxfile\.py):.*$", r"\1", text_said)


def transcript(place: Path) -> str:
    """The page's transcript."""
    parts = []
    for step, diff, said in walk(place):
        parts += [step.text] if step.text else []
        parts += [f"```diff\n{diff}\n```"] if diff else []
        end = f"    # exit status {step.status}" if step.status else ""
        parts += [f"```sh\n{' '.join(step.command)}{end}\n```", f"```text\n{said}\n```"]
    return "\n\n".join(parts)


def alike(text: str) -> str:
    """Without what differs between processors and runs."""
    return _NUMBER.sub("#", re.sub(r"  +", " ", text))


def on_page() -> str:
    """The transcript as the page has it."""
    return PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0].strip()


def main() -> None:
    """Write it anew."""
    with tempfile.TemporaryDirectory() as scratch:
        text = transcript(Path(scratch) / "mine")
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
