"""What one record of every data set holds, so that all data sets are read alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow_datasets as tfds


def features(class_names: Sequence[str] | None, *, with_boxes: bool = False) -> tfds.features.FeaturesDict:
    """Returns the features of a data set of labelled images.

    - `image`: the encoded bytes of an upright RGB JPEG or PNG, stored as they are given; read with
      `tfds.decode.SkipDecoding()` they come back as they are, otherwise decoded to uint8 [H, W, 3].
    - `label`: int64, index into the class names, which all splits share.
    - `image_id`: int64, unique over all splits and the same whenever the same source is prepared.
    - `file`: where the image came from.
    - `box`: int32 [4], top, left, height and width of the object in pixels, inside the image; 0 if not known.

    Args:
        class_names: names of all classes of all splits; None: they are set at preparation.
        with_boxes: whether there is a `box`.
    """
    parts = {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "label": tfds.features.ClassLabel(names=class_names),
        "image_id": np.int64,
        "file": tfds.features.Text(),
    }
    if with_boxes:
        parts["box"] = tfds.features.Tensor(shape=(4,), dtype=np.int32)
    return tfds.features.FeaturesDict(parts)


def record(
    image: bytes, label: str, image_id: int, file: str, box: tuple[int, int, int, int] | None = None
) -> tuple[int, dict]:
    """Returns the key and the example that a builder yields for one image."""
    boxes = {} if box is None else {"box": np.array(box, np.int32)}
    return image_id, {"image": image, "label": label, "image_id": image_id, "file": file, **boxes}
