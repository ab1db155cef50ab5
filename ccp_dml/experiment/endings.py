"""Early ends of runs, each reported in one line that says how the run continues."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

import tensorflow as tf

from ccp_dml.distributed.workers import Workers
from ccp_dml.errors import Interrupted, UserError
from ccp_dml.run_directory import RunDirectory
from ccp_dml.training.interruption import TrainingInterrupted

# Python and TensorFlow have different types for a full disk; the words are the same.
_FULL_DISK = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
# Start of the message of an exchange between workers that was cut off, whatever the reason.
_LOST_WORKER = "Collective ops is aborted by"


@contextlib.contextmanager
def resumable(directory: RunDirectory, workers: Workers) -> Iterator[None]:
    """Context that explains interruptions, full disks and lost run directories.

    Args:
        directory: the folder of the run or of its group.
        workers: the processes that train it.

    Raises:
        Interrupted: on Ctrl-C or SIGTERM.
        UserError: if the disk is full, the run directory was removed or became read-only, memory is short, or
            another worker ended.
    """
    same_flags = f"the same flags with --run_dir={directory.path} go on from"
    try:
        yield
    except TrainingInterrupted as stop:
        raise Interrupted(f"after step {stop.step}, saved; {same_flags} there") from stop
    except KeyboardInterrupt as stop:
        signal = str(stop) or "Ctrl-C"
        raise Interrupted(f"stopped by {signal}; {same_flags} the last checkpoint, if any") from stop
    except (OSError, tf.errors.OpError) as error:
        if workers.count > 1 and isinstance(error, tf.errors.OpError) and _LOST_WORKER in error.message:
            raise UserError(
                "--strategy=multi_worker: another worker has ended or cannot be reached, so this one, worker "
                f"{workers.index} of {workers.count}, stops; the message of the other tells why; the same "
                "command on all of them goes on from the last checkpoint, if any"
            ) from error
        problem = _problem(directory, error, writes=workers.is_chief)
        if problem is None:
            raise
        raise UserError(f"--run_dir={directory.path}: {problem}") from error


def _problem(directory: RunDirectory, error: Exception, writes: bool) -> str | None:
    """The problem of the disk, the memory, or the folder that this process writes to; None for others."""
    if any(words in str(error) for words in _FULL_DISK):
        reason = str(error).split("\n", 1)[0]
        return f"the disk is full; the same flags go on from the last checkpoint once there is room: {reason}"
    if isinstance(error, tf.errors.ResourceExhaustedError):  # The evaluation has a message of its own.
        return (
            "too little memory for a step of training; expected more of it, with which the same flags go on "
            "from the last checkpoint, or a new run with smaller batches or a smaller --image_size"
        )
    if not writes:
        return None
    if not directory.config.exists():
        return "it was removed or moved while the run was going on; expected it to stay"
    is_read_only = os.strerror(errno.EROFS) in str(error)
    if isinstance(error, PermissionError | tf.errors.PermissionDeniedError) or is_read_only:
        return "it cannot be written to any more; once it can, the same flags go on from the last checkpoint"
    return None
