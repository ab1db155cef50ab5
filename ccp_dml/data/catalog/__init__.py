"""The data sets by name. Listing and checking them imports neither TensorFlow nor TFDS."""

from ccp_dml.data.catalog.checking import check
from ccp_dml.data.catalog.entries import is_published, names
from ccp_dml.data.catalog.loading import load
from ccp_dml.data.catalog.source import Source

__all__ = ["Source", "check", "is_published", "load", "names"]
