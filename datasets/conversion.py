"""Turns many image files into the encoded images of a data set, in parallel, and collects what is wrong."""

from __future__ import annotations

import concurrent.futures
import itertools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from datasets import images

_MAX_ERRORS_NAMED = 20
_CHUNK = 64

Key = TypeVar("Key")


def convert_all(
    files: Iterable[tuple[Key, str, Callable[[], bytes]]],
) -> Iterator[tuple[Key, bytes | images.ImageError]]:
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


def report(errors: Sequence[images.ImageError]) -> images.ImageError:
    """Returns one error that names what is wrong with some images."""
    if len(errors) == 1:
        return errors[0]
    named = [str(error) for error in errors[:_MAX_ERRORS_NAMED]]
    if len(errors) > _MAX_ERRORS_NAMED:
        named.append(f"and {len(errors) - _MAX_ERRORS_NAMED} more")
    return images.ImageError(f"{len(errors)} images cannot be used: " + "; ".join(named))


def _convert(name: str, read: Callable[[], bytes]) -> bytes | images.ImageError:
    try:
        return images.upright_rgb(read(), name)
    except images.ImageError as error:
        return error
    except OSError as error:
        return images.ImageError(f"{name}: cannot be read ({error.strerror})")
