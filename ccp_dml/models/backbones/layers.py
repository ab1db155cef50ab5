"""Building blocks of the backbones: seeds, convolution with frozen normalisation, fast depthwise gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

# Number of positions of a feature map, by kernel size, up to which the matrix products below are faster than
# TensorFlow's CPU gradient, which is most of a training step of EfficientNet-Lite0 at 64 pixels. Measured on
# 2 cores with 240 to 1152 channels and a batch of 32.
_MOST_POSITIONS = {3: 4, 5: 64}


def layer_seeds(seed: int) -> Iterator[int]:
    """Yields seeds for the layers of a network, one after the other; they depend on `seed` only.

    Consecutive values of `seed` give unrelated sequences, so that no two networks have a layer in common.
    """
    generator = np.random.default_rng(seed)
    while True:
        yield int(generator.integers(2**31))


@tf.keras.utils.register_keras_serializable("ccp_dml")
class FrozenNormConvolution(tf.keras.layers.Layer):
    """A convolution, then batch normalisation in inference mode with constant parameters.

    It computes `gamma * (conv(x, kernel) + bias - mean) / sqrt(variance + epsilon) + beta`, in training too.
    Only the kernel, and the bias if there is one, are trained; no setting of `trainable` changes that. The
    normalisation is folded into the kernel at each call: with separate normalisation layers, a training step
    on a CPU takes a quarter longer.

    Attributes:
        filters: number of output channels; None for a depthwise convolution, which keeps the number.
        kernel_size: side of the square kernel.
        strides: step in both directions.
        epsilon: added to the variance.
        symmetric_padding: True to pad every side by (kernel_size - 1) / 2 zeros, as Caffe and PyTorch do;
            False for 'same', which with a step above 1 pads less at the top and on the left.
        use_bias: True if the convolution has a bias.
    """

    def __init__(
        self,
        filters: int | None,
        kernel_size: int,
        strides: int = 1,
        epsilon: float = 1e-3,
        kernel_initializer: Any = "glorot_uniform",
        symmetric_padding: bool = False,
        use_bias: bool = False,
        **kwargs: Any,
    ) -> None:
        """Creates the layer.

        Args:
            filters: number of output channels, or None for a depthwise convolution.
            kernel_size: side of the kernel.
            strides: step of the convolution.
            epsilon: added to the variance.
            kernel_initializer: Keras initializer, or its name, of the kernel.
            symmetric_padding: True to pad all sides equally.
            use_bias: True for a bias, initially 0.
            **kwargs: arguments of a Keras layer.

        Raises:
            ValueError: if `symmetric_padding` is True for a depthwise convolution or an even kernel.
        """
        super().__init__(**kwargs)
        if symmetric_padding and (filters is None or kernel_size % 2 == 0):
            raise ValueError(
                f"symmetric_padding is True with filters={filters} and kernel_size={kernel_size}; "
                "expected filters and an odd kernel"
            )
        self.filters = filters
        self.kernel_size = kernel_size
        self.strides = strides
        self.epsilon = epsilon
        self.kernel_initializer = tf.keras.initializers.get(kernel_initializer)
        self.symmetric_padding = symmetric_padding
        self.use_bias = use_bias

    def build(self, input_shape: Any) -> None:
        """Creates the kernel (k, k, input channels, filters or 1) and the vectors [output channels]."""
        channels = input_shape[-1]
        outputs = channels if self.filters is None else self.filters
        # The normalisation is folded in float32, so the variables must not be cast to half precision.
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.kernel_size, self.kernel_size, channels, self.filters or 1),
            initializer=self.kernel_initializer,
            experimental_autocast=False,
        )
        self.bias = self._vector("bias", outputs, "zeros", trainable=True) if self.use_bias else None
        self.gamma = self._vector("gamma", outputs, "ones")
        self.beta = self._vector("beta", outputs, "zeros")
        self.moving_mean = self._vector("moving_mean", outputs, "zeros")
        self.moving_variance = self._vector("moving_variance", outputs, "ones")
        super().build(input_shape)

    def _vector(self, name: str, size: int, initializer: str, trainable: bool = False) -> tf.Variable:
        return self.add_weight(
            name=name,
            shape=(size,),
            initializer=initializer,
            trainable=trainable,
            experimental_autocast=False,
        )

    @property
    def batch_norm_weights(self) -> list[tf.Variable]:
        """Gamma, beta, moving mean and moving variance."""
        return [self.gamma, self.beta, self.moving_mean, self.moving_variance]

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the normalised convolution [B, ceil(H / strides), ceil(W / strides), output channels]."""
        scale = self.gamma * tf.math.rsqrt(self.moving_variance + self.epsilon)
        mean = self.moving_mean if self.bias is None else self.moving_mean - self.bias
        bias = tf.cast(self.beta - mean * scale, self.compute_dtype)
        if self.filters is None:
            kernel = tf.cast(self.kernel * scale[:, tf.newaxis], self.compute_dtype)
            outputs = depthwise_convolution(inputs, kernel, self.strides)
        else:
            kernel = tf.cast(self.kernel * scale, self.compute_dtype)
            outputs = tf.nn.conv2d(inputs, kernel, self.strides, self._padding)
        return tf.nn.bias_add(outputs, bias)

    @property
    def _padding(self) -> str | list[list[int]]:
        # With step 1 both paddings are equal, and the named one is faster.
        if not self.symmetric_padding or self.strides == 1:
            return "SAME"
        margin = (self.kernel_size - 1) // 2
        return [[0, 0], [margin, margin], [margin, margin], [0, 0]]

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the layer."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "epsilon": self.epsilon,
            "kernel_initializer": tf.keras.initializers.serialize(self.kernel_initializer),
            "symmetric_padding": self.symmetric_padding,
            "use_bias": self.use_bias,
        }


def depthwise_convolution(inputs: tf.Tensor, kernel: tf.Tensor, strides: int) -> tf.Tensor:
    """Convolves each channel with its own kernel; the padding is 'same'.

    Args:
        inputs: float [B, H, W, C].
        kernel: [k, k, C, 1], of the same dtype.
        strides: step in both directions.

    Returns:
        [B, ceil(H / strides), ceil(W / strides), C].
    """
    step = [1, strides, strides, 1]
    if not _products_are_faster(inputs.shape, int(kernel.shape[0])):
        return tf.nn.depthwise_conv2d(inputs, kernel, step, "SAME")

    @tf.custom_gradient
    def convolve(
        inputs: tf.Tensor, kernel: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[..., tuple[tf.Tensor, ...]]]:
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return (
                tf.nn.depthwise_conv2d_backprop_input(tf.shape(inputs), kernel, upstream, step, "SAME"),
                kernel_gradient(inputs, upstream, int(kernel.shape[0]), strides),
            )

        return tf.nn.depthwise_conv2d(inputs, kernel, step, "SAME"), gradient

    return convolve(inputs, kernel)


def kernel_gradient(inputs: tf.Tensor, upstream: tf.Tensor, kernel_size: int, strides: int) -> tf.Tensor:
    """Computes the gradient of a depthwise convolution for its kernel by matrix products.

    A product per channel correlates every input position with every output position over the batch. A
    constant matrix then sums the pairs of positions that meet in the same tap of the kernel. The work grows
    with the square of the number of positions, so it is fast for small feature maps only.

    Args:
        inputs: [B, H, W, C] with known H, W and C.
        upstream: gradient [B, h, w, C] for the outputs of a convolution with 'same' padding.
        kernel_size: k.
        strides: step of the convolution in both directions.

    Returns:
        [k, k, C, 1], in the dtype of `inputs`.
    """
    height, width, channels = inputs.shape[1:]
    out_height, out_width = upstream.shape[1:3]
    rows = _taps(height, out_height, kernel_size, strides)
    columns = _taps(width, out_width, kernel_size, strides)
    # [H, W, h, w, k, k]: 1 where an input position meets an output position in a tap.
    meeting = np.einsum("yuk,xvl->yxuvkl", rows, columns).reshape(-1, kernel_size**2)

    flat_inputs = tf.reshape(tf.cast(inputs, tf.float32), [-1, height * width, channels])
    flat_upstream = tf.reshape(tf.cast(upstream, tf.float32), [-1, out_height * out_width, channels])
    correlations = tf.matmul(tf.transpose(flat_inputs, [2, 1, 0]), tf.transpose(flat_upstream, [2, 0, 1]))
    taps = tf.matmul(tf.reshape(correlations, [channels, -1]), meeting)
    return tf.cast(tf.reshape(tf.transpose(taps), [kernel_size, kernel_size, channels, 1]), inputs.dtype)


def _taps(size: int, out_size: int, kernel_size: int, strides: int) -> npt.NDArray[np.float32]:
    """Returns [size, out_size, kernel_size] for one axis: 1 where an input and an output meet in a tap."""
    padding = max((out_size - 1) * strides + kernel_size - size, 0) // 2
    position, output, tap = np.ogrid[:size, :out_size, :kernel_size]
    return (position == output * strides + tap - padding).astype(np.float32)


def _products_are_faster(shape: tf.TensorShape, kernel_size: int) -> bool:
    _, height, width, channels = shape
    if None in (height, width, channels) or tf.config.list_physical_devices("GPU"):
        return False
    return height * width <= _MOST_POSITIONS.get(kernel_size, 0)
