"""Where a run is saved, and may stop: after a chunk of steps, and at the end of an epoch."""

from __future__ import annotations

from ccp_dml.distributed.workers import Workers
from ccp_dml.training.checkpoints import Interrupted, Saver, StopRequest
from ccp_dml.training.controllers import Controllers
from ccp_dml.training.phases import Phases


class SafePoints:
    """Saves a run and stops it, all of its workers at the same step.

    Attributes:
        saver: where it is saved.
    """

    def __init__(self, saver: Saver, controllers: Controllers, phases: Phases, workers: Workers) -> None:
        """Creates them.

        Args:
            saver: where to save, and when besides the end of an epoch.
            controllers: know the best epoch, whose checkpoint is kept.
            phases: know at which step the run is.
            workers: who decide together.
        """
        self.saver, self._controllers, self._phases = saver, controllers, phases
        self._workers = workers

    def after_chunk(self, request: StopRequest) -> None:
        """Saves if it is time to; saves and stops if that was asked for.

        Raises:
            Interrupted: if it was, of any worker.
        """
        stop, is_due = self._agreed(request)
        if stop or is_due:
            self._save(stop)

    def after_epoch(self, request: StopRequest) -> None:
        """Saves, and stops if that was asked for.

        Raises:
            Interrupted: if it was, of any worker.
        """
        self._save(self._agreed(request)[0])

    def _agreed(self, request: StopRequest) -> tuple[bool, bool]:
        """Whether to stop, as a worker was asked to; whether the chief says that it is time to save."""
        found = self._workers.from_all([request.requested, self.saver.due(self._phases.step)])
        return any(requested for requested, _ in found), found[0][1]

    def _save(self, stop: bool) -> None:
        best = self._controllers.best_epoch
        best_step = None if best is None else (best + 1) * self._phases.steps_per_epoch
        path = self.saver.save(self._phases.step, best_step)
        if stop:
            raise Interrupted(self._phases.step, path)
