"""Data set builders in the layout of TensorFlow Datasets."""
