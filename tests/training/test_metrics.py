"""metrics.jsonl: one JSON object a line, rewound on resume; and the line a person reads."""

import json
import math
import os
import struct
from types import SimpleNamespace

import jax
import pytest
from tensorboardX.proto.event_pb2 import Event

from clue_jax.errors import StorageError
from clue_jax.training import metrics
from clue_jax.training.metrics import MetricsWriter, peak_flops, say_row

TRAINING = {
    "step": 20,
    "loss": 3.25,
    "retrieval_at_1": 0.125,
    "logit_scale": 14.0,
    "learning_rate": 1e-3,
    "users_per_second": 123_456.0,
    "data_wait": 0.02,
    "mfu": 0.41,
    "fill": 0.97,
}


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def written(folder, steps, restored=0):
    writer = MetricsWriter(folder, restored)
    for step in steps:
        writer.write({"step": step, "loss": float(step)})
    writer.close()


def test_rows_are_appended_and_kept_by_a_resumed_run(tmp_path):
    written(tmp_path, [10, 20])
    written(tmp_path, [30], restored=20)
    assert [row["step"] for row in lines(tmp_path)] == [10, 20, 30]


def test_rows_beyond_the_restored_step_go(tmp_path):
    written(tmp_path, [10, 20, 30])
    written(tmp_path, [20], restored=10)
    assert lines(tmp_path) == [{"step": 10, "loss": 10.0}, {"step": 20, "loss": 20.0}]


def test_a_torn_last_line_goes(tmp_path):
    written(tmp_path, [10])
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 20, "lo')
    written(tmp_path, [30], restored=100)
    assert [row["step"] for row in lines(tmp_path)] == [10, 30]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_a_number_is_null(tmp_path, value):
    writer = MetricsWriter(tmp_path, 0)
    writer.write({"step": 1, "loss": value})
    writer.close()
    assert lines(tmp_path) == [{"step": 1, "loss": None}]


def test_tensorboard_reads_what_is_written(tmp_path):
    written(tmp_path, [10])
    (file,) = (tmp_path / "tensorboard").glob("events.out.tfevents.*")
    payload, events = file.read_bytes(), []
    while payload:  # length, its checksum, the event, its checksum
        (size,) = struct.unpack("<Q", payload[:8])
        events.append(Event.FromString(payload[12 : 12 + size]))
        payload = payload[16 + size :]
    (value,) = events[1].summary.value
    assert events[0].file_version == "brain.Event:2"
    assert (events[1].step, value.tag, value.simple_value) == (10, "train/loss", 10.0)


def test_a_full_disk_stops_the_run_and_never_hangs_it(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics, "_FLUSH_SECONDS", 0.0)
    writer = MetricsWriter(tmp_path, 0)
    writer.write({"step": 1, "loss": 1.0})
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, writer._board._records._writer.fileno())
    os.close(full)
    for call in (lambda: writer.write({"step": 2, "loss": 2.0}), writer.close):
        with pytest.raises(StorageError, match=f"{tmp_path / 'tensorboard'}: No space left"):
            call()
    assert [row["step"] for row in lines(tmp_path)] == [1, 2]


def test_the_line_of_a_step_says_what_one_needs(capsys):
    say_row(TRAINING, 1_000, seconds_left=3_725.0)
    line = capsys.readouterr().out
    for part in ("20/1000", "loss 3.2500", "R@1 0.125", "scale 14.0", "lr 1.00e-03"):
        assert part in line
    for part in ("123,456 users/s", "wait 2%", "mfu 41%", "fill 97%", "eta 1:02:05"):
        assert part in line
    assert len(line) <= 161


def test_the_line_of_an_evaluation_names_its_split_and_chance(capsys):
    row = {"step": 20, "split": "validation", "recall_at_1": 0.1, "recall_at_10": 0.5}
    say_row({**row, "mrr": 0.2, "chance": 0.04, "users": 250}, 100, 0.0)
    line = capsys.readouterr().out
    assert "validation: R@1 0.100  R@10 0.500  MRR 0.200  (chance R@10 0.040, 250 users)" in line


@pytest.mark.parametrize(
    ("kind", "peak"), [("TPU v5 lite", 197e12), ("TPU v5", 459e12), ("cpu", None)]
)
def test_the_peak_is_that_of_the_kind_of_device(monkeypatch, kind, peak):
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(device_kind=kind)])
    assert peak_flops() == (peak and 8 * peak)
