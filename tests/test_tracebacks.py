"""harness/launch/tracebacks.py: what raised what, in logs as they are found."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from harness.launch.tracebacks import Told, last_words, plain, tells_of


def told(text: str) -> list[Told]:
    return tells_of(plain(textwrap.dedent(text)))


def really(script: str, tmp_path: Path) -> list[Told]:
    """What this Python says of a script that fails."""
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(script))
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=False)
    return tells_of(plain(done.stderr))


def test_an_exception_is_told_with_its_frames(tmp_path: Path) -> None:
    (one,) = really("def load():\n    raise ValueError('not  this\\n\\tsize')\nload()\n", tmp_path)
    assert one.raised.words() == "ValueError: not  this size"
    assert [frame.function for frame in one.raised.frames] == ["<module>", "load"]
    assert one.raised.frames[0].source == "load()"
    assert (one.rank, one.raised.cause) == (None, None)


def test_of_a_chain_the_last_was_raised_and_the_first_is_its_cause(tmp_path: Path) -> None:
    script = """
        try:
            try:
                {}["a"]
            except KeyError as error:
                raise OSError("middle") from error
        finally:
            1 / 0
    """
    (one,) = really(script, tmp_path)
    chain = list(one.raised.chain())
    assert [link.kind for link in chain] == ["ZeroDivisionError", "OSError", "KeyError"]
    assert [link.link for link in chain] == ["while handling", "caused by", ""]


@pytest.mark.parametrize("script", ["def f(:\n", "if True:\nx = 1\n"])
def test_a_script_that_cannot_be_compiled_has_no_first_line(script: str, tmp_path: Path) -> None:
    (one,) = really(script, tmp_path)
    assert one.raised.kind in ("SyntaxError", "IndentationError")
    assert one.raised.frames[0].file.endswith("script.py")


def test_what_a_thread_or_a_deallocator_says_is_not_what_ended_the_process(tmp_path: Path) -> None:
    script = """
        class Late:
            def __del__(self):
                raise RuntimeError("ignored")
        late = Late()
        raise ValueError("told")
    """
    found = really(script, tmp_path)
    assert [one.raised.kind for one in found] == ["ValueError"]


if sys.version_info >= (3, 11):  # Python 3.10 has no exception groups

    def test_of_a_group_its_members_are_told(tmp_path: Path) -> None:
        script = """
            def fail():
                raise OSError("disk")
            try:
                fail()
            except OSError as error:
                raise ExceptionGroup("two", [error, ValueError("b")])
        """
        found = [link.words() for one in really(script, tmp_path) for link in one.raised.chain()]
        assert "OSError: disk" in found


@pytest.mark.parametrize(
    ("prefix", "rank"),
    [("[rank3]: ", 3), ("[default1]:[rank7]: ", 7), ("[trainer2]:", 2), ("[1,5]<stderr>:", 5), ("4: ", 4)],
)
def test_lines_of_many_processes_are_told_apart_by_what_stands_before_them(prefix: str, rank: int) -> None:
    mine = [
        "Traceback (most recent call last):",
        '  File "a.py", line 3, in f',
        "    f()",
        "ValueError: boom",
    ]
    lines = [line for own in mine for line in (f"{prefix}{own}", "[rank99]: training", "loss: 3.5")]
    (one,) = tells_of(lines)
    assert (one.rank, one.raised.words()) == (rank, "ValueError: boom")


def test_two_tracebacks_that_are_mixed_line_by_line_are_both_told() -> None:
    found = told("""\
        Traceback (most recent call last):
        Traceback (most recent call last):
          File "a.py", line 3, in f
          File "a.py", line 3, in f
        RuntimeError: Connection closed by peer
        ValueError: boom
    """)
    assert [one.raised.kind for one in found] == ["RuntimeError", "ValueError"]


def test_colours_and_boxes_do_not_hide_it() -> None:
    found = told("""\
        \x1b[31m╭─────── Traceback (most recent call last) ───────╮\x1b[0m
        │ /home/a.py:3 in <module>                        │
        │ ❱ 3 f()                                         │
        ╰─────────────────────────────────────────────────╯
        \x1b[1;31mValueError\x1b[0m: boom
    """)
    assert [one.raised.words() for one in found] == ["ValueError: boom"]


def test_a_worker_of_a_loader_and_a_rank_of_a_save_are_the_cause_of_what_speaks_of_them() -> None:
    (loader,) = told("""\
        Traceback (most recent call last):
          File "train.py", line 3, in <module>
            next(it)
        RuntimeError: Caught KeyError in DataLoader worker process 0.
        Original Traceback (most recent call last):
          File "data.py", line 9, in __getitem__
        KeyError: 'text'
    """)
    assert [one.words() for one in loader.raised.chain()] == [
        "RuntimeError: Caught KeyError in DataLoader worker process 0.",
        "KeyError: 'text'",
    ]
    (saved,) = told("""\
        Traceback (most recent call last):
          File "train.py", line 3, in <module>
        torch.distributed.checkpoint.api.CheckpointException: CheckpointException ranks:dict_keys([0, 1])
        Traceback (most recent call last): (RANK 0)
          File "api.py", line 9, in reduce
        RuntimeError: Broken pipe
        Traceback (most recent call last): (RANK 1)
          File "api.py", line 9, in reduce
        FileNotFoundError: [Errno 2] No such file or directory: '__1_0.distcp'
    """)
    cause = list(saved.raised.chain())[-1]
    assert cause.kind == "FileNotFoundError"


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("usage: a.py [-h]\na.py: error: unrecognized: --x\n", "a.py: error: unrecognized: --x"),
        ("terminate called after\n  what():  CUDA error: boom\nframe #0\n", "CUDA error: boom"),
        ('Fatal Python error: Aborted\n\nThread 0x1:\n  File "a"\n', "Fatal Python error: Aborted"),
        ("epoch 1\nbye\n\n=====\n", "bye"),
        ("", ""),
    ],
)  # fmt: skip
def test_the_last_words_of_an_end_without_a_traceback(log: str, words: str) -> None:
    assert last_words(plain(log)) == words


def test_a_torn_or_endless_traceback_is_nothing_and_takes_no_time() -> None:
    assert told("Traceback (most recent call last):\n" + "x y\n" * 5000) == []
    assert told('Traceback (most recent call last):\n  File "a", line 1, in f\n') == []
    assert told("Traceback (most recent call last):\n" * 2000) == []
