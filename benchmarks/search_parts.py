"""What the parts of a retrieval search take, each by itself.

    python -m benchmarks.search_parts               # two minutes

For some problems of benchmarks.retrieval and both types of scores: the product of a block, the choice of the
candidates from its scores, within it the maxima of chunks and the same by `tf.reduce_max`, and the ranking of
the candidates by exact differences. The parts of one block take turns, and the median is multiplied by the
number of blocks. Which type a search takes is another matter (`ccp_dml.evaluation.screening`).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from benchmarks.measuring import in_turns, times, write
from benchmarks.retrieval_cases import CASES, Case, as_problem, make
from ccp_dml.evaluation import coarse, kernels
from ccp_dml.evaluation.blocks import DEFAULT_MEMORY_BYTES, LANES, plan_search

# With the bytes of a score: no search of as many neighbours in so small a set takes two.
PROBLEMS = (("sop", 4), ("sop", 2), ("sop512", 4), ("sop512", 2), ("cub", 4))
PRODUCT, CHOICE, RANKING = "product", "choice of candidates", "exact ranking"
POOLED, REDUCED = "of it, maxima of chunks", "these by tf.reduce_max"
PARTS = (PRODUCT, CHOICE, POOLED, REDUCED, RANKING)
# Blocks of scores in bfloat16 that share the memory; see `screening`.
_COARSE_BLOCKS = 4


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--repeats", type=int, default=15, help="measurements of each part (15)")
    parser.add_argument(
        "--write", action=argparse.BooleanOptionalAction, default=True, help="write the results"
    )
    options = parser.parse_args()
    found = [measure(CASES[name], size, options.repeats) for name, size in PROBLEMS]
    lines = list(table(found))
    print("\n".join(lines))
    if options.write:
        write("search_parts", {"rows": found}, lines)


def measure(case: Case, score_bytes: int, repeats: int) -> dict[str, Any]:
    """Seconds of each part over all blocks of a problem."""
    problem = as_problem(case, *make(case))
    sizes = len(problem.queries), len(problem.gallery), case.dimension, int(problem.num_positives().max())
    memory = DEFAULT_MEMORY_BYTES if score_bytes == 4 else DEFAULT_MEMORY_BYTES // _COARSE_BLOCKS
    plan = plan_search(*sizes, memory, score_bytes=score_bytes)
    kind = kernels if score_bytes == 4 else coarse
    rows, depth = tf.constant(problem.gallery), tf.constant(sizes[-1])
    made = kind.as_tile(rows[: plan.gallery], tf.constant(plan.gallery))
    tile = made if score_bytes == 4 else made[0]
    block = tf.constant(problem.queries[: plan.queries])
    own, first, count = (
        tf.constant(value, tf.int32) for value in (np.arange(len(block)), 0, plan.candidates)
    )
    scores = kind.score(block, tile)
    _, candidates = kernels.best_of_rows(tf.cast(scores, tf.float32), first, count)
    tasks: dict[str, Callable[[], object]] = {
        PRODUCT: lambda: kind.score(block, tile),
        RANKING: lambda: kernels.rank(block, rows, candidates, own, depth),
    }
    if plan.chunk:
        tasks[CHOICE] = lambda: kind.best_of_chunks(scores, first, count, plan.chunk)
        tasks[POOLED] = lambda: kernels.maxima_of_chunks(scores, plan.chunk)
        tasks[REDUCED] = lambda: _reduced(scores, plan.chunk)
    else:
        tasks[CHOICE] = lambda: kernels.best_of_rows(scores, first, count)
    blocks = -(-sizes[0] // plan.queries) * -(-sizes[1] // plan.gallery)
    return {
        "title": case.title,
        "type": "float32" if score_bytes == 4 else "bfloat16",
        "queries": plan.queries,
        "gallery": plan.gallery,
        "candidates": plan.candidates,
        "blocks": blocks,
        "seconds": {
            part: blocks * times(rows).median for part, rows in in_turns(tasks, repeats, warm_ups=3).items()
        },
    }


def _reduced(scores: tf.Tensor, chunk: int) -> tf.Tensor:
    return tf.reduce_max(tf.reshape(scores, [len(scores), -1, chunk, LANES]), axis=2)


def table(found: list[dict[str, Any]]) -> Iterator[str]:
    yield "Seconds of all blocks:"
    yield ""
    yield "| | scores | block | candidates | " + " | ".join(PARTS) + " |"
    yield "|---|---|---|---|" + "---|" * len(PARTS)
    for row in found:
        cells = [f"{row['seconds'][part]:.2f}" if part in row["seconds"] else "" for part in PARTS]
        block = f"{row['queries']} × {row['gallery']:,}"
        yield (
            f"| {row['title']} | {row['type']} | {block} | {row['candidates']} | " + " | ".join(cells) + " |"
        )


if __name__ == "__main__":
    main()
