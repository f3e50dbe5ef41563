"""Case files: what is read, what is refused, and what every phase gets of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cases import find_case, load_case
from harness.cases.arguments import substitute, to_argv
from harness.errors import CaseError, UsageError
from tests.checkouts import CASE, CONSISTENCY

MODEL = "MODEL_ARGS:\n  --train-iters: 20\n  --save-interval: 5\n  --tensor-model-parallel-size: 2\n"

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def one(text: str, name: str = "a_case", family: str = "gpt") -> Path:
        folder = tmp_path / family / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model_config.yaml").write_text(text, encoding="utf-8")
        return folder

    return one


def refused(folder: Path) -> str:
    with pytest.raises(CaseError) as error:
        load_case(folder)
    assert str(folder / "model_config.yaml") in error.value.message
    assert "\n" not in str(error.value)
    return str(error.value)


# -- what is understood ------------------------------------------------------------------------


def test_case_of_megatron_is_read_as_its_text_stands(write: Write) -> None:
    more = "METRICS:\n  - lm loss\nMODEL_ARGS_2:\n  --train-iters: 20\n  --lr: 2.0e-5\n"
    case = load_case(write(CASE.format(test_type="ckpt-resume", more=more, n=20, half=10)))
    assert (case.name, case.family, case.test_type, case.launcher) == (
        "a_case",
        "gpt",
        "ckpt-resume",
        "ft_launcher",
    )
    assert case.metrics == ("lm loss",)
    assert case.env_vars["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert case.env_vars["CUDA_DEVICE_MAX_CONNECTIONS"] == "1"
    arguments = case.arguments("h100")
    assert arguments["--lr"] == "1.0e-5"  # not 1e-05
    assert arguments["--split"] == "949,50,1"
    assert arguments["--bf16"] is True
    assert case.arguments("h100", resumed=True) == {"--train-iters": "20", "--lr": "2.0e-5"}
    assert case.trainer("h100") == "megatron"
    assert case.trainer("cpu") == "native"


def test_merged_mappings_and_further_model_args_are_megatrons(write: Write) -> None:
    case = load_case(write(CONSISTENCY))
    assert dict(case.model_args) == {
        "--seed": "${REPEAT}", "--train-iters": "1", "--micro-batch-size": "1",
        "--tensor-model-parallel-size": "1",
    }  # fmt: skip
    assert case.model_args_2 is not None
    assert case.model_args_2["--micro-batch-size"] == "2"  # its own wins over the merged one
    assert set(case.others) == {"MODEL_ENV_VARS", "BASE_MODEL_ARGS", "MODEL_ARGS_3"}


def test_first_of_two_merged_mappings_wins(write: Write) -> None:
    text = "BASE_A: &a {--x: 1, --y: 1}\nBASE_B: &b {--x: 2, --z: 2}\nMODEL_ARGS:\n  <<: [*a, *b]\n"
    assert dict(load_case(write(text)).model_args) == {"--x": "1", "--y": "1", "--z": "2"}


def test_yes_and_on_are_words_as_for_yq(write: Write) -> None:
    case = load_case(
        write("MODEL_ARGS:\n  --a: on\n  --b: yes\n  --c: no\n  --d: True\n  --e: 'true'\n  --f: false\n")
    )
    assert dict(case.model_args) == {
        "--a": "on",
        "--b": "yes",
        "--c": "no",
        "--d": "True",
        "--e": "true",
        "--f": False,
    }


def test_world_size_is_the_product_of_the_parallel_sizes_or_what_the_case_says(write: Write) -> None:
    sizes = MODEL + "  --pipeline-model-parallel-size: 3\n  --context-parallel-size: 2\n"
    assert load_case(write(sizes)).world_size("h100") == 12
    assert load_case(write(sizes + "HARNESS: {world_size: 24}\n")).world_size("h100") == 24


def test_profile_overlays_one_hardware_and_takes_arguments_away(write: Write) -> None:
    profile = "HARNESS:\n  profiles:\n    cpu: {--train-iters: 8, --bf16: false, --new: [a, b]}\n"
    case = load_case(write(MODEL + "  --bf16: true\n" + profile))
    assert case.arguments("h100")["--bf16"] is True
    assert "--bf16" not in case.arguments("cpu")
    assert case.arguments("cpu")["--new"] == ("a", "b")
    assert (case.train_iters("cpu"), case.train_iters("h100")) == (8, 20)


@pytest.mark.parametrize(("n", "interval", "k"), [(100, "50", 50), (20, "5", 10), (20, "8", 8), (9, None, 4)])
def test_k_is_the_last_save_at_or_before_half(write: Write, n: int, interval: str | None, k: int) -> None:
    saves = f"  --save-interval: {interval}\n" if interval else ""
    assert load_case(write(f"MODEL_ARGS:\n  --train-iters: {n}\n{saves}")).resume_at("cpu") == k


def test_nondeterministic_is_what_nvte_or_the_case_says(write: Write) -> None:
    assert load_case(write(MODEL)).deterministic("h100")
    loose = MODEL + "ENV_VARS: {NVTE_ALLOW_NONDETERMINISTIC_ALGO: 1}\n"
    assert not load_case(write(loose)).deterministic("h100")
    assert load_case(write(loose + "HARNESS: {deterministic: true}\n")).deterministic("h100")


def test_short_form_of_the_trainer_means_everywhere(write: Write) -> None:
    case = load_case(write("HARNESS:\n  trainer: command\n  command: {train: [python, t.py]}\n"))
    assert {case.trainer(hardware) for hardware in ("cpu", "h100")} == {"command"}
    assert case.harness.command is not None
    assert case.harness.command.train == ("python", "t.py")


# -- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("MODEL_ARG:\n  --a: 1\n", "MODEL_ARG: no such key is known — did you mean MODEL_ARGS?"),
        ("MODEL_ARGS: {}\nMETRIC: [a]\n", "METRIC: no such key is known — did you mean METRICS?"),
        ("MODEL_ARGS: {}\nmodel_args_2: {}\n", "model_args_2: no such key is known"),
        (
            "MODEL_ARGS: {}\nHARNESS: {trianer: native}\n",
            "HARNESS: trianer: no such key is known — did you mean trainer?",
        ),
        ("MODEL_ARGS: {}\nHARNESS: {profiles: {h10: {}}}\n", "HARNESS: profiles: h10: no such key is known"),
        (
            "MODEL_ARGS: {}\nHARNESS: {trainer: {gpu: native}}\n",
            "HARNESS: trainer: gpu: no such key is known",
        ),
        (
            "MODEL_ARGS: {}\nHARNESS: {world_size: 0}\n",
            "HARNESS: world_size: found the text '0', expected a whole number",
        ),
        ("MODEL_ARGS: {}\nHARNESS: {world_size: two}\n", "expected a whole number above 0"),
        (
            "MODEL_ARGS: {}\nHARNESS: {deterministic: maybe}\n",
            "HARNESS: deterministic: found the text 'maybe'",
        ),
        ("MODEL_ARGS: {}\nHARNESS: {command: {train: python t.py}}\n", "never a shell string"),
        ("MODEL_ARGS: {}\nHARNESS: {command: {resume: [a]}}\n", "HARNESS: command: train is missing"),
        (
            "MODEL_ARGS: {}\nHARNESS: {command: {train: [a, [b]]}}\n",
            "HARNESS: command: train[1]: found a list, expected a text",
        ),
        (
            "MODEL_ARGS: {}\nHARNESS: {trainer: {cpu: }}\n",
            "HARNESS: trainer: cpu: found nothing, expected the name of a trainer",
        ),
        (
            "MODEL_ARGS: {}\nHARNESS: {trainer: [a]}\n",
            "HARNESS: trainer: found a list, expected the name of a trainer, or a mapping",
        ),
        (f"MODEL_ARGS: {{}}\nHARNESS: {{world_size: {'9' * 5000}}}\n", "expected a whole number above 0"),
        ('MODEL_ARGS: {"--a\\n": 1}\n', r"MODEL_ARGS: '--a\n' is no argument — arguments begin with --"),
        ("MODEL_ARGS: {}\nMODEL_ARGS_2: []\n", "MODEL_ARGS_2: found a list, expected a mapping"),
        ("MODEL_ARGS: {}\nMETRICS: [a, true]\n", "METRICS[1]: found a boolean, expected a text"),
        ("MODEL_ARGS: {}\nLAUNCHER: mpirun\n", "LAUNCHER: found 'mpirun', expected torchrun or ft_launcher"),
        ("MODEL_ARGS: [a]\n", "MODEL_ARGS: found a list, expected a mapping"),
        ("MODEL_ARGS:\n  train-iters: 1\n", "MODEL_ARGS: 'train-iters' is no argument"),
        ("MODEL_ARGS:\n  --a; rm -rf x: 1\n", "is no argument"),
        ("MODEL_ARGS:\n  --a: {b: 1}\n", "MODEL_ARGS: --a: found a mapping, expected a value"),
        (
            "MODEL_ARGS: {}\nHARNESS:\n  world_size: 1\n  world_size: 2\n",
            "line 4: world_size stands in it twice",
        ),
        ("HARNESS: {}\nHARNESS: {}\n", "line 2: HARNESS stands in it twice — remove one of them"),
        (
            "MODEL_ARGS: {}\nHARNESS:\n  profiles:\n    cpu:\n      --a: 1\n      --a: 2\n",
            "line 6: --a stands in it twice",
        ),
        ("MODEL_ARGS: {}\nENV_VARS: {a-b: 1}\n", "ENV_VARS: 'a-b' cannot be the name of a variable"),
        ("MODEL_ARGS: {}\nENV_VARS: {A: [1]}\n", "ENV_VARS: A: found a list, expected a text"),
        ("MODEL_ARGS: {}\nMETRICS: lm loss\n", "METRICS: found the text 'lm loss', expected a list of texts"),
        ("MODEL_ARGS: {<<: text}\n", "<< merges the text 'text', expected a mapping"),
        ("? [a]\n: 1\n", "a key is a list, expected text"),
        ("MODEL_ARGS: [\n", "is not YAML"),
        ("", "holds nothing, expected keys such as MODEL_ARGS"),
        ("just words\n", "expected keys such as MODEL_ARGS"),
        ("a: &a [*a]\n", ""),
    ],
)
def test_mistake_is_named_by_file_and_key(write: Write, text: str, said: str) -> None:
    assert said in refused(write(text))


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ("{}", "HARNESS: metrics: stdout: is missing, expected a regular expression, or a list of them"),
        ("[a]", "HARNESS: metrics: found a list, expected a mapping with stdout"),
        ("{stdin: a}", "HARNESS: metrics: stdin: no such key is known — expected stdout"),
        ("{stdout: a, more: 1}", "HARNESS: metrics: more: no such key is known"),
        ("{stdout: {a: b}}", "HARNESS: metrics: stdout: found a mapping, expected a regular expression"),
        ("{stdout: [[a]]}", "HARNESS: metrics: stdout[0]: found a list, expected a text"),
        ("{stdout: []}", "HARNESS: metrics: stdout: found a list, expected a regular expression, or a list"),
        (
            "{stdout: '('}",
            "HARNESS: metrics: stdout: found '(', expected a regular expression (RE2): missing",
        ),
        (
            "{stdout: '(?P<loss>x)'}",
            "HARNESS: metrics: stdout: found '(?P<loss>x)', expected one group (?P<step>",
        ),
        (
            r"{stdout: ['(?P<step>\d)(?P<loss>x)', '(?P<step>\d)']}",
            "HARNESS: metrics: stdout[1]: found '(?P<step>",
        ),
    ],
)
def test_expression_that_finds_no_metric_is_named(metrics: str, said: str, write: Write) -> None:
    command = "trainer: command, command: {train: [a]}"
    assert said in refused(write(f"MODEL_ARGS: {{}}\nHARNESS: {{{command}, metrics: {metrics}}}\n"))


def test_printed_metrics_are_a_commands_and_nobody_elses(write: Write) -> None:
    metrics = r"metrics: {stdout: 'step (?P<step>\d+) loss (?P<loss>\S+)'}"
    said = refused(write(f"MODEL_ARGS: {{}}\nHARNESS: {{trainer: native, {metrics}}}\n"))
    assert "HARNESS: metrics: stdout: found with the trainer native, expected with command" in said
    assert "trainer megatron, native" in refused(write(f"MODEL_ARGS: {{}}\nHARNESS: {{{metrics}}}\n"))
    some = f"trainer: {{cpu: command, default: megatron}}, command: {{train: [a]}}, {metrics}"
    case = load_case(write(f"MODEL_ARGS: {{}}\nHARNESS: {{{some}}}\n"))
    assert case.harness.metrics.stdout == (r"step (?P<step>\d+) loss (?P<loss>\S+)",)


def test_number_that_is_none_is_refused_when_it_is_asked_for(write: Write) -> None:
    case = load_case(write("MODEL_ARGS:\n  --train-iters: 1e3\n"))
    with pytest.raises(CaseError, match="--train-iters: found '1e3', expected a whole number above 0"):
        case.train_iters("cpu")


def test_aliases_that_unfold_to_a_billion_values_are_refused(write: Write) -> None:
    lines = ["BASE_0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"BASE_{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    assert "aliases unfold to more than 20000 values" in refused(
        write("\n".join(lines) + "\nMODEL_ARGS: {}\n")
    )


def test_nest_too_deep_to_read_is_refused(write: Write) -> None:
    assert "nest" in refused(write("MODEL_ARGS: " + "[" * 5000 + "]" * 5000))


def test_big_file_is_refused_unread(write: Write) -> None:
    assert "which is not read" in refused(write("# " + "x" * (2 << 20)))


def test_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "gpt" / "a_case"
    folder.mkdir(parents=True)
    (folder / "model_config.yaml").write_bytes(b"MODEL_ARGS: {--a: \xff\xfe}\n")
    assert "is not UTF-8 text" in refused(folder)


@given(st.text(max_size=200))
def test_any_text_is_a_case_or_a_case_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.mktemp("any") / "a_case"
    folder.mkdir()
    (folder / "model_config.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    with contextlib.suppress(CaseError):
        load_case(folder)


# -- finding -----------------------------------------------------------------------------------


def test_case_is_found_by_name_by_folder_and_by_file(write: Write, tmp_path: Path) -> None:
    folder = write(MODEL)
    for what in ("a_case", str(folder), str(folder / "model_config.yaml")):
        assert find_case(what, tmp_path).directory == folder


def test_name_that_is_nearly_one_is_answered_with_that_one(write: Write, tmp_path: Path) -> None:
    write(MODEL)
    with pytest.raises(UsageError, match="did you mean a_case"):
        find_case("a_csae", tmp_path)


@pytest.mark.parametrize("name", ["..", ".", "a b", "$(x)", "-rf", "", "a\nb", "x" * 300])
def test_name_that_is_no_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name of a case"):
        find_case(name, tmp_path)


def test_two_cases_of_one_name_are_refused(write: Write, tmp_path: Path) -> None:
    write(MODEL, family="gpt")
    write(MODEL, family="moe")
    with pytest.raises(CaseError, match="a case of the same name"):
        find_case("a_case", tmp_path)


# -- arguments ---------------------------------------------------------------------------------


def test_arguments_become_words_as_megatrons_scripts_make_them() -> None:
    arguments = {
        "--a": True,
        "--b": False,
        "--c": "1 2",
        "--d": "[1 2]",
        "--e": ("x", "y"),
        "--f": None,
        "-g": "3",
    }
    assert to_argv(arguments) == ["--a", "--c", "1 2", "--d", "1", "2", "--e", "x", "y", "--f", "-g", "3"]


def test_placeholder_stays_one_word_whatever_its_value() -> None:
    words = ["--save", "${CHECKPOINT_SAVE_PATH}/x", "$OUTPUT_PATH", "100$"]
    values = {"CHECKPOINT_SAVE_PATH": "/a b; rm -rf /", "OUTPUT_PATH": "${OTHER}"}
    assert substitute(words, values) == ["--save", "/a b; rm -rf //x", "${OTHER}", "100$"]


def test_placeholder_without_a_value_is_refused_by_name() -> None:
    with pytest.raises(CaseError, match=r"\$\{NOBODY\}: NOBODY has no value here"):
        substitute(["${NOBODY}"], {})
