"""Pictures of queries and their nearest neighbours, drawn in the course of training and after the test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ccp_dml.evaluation.search import nearest_neighbors
from ccp_dml.monitoring.events import EventCallback, EventLog

TAG = "Retrieval/nearest_neighbors"
DESCRIPTION = (
    "One query per row, then its nearest neighbours: green if they are of its class, else red and dashed."
)
WHITE = (255, 255, 255)
_POSITIVE = (0, 140, 70)
_NEGATIVE = (205, 35, 45)
_QUERY = (120, 120, 120)
# Marks are drawn this much larger and then reduced, which smooths their edges.
_OVERSAMPLING = 3

Images = Sequence[npt.NDArray[np.uint8]]


@dataclass(frozen=True)
class SearchedImages:
    """Images that are queries or neighbours.

    Attributes:
        embeddings: float32 [N, D], as the evaluation compares them.
        labels: int [N], classes.
        ids: int [N], identities of the images.
        pictures: returns the images of some indices [n], uint8 RGB [H, W, 3] each, of any size.
    """

    embeddings: npt.NDArray[np.floating[Any]]
    labels: npt.NDArray[np.integer[Any]]
    ids: npt.NDArray[np.integer[Any]]
    pictures: Callable[[npt.NDArray[np.int64]], Images]


class RetrievalPanels(EventCallback):
    """Shows the nearest neighbours of a few queries during training, as an image of 'validation'.

    Drawn after the first epoch, after every `every`-th epoch and after the last one. The last picture
    precedes the checkpoint of its epoch, so it exists even if the process is killed then.

    Args:
        events: the event log of the run.
        searched: returns the images with their present embeddings; without embeddings (N = 0), nothing is
            drawn.
        queries: indices of the queries, the rows of the picture.
        neighbors: number of neighbours to show.
        every: epochs between pictures.
        stopped: returns True if training ends with this epoch, before the last one.
    """

    def __init__(
        self,
        events: EventLog,
        searched: Callable[[], SearchedImages],
        queries: npt.NDArray[np.int64],
        *,
        neighbors: int = 8,
        every: int = 10,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(events)
        self._searched, self._queries, self._neighbors = searched, queries, neighbors
        self._every, self._stopped = every, stopped
        self._drawn_at: int | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Draws if this epoch is due, and flushes, so that its checkpoint never lacks the picture."""
        is_last = epoch + 1 == self.params["epochs"] or self._stopped()
        if epoch == 0 or (epoch + 1) % self._every == 0 or is_last:
            self._draw()
            self.events.flush()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Draws the last picture if another callback has ended training."""
        if self._drawn_at != self.events.step:
            self._draw()
        self.events.flush()

    def _draw(self) -> None:
        images = self._searched()
        if not len(images.embeddings):  # There was no validation: no epoch was trained in this process.
            return
        self._drawn_at = self.events.step
        panel = neighbors_panel(images, self._queries, neighbors=self._neighbors)
        self.events.image("validation", TAG, panel, DESCRIPTION)


def neighbors_panel(
    images: SearchedImages,
    queries: npt.NDArray[np.int64],
    gallery: SearchedImages | None = None,
    neighbors: int = 8,
) -> npt.NDArray[np.uint8]:
    """Searches and draws the nearest neighbours of a few queries.

    Args:
        images: images that contain the queries.
        queries: indices of the queries, the rows of the picture.
        gallery: images to search; None: `images`. A query is never its own neighbour.
        neighbors: number of neighbours to show, fewer if the gallery is smaller.

    Returns:
        uint8 RGB picture, see `retrieval_panel`.
    """
    gallery = images if gallery is None else gallery
    count = min(neighbors, len(gallery.labels) - int(np.isin(images.ids[queries], gallery.ids).any()))
    found, _ = nearest_neighbors(
        images.embeddings[queries],
        gallery.embeddings,
        k=count,
        query_ids=images.ids[queries],
        gallery_ids=gallery.ids,
    )
    pictures = gallery.pictures(found.ravel().astype(np.int64))
    rows = [pictures[row * count :][:count] for row in range(len(found))]
    is_correct = gallery.labels[found] == images.labels[queries, np.newaxis]
    return retrieval_panel(images.pictures(queries), rows, is_correct)


def retrieval_panel(
    queries: Images, neighbors: Sequence[Images], correct: npt.ArrayLike, size: int = 96
) -> npt.NDArray[np.uint8]:
    """Draws one row per query: the query, a wider gap, its neighbours in order of rank.

    A correct neighbour has a solid green frame and a tick, a wrong one a dashed red frame and a cross, so the
    picture can be read without colour. A query has a thin grey frame.

    Args:
        queries: the query images, at least one, uint8 RGB [H, W, 3].
        neighbors: the nearest images of each query, nearest first; the same number for all, at least one.
        correct: bool [queries, neighbours], True where a neighbour is of the class of the query.
        size: side of an image in the picture, in pixels, at least 16; images keep their aspect ratio.

    Returns:
        uint8 RGB picture on white.

    Raises:
        ValueError: if the numbers do not match, there is nothing to draw, or an image is not uint8 RGB.
    """
    correct = np.asarray(correct, bool)
    counts = {len(row) for row in neighbors}
    if not len(queries) or len(neighbors) != len(queries) or len(counts) != 1 or 0 in counts:
        raise ValueError(
            f"expected equally many neighbours (at least 1) for each of the queries (at least 1), got "
            f"{len(queries)} queries and rows of {[len(row) for row in neighbors]} neighbours"
        )
    columns = counts.pop()
    if correct.shape != (len(queries), columns):
        raise ValueError(f"correct must have shape {(len(queries), columns)}, got {correct.shape}")
    layout = _Layout(size)
    picture = Image.new("RGB", layout.picture_size(len(queries), columns), WHITE)
    for row, (query, found) in enumerate(zip(queries, neighbors)):
        picture.paste(_query_tile(query, layout), layout.corner(row, 0))
        for column, image in enumerate(found):
            tile = _neighbor_tile(image, bool(correct[row, column]), layout)
            picture.paste(tile, layout.corner(row, column + 1))
    return np.array(picture)


class _Layout:
    """Measures of a panel in pixels."""

    def __init__(self, size: int):
        if size < 16:
            raise ValueError(f"size must be at least 16 pixels, got {size}")
        self.size = size
        self.frame = max(2, size // 24)
        self.gap = max(4, size // 12)
        self.tile = size + 2 * self.frame
        # Between the query and its neighbours.
        self.wide_gap = 3 * self.gap

    def corner(self, row: int, column: int) -> tuple[int, int]:
        """Upper left corner of a tile; column 0 is the query."""
        step = self.tile + self.gap
        extra = self.wide_gap - self.gap if column else 0
        return self.gap + column * step + extra, self.gap + row * step

    def picture_size(self, rows: int, neighbors: int) -> tuple[int, int]:
        """Width and height of the picture."""
        left, top = self.corner(rows - 1, neighbors)
        return left + self.tile + self.gap, top + self.tile + self.gap


def _query_tile(image: npt.NDArray[np.uint8], layout: _Layout) -> Image.Image:
    tile = _framed(image, layout)
    ImageDraw.Draw(tile).rectangle((0, 0, layout.tile - 1, layout.tile - 1), outline=_QUERY)
    return tile


def _neighbor_tile(image: npt.NDArray[np.uint8], correct: bool, layout: _Layout) -> Image.Image:
    tile = _framed(image, layout)
    colour = _POSITIVE if correct else _NEGATIVE
    _draw_frame(ImageDraw.Draw(tile), colour, dashed=not correct, layout=layout)
    badge = max(11, layout.size // 5)
    corner = layout.tile - badge
    mark = _badge(badge, colour, correct)
    tile.paste(mark, (corner, corner), mark)
    return tile


def _framed(image: npt.NDArray[np.uint8], layout: _Layout) -> Image.Image:
    """The image with a white margin, on which the frame is drawn."""
    tile = Image.new("RGB", (layout.tile, layout.tile), WHITE)
    tile.paste(fitted(image, layout.size), (layout.frame, layout.frame))
    return tile


def _draw_frame(
    draw: ImageDraw.ImageDraw, colour: tuple[int, int, int], *, dashed: bool, layout: _Layout
) -> None:
    last = layout.tile - 1
    draw.rectangle((0, 0, last, last), outline=colour, width=layout.frame)
    if not dashed:
        return
    dash = max(3, layout.size // 14)
    for start in range(2 * dash, layout.tile - 2 * dash, 2 * dash):
        end = min(start + dash, layout.tile) - 1
        for low, high in ((0, layout.frame - 1), (layout.tile - layout.frame, last)):
            draw.rectangle((start, low, end, high), fill=WHITE)
            draw.rectangle((low, start, high, end), fill=WHITE)


def _badge(side: int, colour: tuple[int, int, int], correct: bool) -> Image.Image:
    """A coloured square with a white tick or cross."""
    large = side * _OVERSAMPLING
    badge = Image.new("RGBA", (large, large), (*colour, 255))
    draw = ImageDraw.Draw(badge)
    width = max(2, large // 8)

    def line(*points: tuple[float, float]) -> None:
        draw.line([(x * large, y * large) for x, y in points], fill=WHITE, width=width, joint="curve")

    if correct:
        line((0.22, 0.52), (0.42, 0.72), (0.78, 0.28))
    else:
        line((0.27, 0.27), (0.73, 0.73))
        line((0.27, 0.73), (0.73, 0.27))
    return badge.resize((side, side), Image.Resampling.LANCZOS)


def fitted(image: npt.NDArray[np.uint8], size: int) -> Image.Image:
    """Scales an image to fit a square and centres it on white."""
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"an image must be uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")
    height, width = image.shape[:2]
    scale = size / max(height, width)
    target = (max(1, round(width * scale)), max(1, round(height * scale)))
    scaled = Image.fromarray(image).resize(target, Image.Resampling.LANCZOS)
    square = Image.new("RGB", (size, size), WHITE)
    square.paste(scaled, ((size - target[0]) // 2, (size - target[1]) // 2))
    return square
