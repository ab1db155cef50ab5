"""Measurements of speed and memory, one folder each; importing them silences TensorFlow's log."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
