"""What the parts of a retrieval search take, each by itself.

    python -m benchmarks.search_parts               # half a minute

For some problems of benchmarks.retrieval, with scores in float32 and, where the search on this machine looks
in bfloat16 first, in that: the product of a block, the choice of the candidates from its scores, within it
the maxima of chunks and the same by `tf.reduce_max`, and the ranking of the candidates by exact differences.
The parts of one block take turns, and the median is multiplied by the number of blocks.
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
from benchmarks.retrieval_cases import CASES, Case, Problem, as_problem, make
from ccp_dml.evaluation import bfloat16, kernels
from ccp_dml.evaluation.blocks import DEFAULT_MEMORY_BYTES, LANES, BlockPlan, plan_search

PROBLEMS = ("sop", "sop512", "cub")
PRODUCT, CHOICE, RANKING = "product", "choice of candidates", "exact ranking"
POOLED, REDUCED = "of it, maxima of chunks", "these by tf.reduce_max"
PARTS = (PRODUCT, CHOICE, POOLED, REDUCED, RANKING)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--repeats", type=int, default=15, help="measurements of each part (15)")
    parser.add_argument(
        "--write", action=argparse.BooleanOptionalAction, default=True, help="write the results"
    )
    options = parser.parse_args()
    found = [row for name in PROBLEMS for row in measure(CASES[name], options.repeats)]
    lines = list(table(found))
    print("\n".join(lines))
    if options.write:
        write("search_parts", {"rows": found}, lines)


def measure(case: Case, repeats: int) -> Iterator[dict[str, Any]]:
    """Seconds of each part over all blocks of a problem, for each type of scores that a search takes."""
    problem = as_problem(case, *make(case))
    depth = int(problem.num_positives().max())
    sizes = len(problem.queries), len(problem.gallery), case.dimension, depth, DEFAULT_MEMORY_BYTES
    yield measure_blocks(case, problem, depth, plan_search(*sizes), repeats, in_float32=True)
    first_look = bfloat16.plan(*sizes)
    if first_look is not None:
        yield measure_blocks(case, problem, depth, first_look, repeats, in_float32=False)


def measure_blocks(
    case: Case, problem: Problem, deepest: int, plan: BlockPlan, repeats: int, *, in_float32: bool
) -> dict[str, Any]:
    kind = kernels if in_float32 else bfloat16
    rows, depth = tf.constant(problem.gallery), tf.constant(deepest)
    made = kind.as_tile(rows[: plan.gallery], tf.constant(plan.gallery))
    tile = made if in_float32 else made[0]
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
    blocks = -(-len(problem.queries) // plan.queries) * -(-len(rows) // plan.gallery)
    return {
        "title": case.title,
        "type": "float32" if in_float32 else "bfloat16",
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
