"""``docs/schemas``: made from the types that read the files, and of one mind with the harness."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.cases import load_case
from harness.errors import CaseError, VerdictError
from harness.verdict.reading import read_verdict
from tests.checkouts import CASE, CONSISTENCY
from tests.made_results import make_cell
from tests.tools import program

ROOT = Path(__file__).parents[1]
SCHEMAS = ROOT / "docs" / "schemas"
CASES = [path for folder in ("test_cases", "tests/faults/cases", "docs/examples")
         for path in sorted((ROOT / folder).rglob("model_config.yaml"))]  # fmt: skip


def refused(schema: str, files: Mapping[str, Path]) -> dict[str, str]:
    """What check-jsonschema, which reads YAML as editors do, finds wrong; by the files' names."""
    done = subprocess.run(
        [program("check-jsonschema"), "--schemafile", SCHEMAS / schema, "--output-format", "json",
         *files.values()], capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = json.loads(done.stdout)
    assert not said.get("parse_errors"), said
    found = {Path(one["filename"]): f"{one['path']}: {one['message']}" for one in said.get("errors", [])}
    assert (done.returncode != 0) == bool(found), done.stdout + done.stderr
    return {name: found[path] for name, path in files.items() if path in found}


def written(folder: Path, texts: Mapping[str, str], name: str) -> dict[str, Path]:
    """Each text as a file of that name, in a folder of its own."""
    files = {}
    for number, (key, text) in enumerate(texts.items()):
        files[key] = folder / "gpt" / f"case_{number}" / name
        files[key].parent.mkdir(parents=True)
        files[key].write_text(text, encoding="utf-8")
    return files


# -- how they are made -----------------------------------------------------------------------------


def test_the_schemas_are_what_the_code_makes_of_its_types() -> None:
    spec = importlib.util.spec_from_file_location("generate_schemas", ROOT / "docs" / "generate_schemas.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    there = {path.name: path.read_text(encoding="utf-8") for path in SCHEMAS.iterdir()}
    assert there == module.schemas(), "run: python docs/generate_schemas.py"


def test_each_schema_is_one_of_2020_12_and_says_of_every_key_what_it_is() -> None:
    for name in ("verdict.json", "model_config.json"):
        schema = json.loads((SCHEMAS / name).read_text())
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        assert schema["$id"]
        assert schema["title"]
        for part in (schema, *schema["$defs"].values()):
            assert part["description"]
        said = [key for part in (schema, schema["$defs"].get("Harness", {}), schema["$defs"].get("Check", {}))
                for key, one in part.get("properties", {}).items() if not one.get("description")]  # fmt: skip
        assert said == []


@pytest.mark.tools
def test_each_schema_is_sound_by_the_schema_of_schemas() -> None:
    words = [program("check-jsonschema"), "--check-metaschema", *map(str, SCHEMAS.iterdir())]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


# -- model_config.yaml -----------------------------------------------------------------------------


@pytest.mark.tools
def test_every_case_is_one_for_the_schema() -> None:
    assert len(CASES) > 15
    assert refused("model_config.json", {str(path): path for path in CASES}) == {}


RIGHT = {
    "megatron's": CASE.format(test_type="ckpt-resume", more="METRICS:\n", n=20, half=10),
    "megatron's with merged mappings": CONSISTENCY,
    "numbers and booleans": "MODEL_ARGS: {--a: 1, --b: 1.5e-5, --c: true, --d: false, --e: , --f: [1, x]}\n"
    "ENV_VARS: {A: 1, B: true, C: , D: text}\nMODE: 1\nMETRICS: [1, lm loss]\n",
    "ours": "HARNESS:\n  trainer: {cpu: command, default: megatron}\n  world_size: 8\n  deterministic: true\n"
    "  profiles: {cpu: {--train-iters: 8, --bf16: false}, h100: }\n  command: {train: [python, t.py, 1]}\n",
    "metrics that are printed": "HARNESS: {trainer: command, command: {train: [a]}, "
    r"metrics: {stdout: '(?P<step>\d+) (?P<loss>\S+)'}}",
    "several such": "HARNESS: {trainer: command, command: {train: [a]}, "
    r"metrics: {stdout: ['(?P<step>\d+) (?P<loss>\S+)', '(?P<step>\d+) val (?P<val_loss>\S+)']}}",
    "ours in short": "HARNESS: {trainer: native, world_size: '8'}\n",
    "nothing below": "HARNESS:\nMODEL_ARGS:\nENV_VARS:\nMODEL_ARGS_2:\nLAUNCHER:\nTEST_TYPE:\n",
    "a base": "BASE_CPU: &cpu {--a: 1}\nMODEL_ARGS: {<<: *cpu}\n",
    "the line that names a schema": "# yaml-language-server: $schema=../a.json\nMODEL_ARGS: {}\n",
}
WRONG = {
    "misspelt": "MODEL_ARG: {--a: 1}\n",
    "misspelt beside": "MODEL_ARGS: {}\nMETRIC: [a]\n",
    "misspelt below": "MODEL_ARGS: {}\nHARNESS: {trianer: native}\n",
    "no hardware": "MODEL_ARGS: {}\nHARNESS: {profiles: {h10: {}}}\n",
    "no hardware for a trainer": "MODEL_ARGS: {}\nHARNESS: {trainer: {gpu: native}}\n",
    "no trainer": "MODEL_ARGS: {}\nHARNESS: {trainer: {cpu: }}\n",
    "no rank": "MODEL_ARGS: {}\nHARNESS: {world_size: 0}\n",
    "half a rank": "MODEL_ARGS: {}\nHARNESS: {world_size: 1.5}\n",
    "maybe": "MODEL_ARGS: {}\nHARNESS: {deterministic: maybe}\n",
    "a shell's words": "MODEL_ARGS: {}\nHARNESS: {command: {train: python t.py}}\n",
    "nothing to start": "MODEL_ARGS: {}\nHARNESS: {command: {resume: [a]}}\n",
    "an empty command": "MODEL_ARGS: {}\nHARNESS: {command: {train: []}}\n",
    "metrics of nothing": "HARNESS: {trainer: command, command: {train: [a]}, metrics: {}}\n",
    "metrics of the wrong file": "HARNESS: {trainer: command, command: {train: [a]}, metrics: {stderr: a}}\n",
    "metrics by no expression": "HARNESS: {trainer: command, command: {train: [a]}, metrics: {stdout: []}}\n",
    "another launcher": "MODEL_ARGS: {}\nLAUNCHER: mpirun\n",
    "a list of arguments": "MODEL_ARGS: [a]\n",
    "no argument": "MODEL_ARGS: {train-iters: 1}\n",
    "a mapping for a value": "MODEL_ARGS: {--a: {b: 1}}\n",
    "a list in a list": "MODEL_ARGS: {--a: [[b]]}\n",
    "no variable": "MODEL_ARGS: {}\nENV_VARS: {a-b: 1}\n",
    "a list for a variable": "MODEL_ARGS: {}\nENV_VARS: {A: [1]}\n",
    "one metric": "MODEL_ARGS: {}\nMETRICS: lm loss\n",
    "a mode that is none": "MODEL_ARGS: {}\nMODE: true\n",
}


@pytest.mark.tools
def test_what_the_harness_takes_the_schema_takes(tmp_path: Path) -> None:
    files = written(tmp_path, RIGHT, "model_config.yaml")
    for path in files.values():
        load_case(path)
    assert refused("model_config.json", files) == {}


@pytest.mark.tools
def test_what_the_harness_refuses_the_schema_refuses(tmp_path: Path) -> None:
    files = written(tmp_path, WRONG, "model_config.yaml")
    for path in files.values():
        with pytest.raises(CaseError):
            load_case(path)
    assert refused("model_config.json", files).keys() == WRONG.keys()


# -- verdict.json ----------------------------------------------------------------------------------


def _set(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(raw: dict[str, Any]) -> None:
        *parents, last = (int(part) if part.isdigit() else part for part in path.split("."))
        place: Any = raw
        for parent in parents:
            place = place[parent]
        place[last] = value

    return change


def _drop(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda raw: raw["checks"][0].pop(key)


BROKEN: dict[str, Callable[[dict[str, Any]], None]] = {
    "a status of its own": _set("status", "green"),
    "no list": _set("checks", None),
    "no object": _set("timing", []),
    "a word for seconds": _set("timing.total", "long"),
    "yes for true": _set("checks.0.passed", "yes"),
    "a step in words": _set("checks.0.first_bad_step", "97"),
    "against luck": _set("checks.0.against", "luck"),
    "no message": _drop("message"),
    "no worst": _drop("worst"),
    "evidence that is no list": _set("diagnosis.evidence", "none"),
}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A verdict as the harness writes it, of a cell that lost something."""
    return (make_cell(tmp_path_factory.mktemp("cell"), lost="experts").folder / "verdict.json").read_text()


def _changed(raw: str, change: Callable[[dict[str, Any]], object]) -> str:
    content: dict[str, Any] = json.loads(raw)
    change(content)
    return json.dumps(content)


@pytest.mark.tools
def test_a_verdict_that_is_written_is_one_for_the_schema_and_so_is_one_of_a_newer_harness(
    raw: str, tmp_path: Path
) -> None:
    sound = make_cell(tmp_path / "sound").folder / "verdict.json"
    texts = {
        "red": raw,
        "green": sound.read_text(),
        "words for numbers": _changed(raw, _set("timing.total", "inf")),
        "more keys": _changed(raw, lambda content: content["checks"][0].update(weight=3)),
        "another kind": _changed(raw, _set("checks.0.kind", "by-hash")),
    }
    files = written(tmp_path, texts, "verdict.json")
    for path in files.values():
        read_verdict(path)
    assert refused("verdict.json", files) == {}


@pytest.mark.tools
def test_a_broken_verdict_is_refused_by_the_harness_and_by_the_schema(raw: str, tmp_path: Path) -> None:
    files = written(
        tmp_path, {name: _changed(raw, change) for name, change in BROKEN.items()}, "verdict.json"
    )
    for path in files.values():
        with pytest.raises(VerdictError):
            read_verdict(path)
    assert refused("verdict.json", files).keys() == BROKEN.keys()


def test_the_line_that_the_how_to_shows_leads_from_a_case_to_the_schema() -> None:
    text = (ROOT / "docs" / "how-to" / "add-a-case.md").read_text()
    (target,) = re.findall(r"# yaml-language-server: \$schema=(\S+)", text)
    assert (CASES[0].parent / target).resolve() == SCHEMAS / "model_config.json"
