"""Sizes of the blocks of a search, chosen from a bound on its working memory.

The arithmetic lives here, apart from the tensor code, so that it can be tested and stated on its own.
"""

from __future__ import annotations

from dataclasses import dataclass

# Neighbouring columns that lie in different chunks: as many scores of two bytes as fill a vector register.
LANES = 32

DEFAULT_MEMORY_BYTES = 256 * 2**20

# Candidates kept beyond the requested depth. They are found by the expanded square, whose rounding can swap
# neighbours of nearly equal distance; the spare ones let the ranking by differences repair it at the border.
SPARE_CANDIDATES = 8

# Larger blocks gain nothing (the product is compute bound) and fall out of the processor's cache.
_MAX_QUERIES = 512
# Below this the product is bound by reading the gallery, so the gallery is cut into tiles instead; by the
# bytes of a score: products of two bytes leave less time to read.
_MIN_QUERIES = {4: 32, 2: 128}
# A survivor is gathered from a cache line of its own, then ranked; a chunk's maximum is only ranked.
_SURVIVOR_COST = 2.5
_CHUNK_SIZES = (16, 32, 64, 128, 256)
# Two stages pay if there are as many scores at least for each that survives the first.
_SCORES_PER_SURVIVOR = 6
# Rows that a product with matrix units takes at a time.
_UNIT_ROWS = 32
# Score, three comparisons, two combinations of them and the summand, per query and gallery row.
_COUNT_BYTES = 4 + 5 * 1 + 4


@dataclass(frozen=True)
class BlockPlan:
    """How a search is cut into pieces.

    Attributes:
        queries: rows of a query block.
        gallery: rows of a gallery tile, padding included; of whole stretches of chunks in turn.
        chunk: columns whose maximum is looked at first; 0: plain top-k over the row.
        candidates: neighbours kept for the exact re-ranking.
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
        depth: neighbours wanted per query, the query's own copy not counted.
        memory_bytes: bound on the sum of all intermediate tensors of a block. The embeddings themselves (the
            gallery twice, once with its squared norms; more for a look in bfloat16) and the results come
            on top.
        score_bytes: of a score, 4 or 2.

    Returns:
        The plan.

    Raises:
        ValueError: if not even one query fits into the bound.
    """
    candidates = min(depth + 1 + SPARE_CANDIDATES, num_gallery)
    # Cutting the gallery does not shrink what ranking the candidates takes, so it must leave room for that.
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
    return BlockPlan(_even_share(num_queries, most), gallery, chunk, candidates)


def plan_count(
    num_queries: int, num_gallery: int, dimension: int, members: int, memory_bytes: int = DEFAULT_MEMORY_BYTES
) -> BlockPlan:
    """Chooses the blocks of a counting pass; `members` is the largest number of listed rows per query.

    See `plan_search` for the other arguments and for what is raised.
    """
    half = memory_bytes // 2
    most = min(half // (4 * members * (3 * dimension + 16)), _MAX_QUERIES, num_queries)
    # The gallery's row numbers are made once per block, as if by one more query.
    gallery = min(half // (_COUNT_BYTES * (min(most, _MIN_QUERIES[4]) + 1)), num_gallery)
    if most < 1 or gallery < 1:
        raise ValueError(f"memory_bytes is {memory_bytes}, too few to rank {members} positives of one query")
    most = min(most, half // (_COUNT_BYTES * gallery) - 1)
    return BlockPlan(_even_share(num_queries, most), gallery, 0, 0)


def query_bytes(gallery: int, dimension: int, chunk: int, candidates: int, score_bytes: int = 4) -> int:
    """Upper bound of the bytes of all intermediate tensors that one query adds to a block."""
    # The query is rounded, too, and what is chosen from scores of two bytes becomes four bytes.
    scores = score_bytes * gallery + (4 if score_bytes == 4 else 24) * dimension
    copies = 1 if score_bytes == 4 else 2
    # Maxima and where pooling notes their places; places and scores of the survivors, and what the places are
    # added up from.
    stage_one = (copies + 1) * gallery // chunk + candidates * ((3 + copies) * chunk + 16) if chunk else 0
    return scores + 4 * stage_one + _ranking_bytes(dimension, candidates)


def _ranking_bytes(dimension: int, candidates: int) -> int:
    """Two sorted selections of candidates and their merge, then gathered rows and their differences."""
    return 4 * (candidates * (3 * dimension + 48) + 64)


def _chunk_size(gallery: int, candidates: int) -> int:
    """The chunk with which both stages cost the least; 0 if two stages do not pay."""
    ideal = (gallery / (_SURVIVOR_COST * candidates)) ** 0.5
    chunk = min(_CHUNK_SIZES, key=lambda size: abs(size - ideal))
    return chunk if _SCORES_PER_SURVIVOR * chunk * candidates <= gallery else 0


def _largest_tile(
    gallery: int, dimension: int, candidates: int, bytes_per_query: int, score_bytes: int
) -> tuple[int, int]:
    """The largest of equal tiles whose search stays within the bytes given to a query, and its chunk.

    A tile has `candidates` rows at least.
    """
    tiles = 1
    while (rows := -(-gallery // tiles)) > candidates:
        chunk = _chunk_size(rows, candidates)
        padded = _round_up(rows, chunk * LANES)
        if query_bytes(padded, dimension, chunk, candidates, score_bytes) <= bytes_per_query:
            return padded, chunk
        tiles = max(tiles + 1, tiles * 8 // 7)
    return candidates, 0


def _round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple if multiple else size


def _even_share(total: int, most: int) -> int:
    """Size of blocks of at most `most`: equal, or of whole units where there are several blocks."""
    if total <= most:
        return total
    blocks = -(-total // most)
    share = -(-total // blocks)
    whole = _round_up(share, _UNIT_ROWS)
    return whole if whole <= most else share // _UNIT_ROWS * _UNIT_ROWS or share
