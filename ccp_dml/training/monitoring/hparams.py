"""The settings of a run beside its scores, in TensorBoard's HParams view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from tensorboard.plugins.hparams import api as hp

from ccp_dml.training.monitoring.events import EventCallback, EventLog
from ccp_dml.training.monitoring.scalars import tag_of

HParamValue: TypeAlias = bool | int | float | str
SCORES = ("map_at_r", "r_precision", "precision_at_1")


def hparam_values(settings: Mapping[str, Any]) -> dict[str, HParamValue]:
    """Settings as the HParams view can hold them.

    Args:
        settings: name → value. Nested mappings become `outer.inner`, sequences a comma-separated string;
            settings that are None are left out.

    Returns:
        Name → bool, int, float or str.
    """
    values: dict[str, HParamValue] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            values.update({f"{name}.{inner}": item for inner, item in hparam_values(value).items()})
        elif isinstance(value, (bool, int, float, str)):
            values[name] = value
        elif isinstance(value, Sequence):
            values[name] = ",".join(str(item) for item in value)
        elif value is not None:
            values[name] = str(value)
    return values


class HParamsLogger(EventCallback):
    """Records the settings when training starts, and its end; the scores are read from the run's scalars.

    The record stands in the event directory itself, beside the runs 'validation' and 'test' whose last points
    are the scores. Runs with equal settings are one group of the view, their scores averaged.

    Args:
        events: where to write.
        settings: see `hparam_values`.
        scores: names of retrieval metrics, as in the epoch's logs without the validation prefix.
    """

    def __init__(self, events: EventLog, settings: Mapping[str, Any], scores: Sequence[str] = SCORES) -> None:
        super().__init__(events)
        self._values = hparam_values(settings)
        self._scores = tuple(scores)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Writes the settings."""
        super().on_train_begin(logs)
        metrics = [
            hp.Metric(tag_of(score)[0], group=run, display_name=f"{run} {score}")
            for run in ("test", "validation")
            for score in self._scores
        ]
        writer = self.events.writer("")
        with writer.as_default():
            hp.hparams_config([hp.HParam(name) for name in self._values], metrics)
        self._session = hp.KerasCallback(writer, self._values)
        self._session.on_train_begin()
        self.events.flush()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Notes that training has ended by itself."""
        self._session.on_train_end(logs)
        self.events.flush()
