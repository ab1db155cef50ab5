"""Sizes of the blocks of a search, chosen from a bound on its working memory.

The arithmetic is apart from the tensor code, so that it can be tested by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

DEFAULT_MEMORY_BYTES = 256 * 2**20
# Adjacent columns belong to different chunks: as many two-byte scores as a vector register holds.
LANES = 32
# Candidates kept beyond the requested depth. They are found by the expanded square, whose rounding can swap
# neighbours of nearly equal distance; with spare ones, the ranking by differences repairs that at the border.
SPARE_CANDIDATES = 8

# Larger blocks gain nothing (the product is bound by arithmetic) and leave the processor's cache.
_MAX_QUERIES = 512
# With fewer queries, reading the gallery bounds the product, so the gallery is cut into tiles instead. By the
# bytes of a score: products of two-byte numbers leave less time to read.
_MIN_QUERIES = {4: 32, 2: 128}
# A survivor is gathered from a cache line of its own, then ranked; the maximum of a chunk is only ranked.
_SURVIVOR_COST = 2.5
_CHUNK_SIZES = (16, 32, 64, 128, 256)
# Two stages pay if there are at least this many scores for each survivor of the first stage.
_SCORES_PER_SURVIVOR = 6
# Rows that a product on matrix units takes at a time.
_UNIT_ROWS = 32


@dataclass(frozen=True)
class BlockPlan:
    """Sizes of the pieces that a search is cut into.

    Attributes:
        queries: rows of a query block.
        gallery: rows of a gallery tile, padding included; a multiple of `chunk * LANES` if there are chunks.
        chunk: number of columns whose maximum is taken in the first stage; 0: one stage, top-k over the row.
        candidates: neighbours kept for the exact ranking.
    """

    queries: int
    gallery: int
    chunk: int
    candidates: int


def plan_search(
    num_queries: int,
    num_gallery: int,
    dimension: int,
    depth: int,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    *,
    score_bytes: int = 4,
) -> BlockPlan:
    """Chooses the blocks of a nearest-neighbour search.

    Args:
        num_queries: number of queries, at least 1.
        num_gallery: number of gallery rows, at least 1.
        dimension: embedding size.
        depth: neighbours wanted per query, the query itself not counted.
        memory_bytes: bound on the sum of all intermediate tensors of a block. The embeddings themselves (the
            gallery twice, once with its squared norms; more for a first look in bfloat16) and the results
            come on top.
        score_bytes: bytes of a score, 4 or 2.

    Returns:
        The plan.

    Raises:
        ValueError: if the bound is too small for a single query.
    """
    candidates = min(depth + 1 + SPARE_CANDIDATES, num_gallery)
    # Smaller tiles do not make the ranking of the candidates smaller, so they must leave room for it.
    fewest = min(
        _MIN_QUERIES[score_bytes],
        num_queries,
        max(1, memory_bytes // (2 * _ranking_bytes(dimension, candidates))),
    )
    gallery, chunk = _largest_tile(num_gallery, dimension, candidates, memory_bytes // fewest, score_bytes)
    per_query = query_bytes(gallery, dimension, chunk, candidates, score_bytes)
    if per_query > memory_bytes:
        raise ValueError(
            f"memory_bytes is {memory_bytes}; a search for {depth} neighbours of one query needs {per_query}"
        )
    most = min(memory_bytes // per_query, _MAX_QUERIES, num_queries)
    return BlockPlan(_even_size(num_queries, most), gallery, chunk, candidates)


def slices(total: int, size: int) -> Iterator[slice]:
    """Yields slices of at most `size` that cover `total` items in order."""
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


def query_bytes(gallery: int, dimension: int, chunk: int, candidates: int, score_bytes: int = 4) -> int:
    """Upper bound of the bytes of all intermediate tensors that one query adds to a block."""
    # With two-byte scores the query is rounded as well, and the chosen scores become four bytes again.
    scores = score_bytes * gallery + (4 if score_bytes == 4 else 24) * dimension
    copies = 1 if score_bytes == 4 else 2
    # The maxima and the places that pooling keeps of them; places and scores of the survivors, and the
    # summands of the places.
    stage_one = (copies + 1) * gallery // chunk + candidates * ((3 + copies) * chunk + 16) if chunk else 0
    return scores + 4 * stage_one + _ranking_bytes(dimension, candidates)


def _ranking_bytes(dimension: int, candidates: int) -> int:
    """Bytes per query: two sorted selections of candidates, their merge, gathered rows and differences."""
    return 4 * (candidates * (3 * dimension + 48) + 64)


def _largest_tile(
    gallery: int, dimension: int, candidates: int, bytes_per_query: int, score_bytes: int
) -> tuple[int, int]:
    """The largest of equal tiles whose search fits the bytes of a query, and its chunk.

    A tile has at least `candidates` rows.
    """
    tiles = 1
    while (rows := -(-gallery // tiles)) > candidates:
        chunk = _chunk_size(rows, candidates)
        padded = _round_up(rows, chunk * LANES)
        if query_bytes(padded, dimension, chunk, candidates, score_bytes) <= bytes_per_query:
            return padded, chunk
        tiles = max(tiles + 1, tiles * 8 // 7)
    return candidates, 0


def _chunk_size(gallery: int, candidates: int) -> int:
    """The chunk that makes both stages cheapest; 0 if two stages do not pay."""
    ideal = (gallery / (_SURVIVOR_COST * candidates)) ** 0.5
    chunk = min(_CHUNK_SIZES, key=lambda size: abs(size - ideal))
    return chunk if _SCORES_PER_SURVIVOR * chunk * candidates <= gallery else 0


def _even_size(total: int, most: int) -> int:
    """Size of blocks of at most `most` rows: equal, and of full units if there are several blocks."""
    if total <= most:
        return total
    blocks = -(-total // most)
    size = -(-total // blocks)
    full_units = _round_up(size, _UNIT_ROWS)
    return full_units if full_units <= most else size // _UNIT_ROWS * _UNIT_ROWS or size


def _round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple if multiple else size
