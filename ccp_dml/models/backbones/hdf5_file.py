"""What an HDF5 file of weights may be: arrays of a bearable size, and nothing that leads out of the file."""

from __future__ import annotations

import os

import h5py

LARGEST_ARRAY = 2**32  # Bytes: a file of some hundred bytes may say that an array has petabytes.
# Those that are part of HDF5; for any other it looks for a plug-in in a folder, and runs it.
_OWN_FILTERS = range(1, 256)


def check_hdf5(path: str | os.PathLike[str]) -> None:
    """Checks a file before Keras reads it.

    HDF5 files can hold links to, and arrays that lie in, other files, which a reader opens unasked.

    Raises:
        OSError: if it is no HDF5 file.
        ValueError: if it holds a link, an array that lies elsewhere, one that only a plug-in can read, or
            one above `LARGEST_ARRAY` bytes.
    """
    seen: set[int] = set()
    with h5py.File(path, "r") as file:
        groups: list[h5py.Group] = [file]
        while groups:
            group = groups.pop()
            for name in group:
                where = f"{group.name.rstrip('/')}/{name}"
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise ValueError(f"{where} is a link; expected groups and arrays alone")
                item = group[name]
                address = h5py.h5o.get_info(item.id).addr
                # Hard links can make circles.
                if isinstance(item, h5py.Group) and address not in seen:
                    groups.append(item)
                elif isinstance(item, h5py.Dataset):
                    _check_array(item, where)
                seen.add(address)


def _check_array(array: h5py.Dataset, where: str) -> None:
    if array.is_virtual or array.external:
        raise ValueError(f"{where} lies in another file; expected arrays of this file alone")
    if array.nbytes > LARGEST_ARRAY:
        raise ValueError(f"{where} says it has {array.nbytes:,} bytes; expected at most {LARGEST_ARRAY:,}")
    properties = array.id.get_create_plist()
    filters = [properties.get_filter(index)[0] for index in range(properties.get_nfilters())]
    foreign = [number for number in filters if number not in _OWN_FILTERS]
    if foreign:
        raise ValueError(f"{where} needs a plug-in of HDF5 (filter {foreign[0]}); expected none")
