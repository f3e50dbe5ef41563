"""``docs/schemas``: JSON schemas of verdict.json and model_config.yaml, made from the types that read them.

``python docs/generate_schemas.py`` writes them; a test says whether that was forgotten.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, get_args

import msgspec

FOLDER = Path(__file__).parent / "schemas"
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]  # installed or not

from generate_reference import arguments
from harness.cases import HarnessKeys, keys
from harness.checks import Check, Kind, Worst
from harness.diagnosis import COMPONENTS, Diagnosis
from harness.verdict import file as verdict_file
from harness.verdict import Verdict

#: Whose docstrings say what the keys mean, by the name of the type in the file.
SAID = {
    "Verdict": Verdict,
    "Check": Check,
    "Worst": Worst,
    "Diagnosis": Diagnosis,
    "Harness": HarnessKeys,
}
#: What the harness passes over in a case file, as far as names can be told from misspelt ones without looking.
PASSED_OVER = rf"^(?:{keys.THEIRS_ALIKE.pattern}|BASE_[A-Z0-9_]+|THROUGHPUT_TEST_PARAMS)$"


def schemas() -> dict[str, str]:
    """File names and their content."""
    verdict = document("verdict", "verdict.json", verdict_file.Verdict)
    verdict["$defs"]["Check"]["properties"]["kind"]["examples"] = list(get_args(Kind))
    case = document("model_config", "model_config.yaml", keys.CaseFile)
    case |= {"patternProperties": {PASSED_OVER: {}}, "additionalProperties": False}
    found = {"verdict.json": verdict, "model_config.json": case}
    return {name: json.dumps(schema, indent=2, ensure_ascii=False) + "\n" for name, schema in found.items()}


def document(name: str, title: str, kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The schema of a type, with all that it is made of."""
    _, made = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    made = {key: plain(schema) for key, schema in made.items()}
    for key, schema in made.items():
        said = arguments(SAID[key]) if key in SAID else {}
        if said and set(said) != set(schema["properties"]):
            raise ValueError(
                f"{key}: the file and {SAID[key]} differ by {set(said) ^ set(schema['properties'])}"
            )
        for one, text in said.items():
            text = text.replace("None", "null").replace("COMPONENTS", ", ".join(COMPONENTS))
            schema["properties"][one]["description"] = text
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:resume-harness:schema:{name}",
        **made.pop(kind.__name__),
        "title": title,
        "$defs": dict(sorted(made.items())),
    }


def plain(schema: Any) -> Any:
    """The same in fewer words, and in the same order whichever version of msgspec made it."""
    if isinstance(schema, list):
        return [plain(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: plain(value) for key, value in schema.items() if value or key != "default"}
    if "anyOf" in found:
        parts = found.pop("anyOf")
        types = {kind for one in parts if set(one) == {"type"} for kind in listed(one["type"])}
        if "number" in types:
            types -= {"integer"}
        others = sorted((one for one in parts if set(one) != {"type"}), key=json.dumps)
        simple = {"type": sorted(types) if len(types) > 1 else types.pop()} if types else {}
        if others:
            found["anyOf"] = [*([simple] if simple else []), *others]
        else:
            found |= simple
    return found


def listed(kind: str | list[str]) -> list[str]:
    """One type or several, as a list."""
    return [kind] if isinstance(kind, str) else kind


def main() -> None:
    """Write them."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in schemas().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(FOLDER / name)


if __name__ == "__main__":
    main()
