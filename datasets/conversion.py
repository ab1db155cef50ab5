"""Turns many image files into the encoded images of a data set, in parallel, and collects what is wrong."""

from __future__ import annotations

import concurrent.futures
import itertools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from datasets import images

_CHUNK = 64

Key = TypeVar("Key")
Readers = Iterable[tuple[Key, str, Callable[[], bytes]]]


def convert_all(files: Readers[Key]) -> Iterator[tuple[Key, bytes | images.ImageError]]:
    """Yields each image as upright RGB, JPEG or PNG (see `images.upright_rgb`), or what is wrong with it.

    Args:
        files: for each image something to know it by, what to call it in an error, and a function that reads
            its bytes; that is called in a thread and may raise `OSError`.
    """
    rest = iter(files)
    # Threads, because Pillow decodes outside the interpreter's lock; in chunks, to hold few images in memory.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        while chunk := list(itertools.islice(rest, _CHUNK)):
            # Not in the threads: they share the filters.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                converted = list(pool.map(lambda file: _convert(file[1], file[2]), chunk))
            yield from zip((key for key, _, _ in chunk), converted)


def usable(
    files: Readers[Key], later: Readers[Key] = (), skipped: list[tuple[Key, images.ImageError]] | None = None
) -> Iterator[tuple[Key, bytes]]:
    """Yields the images that can be used, as `convert_all` does.

    Args:
        files: see `convert_all`.
        later: images of splits that are still to come; read only for an error, which names theirs too.
        skipped: takes the images that cannot be used; None: they are an error.

    Raises:
        ImageError: after the last image, naming all that cannot be used, unless these are skipped; if there
            is none that can.
    """
    bad = []
    found = False
    for key, image in convert_all(files):
        if isinstance(image, images.ImageError):
            bad.append((key, image))
        else:
            found = True
            yield key, image
    if skipped is None:
        if bad:
            bad += [(key, image) for key, image in convert_all(later) if isinstance(image, images.ImageError)]
            raise report([error for _, error in bad])
        return
    if not found:
        raise report([error for _, error in bad])
    skipped += bad


def report(errors: Sequence[images.ImageError]) -> images.ImageError:
    """Returns one error, of one line, that names every image that cannot be used and says why."""
    if len(errors) == 1:
        return errors[0]
    return images.ImageError(
        f"{len(errors):,} images cannot be used: " + "; ".join(str(error) for error in errors)
    )


def _convert(name: str, read: Callable[[], bytes]) -> bytes | images.ImageError:
    try:
        return images.upright_rgb(read(), name)
    except images.ImageError as error:
        return error
    except OSError as error:
        return images.ImageError(f"{name}: cannot be read ({error.strerror or error})")
