"""Progress lines, the CSV file of the epochs, and warnings."""

from __future__ import annotations

import csv
import io

import pytest
import tensorflow as tf

from ccp_dml.monitoring.console import HealthCheck, MetricsCsv, Progress, _duration


def _run(callback: tf.keras.callbacks.Callback, epochs: range) -> None:
    callback.set_params({"epochs": epochs.stop, "steps": 4, "verbose": 0})
    callback.on_train_begin()
    for epoch in epochs:
        callback.on_epoch_begin(epoch)
        for step in (1, 3):
            callback.on_train_batch_end(step, {"loss": 0.25, "images_per_second": 123.4})
        callback.on_epoch_end(epoch, {"loss": 0.25, "val_map_at_r": 0.5 + epoch, "other": 1})


def test_a_log_file_has_one_line_per_epoch():
    stream = io.StringIO()
    _run(Progress(("loss", "val_map_at_r"), stream), range(2, 4))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("epoch 3/4 ")
    assert "loss 0.25  val_map_at_r 2.5  (at most 0 s left)" in lines[0]
    assert "other" not in lines[0]


def test_a_terminal_shows_a_bar(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    _run(Progress(("loss",)), range(1))
    out = capsys.readouterr().out
    assert "2/4 [====" in out
    assert "loss: 0.2500 - images/s: 123.4" in out
    assert "ETA" in out
    assert out.rstrip().splitlines()[-1].rpartition("\033[K")[2].startswith("epoch 1/1 ")


def test_durations_are_rounded_to_two_units():
    assert [_duration(s) for s in (5, 65, 3725)] == ["5 s", "1 min 05 s", "1 h 02 min"]


def _rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_csv_drops_repeated_epochs_and_adds_columns(tmp_path):
    path = tmp_path / "run" / "metrics.csv"
    first = MetricsCsv(path)
    first.on_train_begin()
    for epoch in range(3):
        first.on_epoch_begin(epoch)
        first.on_epoch_end(epoch, {"loss": epoch / 10})
    again = MetricsCsv(path)
    again.on_train_begin()
    for epoch in (2, 3):
        again.on_epoch_begin(epoch)
        again.on_epoch_end(epoch, {"loss": epoch * 1.0, "proxy_staleness": 0.5})
    rows = _rows(path)
    assert [(row["epoch"], row["loss"], row["proxy_staleness"]) for row in rows] == [
        ("0", "0.0", ""),
        ("1", "0.1", ""),
        ("2", "2.0", "0.5"),
        ("3", "3.0", "0.5"),
    ]
    assert [file.name for file in path.parent.iterdir()] == ["metrics.csv"]


@pytest.mark.parametrize(
    "harm, kept",
    [
        (lambda text: text[: len(text) // 2], [0]),
        (lambda text: text.replace("2,0.2", "3,0.2"), [0, 1, 3]),
        (lambda text: text.replace("1,0.1", "1,0.x"), [0, 2, 3]),
        (lambda text: text.replace("1,0.1", "1,0.1,7"), [0, 2, 3]),
        (lambda text: text.replace("2,", "\0,"), [0, 1, 3]),
        (lambda text: text.replace("epoch", "epocg"), []),
        (lambda text: "\0" * len(text), []),
        (lambda text: "\ufffd" + text, []),
        (lambda text: "", []),
    ],
    ids=["half", "epoch", "digit", "more", "null", "header", "zeros", "not text", "empty"],
)
def test_a_damaged_csv_keeps_what_can_be_read_even_without_another_epoch(tmp_path, capsys, harm, kept):
    path = tmp_path / "metrics.csv"
    first = MetricsCsv(path)
    first.on_train_begin()
    for epoch in range(4):
        first.on_epoch_begin(epoch)
        first.on_epoch_end(epoch, {"loss": epoch / 10, "other": 1.0})
    path.write_text(harm(path.read_text()))
    again = MetricsCsv(path)
    again.on_train_begin()
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith(f"warning: {path}: damaged; {len(kept)} of ")
    assert [int(row["epoch"]) for row in _rows(path)] == kept
    again.on_epoch_begin(4)
    again.on_epoch_end(4, {"loss": 0.4, "other": 1.0})
    assert [int(row["epoch"]) for row in _rows(path)] == [*kept, 4]
    MetricsCsv(path).on_train_begin()
    assert capsys.readouterr().err == ""


def test_each_warning_appears_once_and_gives_advice():
    told: list[str] = []
    check = HealthCheck(told.append)
    check.on_epoch_end(0, {"val_mean_cosine": 0.97, "gradient_norm": 1e-9})
    check.on_epoch_end(1, {"val_mean_cosine": float("nan")})
    check.on_epoch_end(2, None)
    assert told == []
    for epoch in (3, 4):
        check.on_epoch_end(epoch, {"val_mean_cosine": 0.999999, "gradient_norm": 0.0})
    collapse, inactive = told
    assert collapse.startswith("epoch 4: the embeddings have collapsed")
    assert "margin" in collapse
    assert inactive.startswith("epoch 4: the loss was inactive")
    assert "miner" in inactive
