"""Equal pixels in training, evaluation and serving, for files of all kinds."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.data.images import decode_rgb
from ccp_dml.datasets.common.images import upright_rgb
from ccp_dml.serving.content import MOST_STEPS
from ccp_dml.serving.gif import first_frame
from ccp_dml.serving.images import MAX_PIXELS, decode_upright_rgb
from tests.serving import corpus

decode = tf.function(decode_upright_rgb, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)

FILES = dict([*corpus.png_files(), *corpus.oriented_files(), *corpus.jpeg_files(), *corpus.gif_files()])
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::RuntimeWarning:PIL")


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_served_with_the_pixels_of_training(name: str) -> None:
    stored = upright_rgb(FILES[name], name)
    expected = decode_rgb(tf.constant(stored)).numpy().astype(int)
    served = decode(tf.constant(FILES[name])).numpy().astype(int)
    assert served.shape == expected.shape
    # A copy of quality 95 differs a little.
    is_copy = stored.startswith(b"\xff\xd8") and stored != FILES[name]
    np.testing.assert_allclose(served, expected, rtol=0, atol=6 if is_copy else 0)


REFUSED = dict(corpus.refused_files())


@pytest.mark.parametrize("name", REFUSED)
def test_other_files_are_refused(name: str) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(tf.constant(REFUSED[name]))


LARGE = dict(corpus.large_files(MAX_PIXELS))


@pytest.mark.parametrize("name", LARGE)
def test_an_image_of_many_pixels_is_refused_by_its_header(name: str) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"image with more than {MAX_PIXELS} pixels"):
        decode(tf.constant(LARGE[name]))


PARTS = dict(corpus.files_of_many_parts(MOST_STEPS))


@pytest.mark.parametrize("name", PARTS)
def test_a_file_of_countless_parts_is_refused(name: str) -> None:
    """Each part would take a step of the graph."""
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"more than {MOST_STEPS} segments"):
        decode(tf.constant(PARTS[name]))


def test_only_the_first_frame_of_an_animation_is_decoded() -> None:
    frames = [corpus.noise("P", 60 + i, 80).crop((0, 0, 80, 60)) for i in range(20)]
    content = corpus.encode(frames[0], "GIF", save_all=True, append_images=frames[1:], disposal=2)
    alone = first_frame(tf.constant(content)).encoded.numpy()
    assert len(alone) < len(content) / 10
    assert tf.io.decode_gif(alone).shape == (1, 60, 80, 3)
