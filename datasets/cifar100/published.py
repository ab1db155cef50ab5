"""What all variants of CIFAR-100 have in common: where it is published, and its files."""

from __future__ import annotations

from datasets.cifar100.records import FILES, LAYOUTS, check_records
from datasets.release import TEST, TRAIN, Listing, Release
from datasets.source_files import SourceFiles


class PublishedCifar100(Release):
    """Base of the variants, which differ in their classes and images."""

    name = "cifar100"
    page = "https://www.cs.toronto.edu/~kriz/cifar.html"
    to_get = "cifar-100-binary.tar.gz (the binary version)"
    layouts = LAYOUTS
    counted_in = dict.fromkeys((TRAIN, TEST), FILES)
    download_url = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"

    def check_sizes(self, listing: Listing, files: SourceFiles) -> None:
        """Checks the records of each file, then as every release."""
        check_records(files)
        super().check_sizes(listing, files)
