"""The base of all builders."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from etils import epath

from ccp_dml.datasets.common.release import PREPARED_VERSION


class LocalBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Base of all builders, which finds the files beside the module of a builder.

    TFDS looks for them below the folder of `ccp_dml`. In a checkout the data sets lie beside that folder.
    """

    VERSION = tfds.core.Version(PREPARED_VERSION)
    RELEASE_NOTES: ClassVar[dict[str, str]] = {
        PREPARED_VERSION: "Checksums; images as TensorFlow decodes them."
    }

    def __init_subclass__(cls, **options: Any) -> None:
        """Records the places of the module and of its folder."""
        super().__init_subclass__(**options)
        cls.code_path = epath.Path(inspect.getfile(cls))
        cls.pkg_dir_path = cls.code_path.parent
