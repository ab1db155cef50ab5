"""The table of `tf.keras.applications`: pixel range, image size and smallest side. Imports no TensorFlow."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator

from ccp_dml.models.backbones.specs import (
    H5,
    IMAGENET,
    IMAGENET_MEAN,
    IMAGENET_STD,
    RANDOM,
    BackboneSpec,
    bgr_minus_mean,
)

PREFIX = "keras:"

_KERAS = "ccp_dml.models.backbones.keras_applications"
_CENTRED = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
_STANDARDISED = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
_MEAN_OF_CAFFE = bgr_minus_mean(123.68, 116.779, 103.939)


def _families() -> Iterator[tuple[str, str, BackboneSpec]]:
    """The start of the names, their ends, and the spec of each family."""

    def spec(size: int = 224, least: int = 32, **changes: object) -> BackboneSpec:
        # Without a pixel scaling, the network scales the pixels itself.
        common = BackboneSpec(
            target=f"{_KERAS}:application",
            default_image_size=size,
            pixel_scaling=None,
            min_image_size=least,
            file_endings=(H5,),
            h5_loader=f"{_KERAS}:load_keras_h5",
            imagenet_loader=f"{_KERAS}:load_imagenet",
            named=(IMAGENET, RANDOM),
        )
        return dataclasses.replace(common, **changes)  # type: ignore[arg-type]

    yield "ConvNeXt", "Tiny Small Base Large XLarge", spec()
    yield "DenseNet", "121 169 201", spec(pixel_scaling=_STANDARDISED)
    for number, size in enumerate((224, 240, 260, 300, 380, 456, 528, 600)):
        yield "EfficientNet", f"B{number}", spec(size, finish=f"{_KERAS}:finish")
    for name, size in zip(("B0", "B1", "B2", "B3", "S", "M", "L"), (224, 240, 260, 300, 384, 480, 480)):
        yield "EfficientNetV2", name, spec(size)
    yield "Inception", "V3 ResNetV2", spec(299, 75, pixel_scaling=_CENTRED)
    yield "MobileNet", "V2", spec(pixel_scaling=_CENTRED)
    yield "", "MobileNet", spec(pixel_scaling=_CENTRED)
    yield "MobileNetV3", "Small Large", spec()
    yield "NASNet", "Mobile", spec(pixel_scaling=_CENTRED)
    yield "NASNet", "Large", spec(331, pixel_scaling=_CENTRED)
    for kind in ("RegNetX", "RegNetY"):
        yield kind, "002 004 006 008 016 032 040 064 080 120 160 320", spec()
    yield "ResNet", "50 101 152", spec(pixel_scaling=_MEAN_OF_CAFFE)
    yield "ResNet", "50V2 101V2 152V2", spec(pixel_scaling=_CENTRED)
    yield "ResNetRS", "50 101 152 200 270 350 420", spec()
    yield "VGG", "16 19", spec(pixel_scaling=_MEAN_OF_CAFFE)
    yield "", "Xception", spec(299, 71, pixel_scaling=_CENTRED)


APPLICATIONS = {
    f"{start}{end}": dataclasses.replace(spec, arguments={"application": f"{start}{end}"})
    for start, ends, spec in _families()
    for end in ends.split()
}


def application_spec(value: str) -> BackboneSpec:
    """Returns the spec of `keras:NAME`.

    Raises:
        ValueError: if `tf.keras.applications` has no such network.
    """
    name = value.removeprefix(PREFIX)
    if name not in APPLICATIONS:
        near = difflib.get_close_matches(name, APPLICATIONS, n=3, cutoff=0.0)
        raise ValueError(
            f"tf.keras.applications has no network {name!r}; expected the name of a class, such as "
            f"{', '.join(near)}"
        )
    return APPLICATIONS[name]
