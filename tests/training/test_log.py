"""The log: exact sums, one line a step, unchanged by resuming, and no read of the device between logging steps."""

import contextlib
import json
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.metrics import Mean
from research.training.devices import PEAK_FLOPS, peak_flops
from research.training.display import clock_time, shorten, status_line
from research.training.log import TIMED_KEYS, Log, MetricsFile, Stopwatch


class Clock:
    """Time that passes only when told to."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def open_log(workdir, *, every=5, num_steps=23, clock=None, **arguments) -> Log:
    arguments = {"tensorboard": False, "tokens_per_example": 3, **arguments}
    clock = clock or Clock()

    def rate(count: int) -> float:
        return 0.1 / (1 + count)

    return Log(
        workdir, every=every, num_steps=num_steps, batch_size=7, rate=rate, started=clock(), clock=clock, **arguments
    )


def means(step: int) -> dict[str, Mean]:
    draw = np.random.default_rng(step)
    pairs = {name: (draw.normal() * 1e3, draw.integers(1, 1000)) for name in ("loss", "accuracy")}
    return {name: Mean(jnp.float32(total), jnp.float32(weight)) for name, (total, weight) in pairs.items()}


def lines(workdir) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def untimed(workdir) -> list[dict]:
    return [{key: value for key, value in line.items() if key not in TIMED_KEYS} for line in lines(workdir)]


def train(log: Log, steps, *, evaluate_every=0) -> None:
    for step in steps:
        log(step, None, means(step))
        if evaluate_every and step % evaluate_every == 0:
            log.write(step, {"val/loss": step / 3})


def test_a_line_divides_the_sums_of_its_window_once(tmp_path):
    with open_log(tmp_path, every=5, num_steps=7) as log:
        train(log, range(1, 8))
    first, last = lines(tmp_path)
    assert (first["step"], last["step"]) == (5, 7)
    for line, steps in ((first, range(1, 6)), (last, range(6, 8))):
        total = sum(float(means(step)["loss"].total) for step in steps)
        weight = sum(float(means(step)["loss"].weight) for step in steps)
        assert line["train/loss"] == total / weight
    assert last["train/rate"] == 0.1 / 7  # the rate of the update that made step 7


def test_sums_do_not_drift_past_two_to_the_24(tmp_path):
    with open_log(tmp_path, every=3, num_steps=3) as log:
        for step in (1, 2, 3):
            log(step, None, {"count": Mean(jnp.float32(2**24 if step == 1 else 1), jnp.float32(step == 1))})
    assert lines(tmp_path)[0]["train/count"] == 2**24 + 2


def test_the_device_is_read_at_logging_steps_only(tmp_path, monkeypatch):
    reads = []
    array: Any = type(jnp.zeros(()))
    fetch = array._value.fget  # every way to a value on the host goes through it
    monkeypatch.setattr(array, "_value", property(lambda self: (reads.append(1), fetch(self))[1]))
    with open_log(tmp_path, every=5, num_steps=11) as log:
        seen = []
        for step in range(1, 12):
            log(step, None, means(step))
            seen.append(len(reads))
    assert seen[:4] == [0] * 4 and seen[5:9] == [seen[4]] * 4
    assert 0 < seen[4] < seen[9] < seen[10]


def test_long_windows_stay_exact(tmp_path):
    """150 steps in one window, with a fetch for a checkpoint in between, give the sum of one addition a step."""
    with open_log(tmp_path, every=150, num_steps=150) as log:
        train(log, range(1, 71))
        log.window()
        train(log, range(71, 151))
    total = weight = 0.0
    for step in range(1, 151):
        total += float(means(step)["loss"].total)
        weight += float(means(step)["loss"].weight)
    assert lines(tmp_path)[0]["train/loss"] == total / weight


@pytest.mark.parametrize("restored_step", [0, 5, 7, 12, 20, 22])
def test_a_resumed_run_has_the_lines_of_the_unbroken_one(tmp_path, restored_step):
    """The killed run went on past its checkpoint, and died in the middle of a line."""
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    with open_log(unbroken) as log:
        train(log, range(1, 24), evaluate_every=4)
    with open_log(broken) as log:
        train(log, range(1, restored_step + 1), evaluate_every=4)
        saved = json.dumps(log.window())
        train(log, range(restored_step + 1, 23), evaluate_every=4)
    with (broken / "metrics.jsonl").open("a") as file:
        file.write('{"step": 23, "train/lo')
    with open_log(broken) as log:
        log.resume(restored_step, json.loads(saved))
        train(log, range(restored_step + 1, 24), evaluate_every=4)
    assert json.dumps(untimed(broken)) == json.dumps(untimed(unbroken))
    assert [line["step"] for line in lines(broken)] == [4, 5, 8, 10, 12, 15, 16, 20, 23]


def test_the_window_survives_json_to_the_last_bit(tmp_path):
    with open_log(tmp_path, every=100) as log:
        for value in (0.1, 1e-30, math.inf, math.nan):
            log(1, None, {f"value {value}": Mean(jnp.float32(value), jnp.float32(3))})
        window = json.loads(json.dumps(log.window(), allow_nan=False))
    with open_log(tmp_path, every=100) as log:
        log.resume(4, window)
        assert log.window() == window
    assert float.fromhex(window["value 0.1"][0]) == float(np.float32(0.1))
    assert float.fromhex(window["value inf"][0]) == math.inf


def test_evaluation_joins_the_line_of_its_step(tmp_path):
    with open_log(tmp_path, every=2, num_steps=3) as log:
        log.write(0, {"val/loss": 9.0})
        train(log, (1, 2))
        log.write(2, {"val/loss": 1.5})
        log.write(2, {"val/accuracy": 0.5})
        assert [line["step"] for line in lines(tmp_path)] == [0, 2]  # flushed while the run goes on
        log.write(3, {"val/loss": 1.25})
        train(log, (3,))
    zero, two, three = lines(tmp_path)
    assert zero == {"step": 0, "val/loss": 9.0}
    assert two["val/loss"] == 1.5 and two["val/accuracy"] == 0.5 and "train/loss" in two
    assert three["val/loss"] == 1.25 and "train/loss" in three
    assert "step 3/3  val/loss 1.25" in (tmp_path / "log.txt").read_text()


def test_a_nan_is_null_and_no_error(tmp_path):
    with open_log(tmp_path, every=1, num_steps=2, tensorboard=True) as log:
        zero, nan = jnp.float32(0), jnp.float32(jnp.nan)
        log(1, None, {"loss": Mean(nan, jnp.float32(2)), "empty": Mean(zero, zero)})
        log.write(1, {"val/loss": math.inf})
        log.write(1, {"val/accuracy": 0.5})
    assert lines(tmp_path) == [
        {"step": 1, "train/loss": None, "train/empty": None, "train/rate": 0.1, "val/loss": None, "val/accuracy": 0.5}
    ]


def test_steps_without_a_resume_start_the_file_again(tmp_path):
    """A run that died before its first checkpoint leaves lines that no checkpoint stands behind."""
    with open_log(tmp_path) as log:
        log.write(0, {"val/loss": 9.0})
        train(log, range(1, 13))
    with open_log(tmp_path) as log:
        train(log, range(1, 7))
    assert [line["step"] for line in lines(tmp_path)] == [0, 5]


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": \n{"step": 3}\n')
    with open_log(tmp_path) as log, pytest.raises(ValueError, match=r"metrics\.jsonl:2 is not a JSON object"):
        log.resume(3, {})


def test_cutting_leaves_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n')

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError):
        MetricsFile(path, step=1)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_speeds_leave_out_compilation_and_pauses(tmp_path):
    clock = Clock()
    log = open_log(tmp_path, every=5, num_steps=10, clock=clock, flops_per_example=2e9, peak_flops=70e9)
    batches = log.watch(waiting_batches(clock, 0.5))
    for step in range(1, 11):
        next(batches)
        clock.now += 60.0 if step == 1 else 1.5  # the first step compiles
        log(step, None, means(step))
        with log.paused():
            clock.now += 100.0
            with log.paused():
                clock.now += 10.0
    log.close()
    assert log.first_step_seconds == 60.5
    for line in lines(tmp_path):
        # 7 examples in 2 s a step; 2e9 FLOP an example of 70e9 FLOP/s
        assert line["train/examples_per_second"] == pytest.approx(3.5, rel=1e-12)
        assert line["train/tokens_per_second"] == pytest.approx(10.5, rel=1e-12)
        assert line["train/mfu"] == pytest.approx(0.1, rel=1e-12)
        assert line["train/data_wait"] == pytest.approx(0.25, rel=1e-12)
    text = (tmp_path / "log.txt").read_text()
    assert "first step after 60.5 s" in text
    # the four timed steps to step 5 took 2 s each and four pauses of 110 s lay between; 5 steps are left
    assert "MFU 10.0%  data 25%  9:20 left" in text
    assert text.splitlines()[-1].startswith("step 10/10") and "left" not in text.splitlines()[-1]


def waiting_batches(clock, seconds):
    while True:
        clock.now += seconds
        yield {}


def test_speeds_count_only_the_steps_of_this_process_after_a_resume(tmp_path):
    with open_log(tmp_path) as log:
        train(log, range(1, 4))
        saved = log.window()
    clock = Clock()
    with open_log(tmp_path, clock=clock) as log:
        log.resume(3, saved)
        log(4, None, means(4))
        clock.now += 2.0
        log(5, None, means(5))
    assert lines(tmp_path)[0]["train/examples_per_second"] == 3.5


def test_what_is_unknown_is_left_out(tmp_path):
    clock = Clock()
    with open_log(tmp_path, every=1, num_steps=2, clock=clock, peak_flops=1e12, tokens_per_example=0) as log:
        log(1, None, means(1))
        assert not set(lines(tmp_path)[0]) & set(TIMED_KEYS)
        clock.now += 1.0
        log(2, None, means(2))
    assert set(lines(tmp_path)[1]) & set(TIMED_KEYS) == {"train/examples_per_second", "train/data_wait"}
    assert "MFU n/a" in (tmp_path / "log.txt").read_text()


def test_a_pause_begins_when_the_device_is_done(tmp_path, monkeypatch):
    waited_for = []
    with open_log(tmp_path) as log:
        log(1, None, means(1))
        second = means(2)
        log(2, None, second)
        monkeypatch.setattr(jax, "block_until_ready", waited_for.append)
        with log.paused():
            assert waited_for == [second]


def test_watch_hands_on_every_batch_and_ends(tmp_path):
    with open_log(tmp_path) as log:
        assert list(log.watch(range(5))) == [0, 1, 2, 3, 4]


def test_a_failing_pause_is_still_left_out():
    clock = Clock()
    watch = Stopwatch(clock)
    with contextlib.suppress(RuntimeError), watch.paused():
        clock.now += 5.0
        raise RuntimeError
    clock.now += 2.0
    assert watch.seconds() == 2.0


def test_tensorboard_holds_the_values_of_metrics_jsonl(tmp_path):
    """Events past the restored step are purged, as TensorBoard reads them: the start of a session drops later steps."""
    with open_log(tmp_path, every=5, num_steps=15, tensorboard=True) as log:
        train(log, range(1, 11))
        log.write(11, {"train/loss": 11.0})  # only the killed run has this one
    with open_log(tmp_path, every=5, num_steps=15, tensorboard=True) as log:
        log.resume(7, {})
        train(log, range(8, 16))
    events = read_events(tmp_path / "tensorboard")
    kept: dict[int, float] = {}
    for event in events:
        if event.HasField("session_log"):
            kept = {step: value for step, value in kept.items() if step < event.step}
        for value in event.summary.value:
            if value.tag == "train/loss":
                kept[event.step] = value.simple_value
    assert kept == {line["step"]: pytest.approx(line["train/loss"], rel=1e-6) for line in lines(tmp_path)}


def read_events(folder):
    from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]: protobuf makes it

    for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        content, at = path.read_bytes(), 0
        while at < len(content):  # TFRecord: length (8), its CRC (4), the record, its CRC (4)
            size = int.from_bytes(content[at : at + 8], "little")
            yield Event.FromString(content[at + 12 : at + 12 + size])
            at += size + 16


def test_plain_lines_are_printed_and_kept(tmp_path, capsys):
    with open_log(tmp_path, every=2, num_steps=4) as log:
        log.say("[red] is not markup")
        train(log, range(1, 5))
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "log.txt").read_text()
    assert "[red] is not markup\n" in printed and "\x1b" not in printed
    assert "step 2/4  loss " in printed and "step 4/4  loss " in printed


def test_a_status_line_reads_as_in_the_manual():
    values = {"train/loss": 3.2144, "train/tokens_per_second": 12345.6, "train/data_wait": 0.012}
    line = status_line(100, num_steps=2000, values=values, seconds_left=151.2)
    assert line == "step 100/2000  loss 3.214  12.3k tokens/s  MFU n/a  data 1%  2:31 left"


def test_numbers_are_short():
    shown = {0.5: "0.5", 7.0: "7", 999.0: "999", 1234.0: "1.23k", 5.6e6: "5.6M", 7.89e9: "7.89G"}
    assert {value: shorten(value) for value in shown} == shown
    assert [clock_time(value) for value in (0.2, 59.6, 151, 5460)] == ["0:00", "1:00", "2:31", "1:31:00"]


def test_a_window_of_no_steps_is_refused(tmp_path):
    with pytest.raises(ValueError, match="log.every=0"):
        open_log(tmp_path, every=0)


@pytest.mark.parametrize(
    ("device_kind", "dtype", "teraflops"),
    [
        ("TPU v4", "bfloat16", 275),
        ("TPU v5 lite", "bfloat16", 197),
        ("TPU v5", "float32", 459),
        ("TPU7x", "bfloat16", 1153.5),
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989.4),
        ("NVIDIA H100 PCIe", "bfloat16", 756),
        ("NVIDIA H200", "float32", 494.7),
        ("NVIDIA A100-SXM4-80GB", "bfloat16", 312),
        ("NVIDIA A10", "bfloat16", 125),
        ("NVIDIA L40S", "bfloat16", 362),
        ("Tesla V100-SXM2-16GB", "float16", 125),
    ],
)
def test_peak_flops_of_known_chips(device_kind, dtype, teraflops):
    assert peak_flops(device_kind, dtype) == pytest.approx(teraflops * 1e12)


@pytest.mark.parametrize(
    ("device_kind", "dtype"),
    [
        ("cpu", "float32"),
        ("TPU v55", "bfloat16"),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "bfloat16"),
        ("Tesla V100-SXM2-16GB", "bfloat16"),
        ("TPU v4", "float16"),
        ("NVIDIA H100 80GB HBM3", "float64"),
    ],
)
def test_peak_flops_of_unknown_chips_is_none(device_kind, dtype):
    assert peak_flops(device_kind, dtype) is None


def test_half_precision_is_never_slower_than_float32():
    for name, (single, brain, half) in PEAK_FLOPS.items():
        assert max(brain, half) >= single > 0, name
