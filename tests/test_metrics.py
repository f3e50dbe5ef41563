"""Series and their readers."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.summary.writer.record_writer import RecordWriter

from harness.errors import MetricsError
from harness.metrics import Series, read_metrics
from harness.metrics.events import masked_crc

#: A loaded machine is no reason to fail.
UNHURRIED = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def write_events(path: Path, events: list[Event]) -> list[int]:
    """Write an event file; returns where each record begins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    starts = []
    with path.open("ab") as file:
        writer = RecordWriter(file)
        for event in events:
            starts.append(file.tell())
            writer.write(event.SerializeToString())
    return starts


def read(folder: Path, *, killed: bool = False) -> dict[str, Series]:
    """What a phase logged that has everything in one folder."""
    return read_metrics(folder, folder, killed=killed)


def scalar(step: int, clock: float = 0.0, **values: float) -> Event:
    found = [Summary.Value(tag=tag.replace("_", " "), simple_value=value) for tag, value in values.items()]
    return Event(step=step, wall_time=clock, summary=Summary(value=found))


def tensor(step: int, tag: str, **fields: object) -> Event:
    return Event(step=step, summary=Summary(value=[Summary.Value(tag=tag, tensor=TensorProto(**fields))]))


@pytest.fixture
def curve(tmp_path: Path) -> Callable[[], Path]:
    """A folder with one event file of five steps."""

    def make() -> Path:
        write_events(tmp_path / "events.out.tfevents.1.host", [scalar(i, lm_loss=i / 3) for i in range(1, 6)])
        return tmp_path

    return make


# -- series ----------------------------------------------------------------------------------------


def test_a_series_cannot_be_written_to_while_the_callers_array_can() -> None:
    values = np.array([1.0, 2.0])
    series = Series("lm loss", np.array([1, 2]), values)
    with pytest.raises(ValueError, match="read-only"):
        series.values[0] = 3.0
    values[0] = 4.0
    assert values[0] == 4.0


def test_steps_and_values_of_different_lengths_are_no_series() -> None:
    with pytest.raises(ValueError, match="lm loss"):
        Series("lm loss", np.array([1, 2]), np.array([1.0]))


@UNHURRIED
@given(st.lists(st.integers(-5, 30)), st.integers(-5, 30), st.integers(-5, 30))
def test_at_keeps_the_steps_inside_in_their_order(steps: list[int], first: int, last: int) -> None:
    series = Series("m", np.array(steps, np.int64), np.arange(len(steps), dtype=np.float64))
    part = series.at(first, last)
    assert part.steps.tolist() == [step for step in steps if first <= step <= last]
    assert part.values.tolist() == [float(i) for i, step in enumerate(steps) if first <= step <= last]


def test_only_increasing_steps_with_finite_values_are_clean() -> None:
    def clean(steps: list[int], values: list[float]) -> bool:
        return Series("m", np.array(steps), np.array(values)).clean

    assert clean([], [])
    assert clean([1, 5], [0.0, 1.0])
    assert not clean([1, 1], [0.0, 1.0])
    assert not clean([2, 1], [0.0, 1.0])
    assert not clean([1, 2], [0.0, math.nan])
    assert not clean([1, 2], [math.inf, 1.0])


def test_a_series_followed_by_another_holds_both_in_order() -> None:
    joined = Series("m", [1, 2], [0.1, 0.2]).followed_by(Series("m", [2, 3], [0.3, 0.4]))  # type: ignore[arg-type]
    assert joined.steps.tolist() == [1, 2, 2, 3]
    assert joined.values.tolist() == [0.1, 0.2, 0.3, 0.4]


# -- event files -----------------------------------------------------------------------------------


def test_a_simple_value_is_the_float64_that_its_float32_is(curve: Callable[[], Path]) -> None:
    series = read(curve())["lm loss"]
    assert series.steps.tolist() == [1, 2, 3, 4, 5]
    assert series.values.tolist() == [float(np.float32(i / 3)) for i in range(1, 6)]


def test_torch_s_writer_in_both_styles_is_read(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path) as writer:
        for step in range(3):
            writer.add_scalar("old", step + 0.1, step)
            writer.add_scalar("new", step + 0.1, step, new_style=True)
            writer.add_scalar("double", step + 0.1, step, new_style=True, double_precision=True)
            writer.add_text("text", "words", step)
            writer.add_histogram("histogram", np.arange(9), step)
    found = read(tmp_path)
    single = [float(np.float32(step + 0.1)) for step in range(3)]
    assert sorted(found) == ["double", "new", "old"]
    assert found["old"].values.tolist() == found["new"].values.tolist() == single
    assert found["double"].values.tolist() == [0.1, 1.1, 2.1]


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ({"dtype": 1, "float_val": [0.5]}, 0.5),
        ({"dtype": 1, "tensor_content": struct.pack("<f", 0.25)}, 0.25),
        ({"dtype": 2, "double_val": [0.1]}, 0.1),
        ({"dtype": 2, "tensor_content": struct.pack("<d", 0.1)}, 0.1),
        ({"dtype": 3, "int_val": [-3]}, -3.0),
        ({"dtype": 9, "int64_val": [1 << 40]}, float(1 << 40)),
        ({"dtype": 9, "int64_val": [(1 << 62) + 1]}, (1 << 62) + 1),
        ({"dtype": 9, "tensor_content": struct.pack("<q", -(1 << 62) - 1)}, -(1 << 62) - 1),
        ({"dtype": 9, "tensor_content": struct.pack("<q", -7)}, -7.0),
        ({"dtype": 19, "half_val": [0x3C00]}, 1.0),
        ({"dtype": 14, "half_val": [0x3F80]}, 1.0),
        ({"dtype": 14, "tensor_content": b"\x80\x3f"}, 1.0),
        ({"dtype": 1}, 0.0),
        ({"dtype": 10, "bool_val": [True]}, 1.0),
        ({"dtype": 10}, 0.0),
        ({"dtype": 10, "tensor_content": b"\x01"}, 1.0),
        ({"dtype": 4, "int_val": [200]}, 200.0),
        ({"dtype": 5, "int_val": [-3]}, -3.0),
        ({"dtype": 6, "tensor_content": b"\xff"}, -1.0),
        ({"dtype": 17, "int_val": [60000]}, 60000.0),
        ({"dtype": 22, "uint32_val": [(1 << 32) - 1]}, float((1 << 32) - 1)),
        ({"dtype": 23, "uint64_val": [(1 << 63) - 1]}, (1 << 63) - 1),
        ({"dtype": 23, "uint64_val": [(1 << 64) - 1]}, (1 << 64) - 1),
    ],
)
def test_a_scalar_tensor_of_any_numeric_type_is_a_value(
    tmp_path: Path, fields: dict[str, object], value: float
) -> None:
    write_events(tmp_path / "tfevents.1", [tensor(4, "loss", **fields)])
    series = read(tmp_path)["loss"]
    assert (series.steps.tolist(), series.numbers()) == ([4], [value])


def test_a_tensor_of_several_numbers_is_no_curve(tmp_path: Path) -> None:
    shape = {"dim": [{"size": 2}]}
    events = [tensor(1, "pair", dtype=1, float_val=[1.0, 2.0], tensor_shape=shape), scalar(1, loss=1.0)]
    write_events(tmp_path / "tfevents.1", events)
    assert list(read(tmp_path)) == ["loss"]


def test_files_of_one_second_are_read_in_the_order_of_their_clocks(tmp_path: Path) -> None:
    write_events(tmp_path / "a" / "events.out.tfevents.7.b", [scalar(1, 7.1, loss=1.0)])
    write_events(tmp_path / "events.out.tfevents.7.a", [scalar(2, 7.5, loss=2.0)])
    write_events(tmp_path / "events.out.tfevents.9.a", [scalar(2, 9.0, loss=3.0)])
    series = read(tmp_path)["loss"]
    assert series.steps.tolist() == [1, 2, 2]
    assert series.values.tolist() == [1.0, 2.0, 3.0]


def test_repeated_and_backward_steps_are_kept_as_logged(tmp_path: Path) -> None:
    write_events(tmp_path / "tfevents.1", [scalar(step, loss=i) for i, step in enumerate((1, 2, 2, 1))])
    assert read(tmp_path)["loss"].steps.tolist() == [1, 2, 2, 1]


def test_the_same_value_of_a_step_counts_once(tmp_path: Path) -> None:
    lines = [{"step": step, "epoch": step / 8} for step in (1, 2, 2)]
    write_lines(tmp_path, *lines, {"step": 1, "epoch": 0.125}, {"step": 3, "epoch": math.nan})
    epoch = read(tmp_path)["epoch"]
    assert (epoch.steps.tolist(), epoch.values[:2].tolist()) == ([1, 2, 3], [0.125, 0.25])
    write_lines(tmp_path, *lines, {"step": 1, "epoch": 0.5})
    assert read(tmp_path)["epoch"].steps.tolist() == [1, 2, 2, 1]


def test_nan_and_infinity_are_kept_as_values(tmp_path: Path) -> None:
    write_events(tmp_path / "tfevents.1", [scalar(1, loss=math.nan), scalar(2, loss=math.inf)])
    values = read(tmp_path)["loss"].values
    assert math.isnan(values[0])
    assert values[1] == math.inf


def test_a_curve_over_samples_is_left_out(tmp_path: Path) -> None:
    event = Event(step=16, summary=Summary(value=[Summary.Value(tag="lm loss vs samples", simple_value=1)]))
    write_events(tmp_path / "tfevents.1", [event, scalar(1, lm_loss=1.0)])
    assert list(read(tmp_path)) == ["lm loss"]


@UNHURRIED
@given(st.lists(st.binary(max_size=70), min_size=1, max_size=6))
def test_the_checksum_is_tensorflows(chunks: list[bytes]) -> None:
    for chunk in chunks:
        assert masked_crc(chunk) == masked_crc32c(chunk)


@UNHURRIED
@given(cut=st.integers(1, 40), extra=st.integers(0, 30))
def test_records_of_any_sizes_pass_their_checksums_and_a_flipped_bit_does_not(cut: int, extra: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        events = [scalar(1, **{"m" * cut: 1.0}), scalar(2, **{"n" * (extra + 1): 2.0}), scalar(3, m=3.0)]
        starts = write_events(folder / "tfevents.1", events)
        assert len(read(folder)) >= 1
        data = bytearray((folder / "tfevents.1").read_bytes())
        data[starts[1] + 12] ^= 1 << (extra % 8)
        (folder / "tfevents.1").write_bytes(data)
        with pytest.raises(MetricsError, match=rf"tfevents\.1: the record at byte {starts[1]} "):
            read(folder)


@pytest.mark.parametrize("cut", [1, 4, 5, 20])
def test_a_torn_record_is_an_error_that_names_file_and_offset(curve: Callable[[], Path], cut: int) -> None:
    folder = curve()
    path = next(folder.iterdir())
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    last = 4 * (len(whole) // 5)
    with pytest.raises(MetricsError, match=rf"{path.name}: the record at byte {last} ends after"):
        read(folder)


def test_after_a_kill_only_the_torn_last_record_is_left_out(curve: Callable[[], Path]) -> None:
    folder = curve()
    path = next(folder.iterdir())
    whole = path.read_bytes()
    for cut in (1, 20, len(whole) // 5 - 3):
        path.write_bytes(whole[:-cut])
        assert read(folder, killed=True)["lm loss"].steps.tolist() == [1, 2, 3, 4]
    damaged = bytearray(whole)
    damaged[20] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(MetricsError, match="the record at byte 0 has data whose checksum"):
        read(folder, killed=True)


def test_a_damaged_length_is_an_error(curve: Callable[[], Path]) -> None:
    folder = curve()
    path = next(folder.iterdir())
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    with pytest.raises(MetricsError, match="the record at byte 0 has a length whose checksum"):
        read(folder)


def test_a_whole_record_that_holds_no_event_is_an_error(tmp_path: Path) -> None:
    with (tmp_path / "tfevents.1").open("wb") as file:
        RecordWriter(file).write(b"\xff\xff\xff")
    with pytest.raises(MetricsError, match="the record at byte 0 does not hold an event"):
        read(tmp_path)


def test_a_folder_without_event_files_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(MetricsError, match=str(tmp_path / "nowhere")):
        read(tmp_path / "nowhere")


def test_an_empty_event_file_has_no_series(tmp_path: Path) -> None:
    (tmp_path / "tfevents.1").touch()
    assert read(tmp_path) == {}


# -- JSON lines ------------------------------------------------------------------------------------


def write_lines(folder: Path, *lines: object) -> Path:
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)
    return folder / "metrics.jsonl"


def test_json_lines_by_step_or_iteration_become_series(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path, {"step": 1, "lm loss": 2.5}, "", {"iteration": 2, "lm loss": 2.25, "count": 3},
        '{"step": 3, "lm loss": NaN, "count": -Infinity}',
    )  # fmt: skip
    found = read(path.parent)
    assert found["lm loss"].steps.tolist() == [1, 2, 3]
    assert found["lm loss"].values[:2].tolist() == [2.5, 2.25]
    assert math.isnan(found["lm loss"].values[2])
    assert found["count"].values.tolist() == [3.0, -math.inf]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "expected one JSON object"),
        ("[1]", "found [1], expected one JSON object"),
        ('{"step": "third", "lm loss": 1.0}', "the step is 'third', expected a whole number"),
        ('{"step": 3.5}', "the step is 3.5, expected a whole number"),
        ('{"step": true}', "the step is True, expected a whole number"),
        (f'{{"step": {1 << 70}}}', "expected a whole number"),
        ('{"step": 3, "iteration": 4}', "step 3 and iteration 4, expected the same"),
        ("[" * 100_000, "expected one JSON object"),
        ('{"step": 3, "lm loss": 1' + "0" * 400 + "}", "'lm loss' is 1000"),
        ('{"step": 3, "lm loss": 1.0, "lm loss": 2.0}', "'lm loss' is there twice, as 1.0 and 2.0"),
    ],
)
def test_a_bad_line_is_an_error_that_names_it(tmp_path: Path, line: str, said: str) -> None:
    path = write_lines(tmp_path, {"step": 1, "lm loss": 1.0}, line)
    with pytest.raises(MetricsError) as caught:
        read(path.parent)
    assert caught.value.message.startswith(f"{path}:2: ")
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("step,loss,loss\n1,0.5,0.5\n2,0.5,0.25\n", ":3: 'loss' is there twice, as 0.5 and 0.25"),
        ('step,loss\n1,0.5\n2,"0.25\n3,0.125\n', "no row of a CSV file"),
    ],
    ids=["two columns of one name", "a quote that never ends"],
)
def test_a_table_that_would_lose_values_is_an_error(tmp_path: Path, table: str, said: str) -> None:
    (tmp_path / "metrics.csv").write_text(table)
    with pytest.raises(MetricsError) as caught:
        read(tmp_path)
    assert said in caught.value.message


def test_of_a_nested_table_what_training_is_about_is_read(tmp_path: Path) -> None:
    inside = {"mse": 1, "kl": "0.5", "acc": 2, "s_per_step": 4, "width": 5}
    path = write_lines(tmp_path, {"step": 1, "train": inside})
    assert {n: s.numbers() for n, s in read(path.parent).items()} == {
        "train/mse": [1], "train/kl": [0.5], "train/acc": [2]
    }  # fmt: skip


def test_a_curve_over_samples_that_no_other_one_shows_is_not_passed_over_unseen(tmp_path: Path) -> None:
    row = {"loss": 0.5, "loss vs samples": 0.5, "acc vs samples": 0.25}
    write_lines(tmp_path, {"step": 1, **row}, {"step": 8, "acc2 vs samples": 0.75})
    (tmp_path / "tensorboard").mkdir()
    notes: list[str] = []
    assert read_metrics(tmp_path, tmp_path, notes=notes).keys() == {"loss", "acc vs samples"}
    assert notes == ["not compared: `acc2 vs samples`, of which no curve over iterations is there"]


def test_two_columns_that_say_the_same_are_one(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,loss,loss\n1,0.5,0.5\n2,,0.25\n")
    assert read(tmp_path)["loss"].numbers() == [0.5, 0.25]


def test_whole_numbers_of_64_bits_are_read_as_they_are(tmp_path: Path) -> None:
    numbers = [(1 << 62) + 1, (1 << 64) - 1, 3, 1.5, -(1 << 63) + 1]
    lines = [json.dumps({"step": i, "digest": number}) for i, number in enumerate(numbers)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    found = read_metrics(tmp_path / "tensorboard", tmp_path)["digest"]
    assert found.numbers() == numbers
    assert found.values.tolist() == list(map(float, numbers))
    assert found.rest is not None


def test_a_torn_last_line_is_an_error_unless_the_process_was_killed(tmp_path: Path) -> None:
    path = write_lines(tmp_path, {"step": 1, "lm loss": 1.0})
    with path.open("a") as file:
        file.write('{"step": 2, "lm lo')
    with pytest.raises(MetricsError, match=r"metrics\.jsonl:2: "):
        read(path.parent)
    assert read(path.parent, killed=True)["lm loss"].steps.tolist() == [1]


# -- both ------------------------------------------------------------------------------------------


def test_neither_source_is_an_error_that_says_what_to_write_and_where(tmp_path: Path) -> None:
    with pytest.raises(MetricsError) as caught:
        read_metrics(tmp_path / "tensorboard", tmp_path)
    assert caught.value.message == (
        f"{tmp_path}/tensorboard: no event file, and no {tmp_path}/metrics.jsonl (looked for as well: "
        "metrics.csv, a log of a framework's own name, trainer_state.json): the trainer logged nothing"
    )
    assert caught.value.advice == (
        "let it write TensorBoard events to ${TENSORBOARD_PATH},"
        " or one JSON object a line to ${OUTPUT_PATH}/metrics.jsonl"
    )


def test_where_both_sources_have_a_metric_the_event_files_count(tmp_path: Path) -> None:
    write_events(tmp_path / "tensorboard" / "tfevents.1", [scalar(1, loss=1.0)])
    write_lines(tmp_path, {"step": 1, "loss": 9.0, "extra": 2.0})
    found = read_metrics(tmp_path / "tensorboard", tmp_path)
    assert found["loss"].values.tolist() == [1.0]
    assert found["extra"].values.tolist() == [2.0]


def test_either_source_alone_is_enough(tmp_path: Path) -> None:
    write_lines(tmp_path, {"step": 1, "loss": 9.0})
    assert list(read_metrics(tmp_path / "tensorboard", tmp_path)) == ["loss"]
    write_events(tmp_path / "tensorboard" / "tfevents.1", [scalar(1, other=1.0)])
    (tmp_path / "metrics.jsonl").unlink()
    assert list(read_metrics(tmp_path / "tensorboard", tmp_path)) == ["other"]
