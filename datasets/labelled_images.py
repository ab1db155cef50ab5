"""What one record of every data set holds, so that all data sets are read alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow_datasets as tfds


def features(class_names: Sequence[str]) -> tfds.features.FeaturesDict:
    """Returns the features of a data set of labelled images.

    - `image`: the encoded bytes of an upright RGB JPEG or PNG, stored as they are given; read with
      `tfds.decode.SkipDecoding()` they come back as they are, otherwise decoded to uint8 [H, W, 3].
    - `label`: int64, index into the class names, which all splits share.
    - `image_id`: int64, unique over all splits and the same whenever the same source is prepared.
    - `file`: where the image came from.

    Args:
        class_names: names of all classes of all splits.
    """
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=class_names),
            "image_id": np.int64,
            "file": tfds.features.Text(),
        }
    )


def record(image: bytes, label: str, image_id: int, file: str) -> tuple[int, dict]:
    """Returns the key and the example that a builder yields for one image."""
    return image_id, {"image": image, "label": label, "image_id": image_id, "file": file}
