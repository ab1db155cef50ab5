"""The options of TensorBoard."""

from __future__ import annotations

import dataclasses

from ccp_dml.kinds import Integer, StepRange, Switch
from ccp_dml.options import Change, Options, option

_WITH_TENSORBOARD = {"tensorboard": (True,)}


@dataclasses.dataclass(frozen=True)
class MonitoringOptions(Options):
    """TensorBoard."""

    tensorboard: bool = option(True, Switch(), "Write TensorBoard events.", Change.FREE)
    tensorboard_panels: int = option(
        8,
        Integer(0),
        "Number of validation queries shown with their neighbours; 0: none.",
        Change.FREE,
        _WITH_TENSORBOARD,
    )
    tensorboard_histograms: bool = option(
        True, Switch(), "Write histograms of distances once per epoch.", Change.FREE, _WITH_TENSORBOARD
    )
    tensorboard_projector: bool = option(
        True,
        Switch(),
        "Write an embedding projector with sprites at the end.",
        Change.FREE,
        _WITH_TENSORBOARD,
    )
    profile: tuple[int, int] | None = option(
        None,
        StepRange(),
        "START:STOP, the steps to trace for TensorBoard's profiler.",
        Change.FREE,
    )
