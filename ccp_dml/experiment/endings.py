"""How a run that does not come to its end says why, and how it goes on."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

import tensorflow as tf

from ccp_dml.distributed.workers import ALONE, Workers
from ccp_dml.errors import Interrupted, UserError
from ccp_dml.run_directory import RunDirectory
from ccp_dml.training import checkpoints

# Python and TensorFlow each have types of their own for these; the words are the same.
_FULL = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
# Whatever the reason, what was under way between the workers ends with this.
_LOST = "Collective ops is aborted by"


@contextlib.contextmanager
def resumable(directory: RunDirectory, workers: Workers = ALONE) -> Iterator[None]:
    """Says after an interruption, a full disk or the loss of the run directory how the run goes on.

    Args:
        directory: of the run.
        workers: who train it.

    Raises:
        Interrupted: Ctrl-C or SIGTERM came.
        UserError: the disk is full, the run directory is gone or can no longer be written to, or another
            worker has ended.
    """
    same_flags = f"the same flags with --run_dir={directory.path} go on from"
    try:
        yield
    except checkpoints.Interrupted as stop:
        raise Interrupted(f"after step {stop.step}, saved; {same_flags} there") from stop
    except KeyboardInterrupt as stop:
        signal = str(stop) or "Ctrl-C"
        raise Interrupted(f"stopped by {signal}; {same_flags} the last checkpoint, if any") from stop
    except (OSError, tf.errors.OpError) as error:
        if workers.count > 1 and isinstance(error, tf.errors.OpError) and _LOST in error.message:
            raise UserError(
                "--strategy=multi_worker: another worker has ended or cannot be reached, so this one, worker "
                f"{workers.index} of {workers.count}, stops; what the other said tells why; the same command "
                "on all of them goes on from the last checkpoint, if any"
            ) from error
        problem = _problem(directory, error, writes=workers.is_chief)
        if problem is None:
            raise
        raise UserError(f"--run_dir={directory.path}: {problem}") from error


def _problem(directory: RunDirectory, error: Exception, writes: bool) -> str | None:
    """What is wrong with the disk, or the folder if this process writes there; None: something else is."""
    if any(words in str(error) for words in _FULL):
        reason = str(error).split("\n", 1)[0]
        return f"the disk is full; the same flags go on from the last checkpoint once there is room: {reason}"
    if isinstance(error, tf.errors.ResourceExhaustedError):  # The evaluation says so itself.
        return (
            "too little memory for a step of training; expected more of it, with which the same flags go on "
            "from the last checkpoint, or a new run with smaller batches or a smaller --image_size"
        )
    if not writes:
        return None
    if not directory.config.exists():
        return "it was removed or moved while the run was going on; expected it to stay"
    if isinstance(error, PermissionError | tf.errors.PermissionDeniedError) or _is_read_only(error):
        return "it can no longer be written to; once it can, the same flags go on from the last checkpoint"
    return None


def _is_read_only(error: Exception) -> bool:
    return os.strerror(errno.EROFS) in str(error)
