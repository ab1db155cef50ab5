"""What TensorFlow's native code prints past Python and past TF_CPP_MIN_LOG_LEVEL."""

from __future__ import annotations

import os

import tensorflow as tf


def use_up_xla_notice() -> None:
    """Compiles next to nothing with XLA while standard error is closed.

    XLA announces the first compilation of a process there, whatever the log level, and never again.
    """
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        tf.function(tf.identity, jit_compile=True)(tf.zeros([]))
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
