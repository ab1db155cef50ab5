"""Queries and gallery rows of a search: as given, rounded to float32, and the error between the two.

The search compares rounded rows. They are centred at the mean of the gallery, which changes no difference,
and scaled by a power of two, which changes no ranking and keeps squares from underflow. With u = 2^-24, the
largest relative error of a rounding to float32, a rounded query q and a rounded row g differ from the exact
ones by at most u |q| and u |g|. So, with D dimensions,

    the distance |q - g|                  is off by at most  e = u (|q| + |g|),
    its square, taken from differences,   by at most  2 |q - g| e + e^2 + (D + 4) u |q - g|^2,
    and |q|^2 - (2 q.g - |g|^2)           by at most  2 (D + 8) u (|q| + |g|)^2.

The bounds in the code are these with some room. Rows whose order they leave open are compared as given, by
their squared differences in float64.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ccp_dml.evaluation.inputs import Floats, Ints

_ROUNDING = 2.0**-24
# Products below 2^-126 may count as zero.
_UNDERFLOW = 2.0**-110
_ROWS_AT_ONCE = 4096
_BYTES_AT_ONCE = 2**24
# The scale of float64 rows that are smaller would overflow.
_LEAST_EXPONENT = -1000


class Points:
    """Queries and a gallery in exact and in rounded form.

    Squared distances are those of the scaled rows; `scale` leads back to those of the rows as given.

    Attributes:
        queries: as given, float32 or float64 [Q, D].
        gallery: as given, float32 or float64 [G, D].
        scale: factor of the scaled rows, a power of two that makes their largest coordinate 0.5 to 1.
        rounded_gallery: float32 [G, D].
    """

    def __init__(self, queries: Floats, gallery: Floats) -> None:
        """Centres, scales and rounds the gallery."""
        self.queries, self.gallery = queries, gallery
        self._centre = gallery.mean(axis=0, dtype=np.float64)
        largest = max(self._largest(queries), self._largest(gallery))
        self.scale = 2.0 ** -max(math.frexp(largest)[1], _LEAST_EXPONENT) if largest else 1.0
        rounded, self._largest_norm = np.empty(gallery.shape, np.float32), 0.0
        for start in range(0, len(gallery), _ROWS_AT_ONCE):
            piece = slice(start, start + _ROWS_AT_ONCE)
            rounded[piece] = self._rounded(gallery[piece])
            self._largest_norm = max(self._largest_norm, norms(rounded[piece]).max())
        self.rounded_gallery = tf.constant(rounded)

    def rounded_queries(self, chosen: Ints | slice) -> npt.NDArray[np.float32]:
        """Returns chosen queries, float32 [n, D], as they are compared with `rounded_gallery`."""
        return self._rounded(self.queries[chosen])

    def squared_distances(self, queries: Ints, rows: Ints) -> Floats:
        """Returns the squared distances of pairs in float64, infinite for row -1.

        Args:
            queries: int [p], indices of queries.
            rows: int [p], indices of gallery rows, or -1.
        """
        found = np.empty(len(queries))
        at_once = max(1, _BYTES_AT_ONCE // (8 * self.gallery.shape[1]))
        for start in range(0, len(queries), at_once):
            pairs = slice(start, start + at_once)
            differences = self.gallery[rows[pairs]].astype(np.float64)
            differences -= self.queries[queries[pairs]]
            differences *= self.scale
            found[pairs] = np.einsum("pd,pd->p", differences, differences)
        return np.where(rows < 0, np.inf, found)

    def score_errors(self, query_norms: Floats) -> Floats:
        """Bounds the errors of |q|^2 - score against the squared distance to any row, float64 [n]."""
        dimension = self.gallery.shape[1]
        reach = query_norms + self._largest_norm
        return 2.0 * (dimension + 16) * _ROUNDING * reach**2 + dimension * _UNDERFLOW

    def sort(self, queries: Ints, query_norms: Floats, rows: Ints, squared: Floats) -> tuple[Ints, Floats]:
        """Sorts candidates, which are sorted by rounded distances, by exact ones and then by index.

        Args:
            queries: int [n], indices of queries.
            query_norms: float64 [n], of the rounded queries.
            rows: int32 [n, c], candidates of each query, -1 for none, behind the others.
            squared: float32 [n, c], ascending squared distances of rounded rows, infinite for none.

        Returns:
            (rows in exact order, int32 [n, c]; a bound [n, c] that the squared distances of a row and of all
            before it do not exceed).
        """
        squared = squared.astype(np.float64)
        errors = self._distance_errors(query_norms[:, np.newaxis], squared)
        most = np.maximum.accumulate(squared + errors, axis=1)
        least = np.minimum.accumulate((squared - errors)[:, ::-1], axis=1)[:, ::-1]
        is_split = np.pad(most[:, :-1] < least[:, 1:], [(0, 0), (1, 1)], constant_values=True)
        # Rows between two splits are not in order yet.
        is_open = ~(is_split[:, :-1] & is_split[:, 1:]) & (rows >= 0)
        lines = np.flatnonzero(is_open.any(axis=1))
        if lines.size:
            rows, is_open = rows.copy(), is_open[lines]
            exact = np.zeros(is_open.shape)
            places, columns = np.nonzero(is_open)
            exact[places, columns] = self.squared_distances(
                queries[lines[places]], rows[lines[places], columns]
            )
            groups = np.cumsum(is_split[lines, :-1], axis=1)
            order = np.lexsort((rows[lines], exact, groups), axis=1)
            rows[lines] = np.take_along_axis(rows[lines], order, axis=1)
        return rows, most

    def _distance_errors(self, query_norms: Floats, squared: Floats) -> Floats:
        """Bounds the errors of squared distances of rounded rows."""
        dimension = self.gallery.shape[1]
        squared = np.where(np.isfinite(squared), squared, 0.0)
        distance = np.sqrt(squared)
        # |g| is at most |q| and the distance together.
        error = 2.5 * _ROUNDING * (query_norms + distance)
        products = (2.0 * distance + error) * error + (dimension + 8) * _ROUNDING * squared
        return products + dimension * _UNDERFLOW

    def _rounded(self, rows: Floats) -> npt.NDArray[np.float32]:
        return ((rows - self._centre) * self.scale).astype(np.float32)

    def _largest(self, rows: Floats) -> float:
        """The largest coordinate of the centred rows."""
        starts = range(0, len(rows), _ROWS_AT_ONCE)
        return max(
            (float(np.abs(rows[start : start + _ROWS_AT_ONCE] - self._centre).max()) for start in starts),
            default=0.0,
        )


def norms(rows: Floats) -> Floats:
    """Returns the norms of rounded rows, float64 [n]."""
    wide = rows.astype(np.float64)
    return np.sqrt(np.einsum("nd,nd->n", wide, wide))
