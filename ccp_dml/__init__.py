"""Deep metric learning with chance constraints, for TensorFlow and Keras."""
