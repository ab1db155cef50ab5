"""Pictures of queries and their nearest neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ccp_dml.evaluation.panels import retrieval_panel
from ccp_dml.evaluation.search import nearest_neighbors
from ccp_dml.training.monitoring.events import EventCallback, EventLog

TAG = "retrieval/nearest_neighbors"
DESCRIPTION = (
    "A query per row, then its nearest neighbours: green, of the query's class; red and dashed, of another."
)


@dataclass(frozen=True)
class SearchedImages:
    """Images that are queries or neighbours.

    Attributes:
        embeddings: float [N, D], as the evaluation compares them.
        labels: int [N], classes.
        ids: int [N], identity of the images.
        pictures: given indices [n], returns these n images, uint8 RGB [H, W, 3], of any size.
    """

    embeddings: npt.NDArray[np.float32]
    labels: npt.NDArray[np.integer[Any]]
    ids: npt.NDArray[np.integer[Any]]
    pictures: Callable[[npt.NDArray[np.int64]], Sequence[npt.NDArray[np.uint8]]]


def neighbors_panel(
    images: SearchedImages,
    queries: npt.NDArray[np.int64],
    gallery: SearchedImages | None = None,
    neighbors: int = 8,
) -> npt.NDArray[np.uint8]:
    """Draws a few queries and their nearest neighbours.

    Args:
        images: the queries are among them.
        queries: their indices, the rows of the picture.
        gallery: where neighbours are searched; None: among `images`. A query is never its own neighbour.
        neighbors: how many neighbours are shown, fewer if there are not so many.

    Returns:
        uint8 RGB picture, see `evaluation.panels.retrieval_panel`.
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
    correct = gallery.labels[found] == images.labels[queries, np.newaxis]
    return retrieval_panel(images.pictures(queries), rows, correct)


class RetrievalPanels(EventCallback):
    """Shows the nearest neighbours of a few queries in the course of training, as an image of 'validation'.

    Drawn after the first epoch, after every `every`-th, and after the last one: before its checkpoint, so
    that a run that is killed then has the picture all the same.

    Args:
        events: where to write.
        embeddings: returns the present embeddings of the searched images, float [N, D], as the evaluation
            compares them; the last validation's will do. None yet (N = 0): nothing is drawn.
        labels: int [N], classes of the searched images.
        images: given indices [n], returns these n images, uint8 RGB [H, W, 3], of any size.
        queries: indices of the queries, the rows of the picture.
        neighbors: how many neighbours are shown; at most N - 1.
        every: epochs between pictures.
        stopped: returns whether training ends with this epoch, if that is not the last one.

    Raises:
        ValueError: if there is no query, a query is no index of `labels`, or a number is not positive.
    """

    def __init__(
        self,
        events: EventLog,
        embeddings: Callable[[], npt.NDArray[np.float32]],
        labels: npt.NDArray[np.integer[Any]],
        images: Callable[[npt.NDArray[np.int64]], Sequence[npt.NDArray[np.uint8]]],
        *,
        queries: Sequence[int],
        neighbors: int = 8,
        every: int = 10,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(events)
        self._embeddings, self._images = embeddings, images
        self._labels = np.asarray(labels)
        self._queries = np.asarray(queries, np.int64)
        self._neighbors = min(neighbors, len(self._labels) - 1)
        self._every, self._stopped = every, stopped
        self._drawn_at: int | None = None
        self._check()

    def _check(self) -> None:
        if self._neighbors < 1 or self._every < 1:
            raise ValueError(
                f"{self._neighbors} neighbours of {len(self._labels)} images every {self._every} epochs; "
                "expected positive numbers and at least 2 images"
            )
        if self._queries.size == 0 or not np.all((self._queries >= 0) & (self._queries < len(self._labels))):
            raise ValueError(
                f"queries are {self._queries.tolist()}; expected indices below {len(self._labels)}"
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Draws, if this epoch is due, and flushes, so that no picture is missing after its checkpoint."""
        is_last = epoch + 1 == self.params["epochs"] or self._stopped()
        if epoch == 0 or (epoch + 1) % self._every == 0 or is_last:
            self._draw()
            self.events.flush()

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Draws the last picture, if it was another callback that has ended training."""
        if self._drawn_at != self.events.step:
            self._draw()
        self.events.flush()

    def _draw(self) -> None:
        embeddings = np.asarray(self._embeddings(), np.float32)
        if not len(embeddings):  # Nothing was validated: the run has no epochs, or was already trained.
            return
        self._drawn_at = self.events.step
        images = SearchedImages(embeddings, self._labels, np.arange(len(embeddings)), self._images)
        panel = neighbors_panel(images, self._queries, neighbors=self._neighbors)
        self.events.image("validation", TAG, panel, DESCRIPTION)
