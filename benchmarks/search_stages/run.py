"""Time of the stages of a retrieval search, each by itself.

    python -m benchmarks.search_stages.run            # half a minute
    python -m benchmarks.search_stages.run --quick    # each stage once

The stages are the product of a block, the choice of the candidates from its scores, within it the maxima of
chunks (and the same by `tf.reduce_max`), and the ranking of the candidates by exact differences. They are
measured on problems of benchmarks.retrieval, with scores in float32 and, where the search on this machine
looks in bfloat16 first, in bfloat16. The stages of one block take turns; the median is multiplied by the
number of blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.common import results
from benchmarks.common.measuring import in_turns, summarize
from benchmarks.retrieval.cases import CASES, Case, Problem, as_problem, make
from benchmarks.search_stages.report import CHOICE, POOLED, PRODUCT, RANKING, REDUCED
from ccp_dml.evaluation import bfloat16, kernels
from ccp_dml.evaluation.blocks import DEFAULT_MEMORY_BYTES, LANES, BlockPlan, plan_search

PROBLEMS, REPEATS = ("sop", "sop512", "cub"), 15


def main() -> None:
    options = results.make_parser(__doc__).parse_args()
    repeats = 1 if options.quick else REPEATS
    rows = [row for name in PROBLEMS for row in measure(CASES[name], repeats)]
    results.publish("search_stages", {"rows": rows}, write=not options.quick)


def measure(case: Case, repeats: int) -> Iterator[dict[str, Any]]:
    """The rows of a problem: one for each type of scores that a search on this machine takes."""
    problem = as_problem(case, *make(case))
    depth = int(problem.num_positives().max())
    sizes = len(problem.queries), len(problem.gallery), case.dimension, depth, DEFAULT_MEMORY_BYTES
    yield measure_blocks(case, problem, plan_search(*sizes), repeats, in_float32=True)
    first_look = bfloat16.plan(*sizes)
    if first_look is not None:
        yield measure_blocks(case, problem, first_look, repeats, in_float32=False)


def measure_blocks(
    case: Case, problem: Problem, plan: BlockPlan, repeats: int, *, in_float32: bool
) -> dict[str, Any]:
    """Seconds of each stage over all blocks."""
    kind = kernels if in_float32 else bfloat16
    gallery = tf.constant(problem.gallery)
    made = kind.as_tile(gallery[: plan.gallery], tf.constant(plan.gallery))
    tile = made if in_float32 else made[0]
    block = tf.constant(problem.queries[: plan.queries])
    positions = tf.constant(np.arange(len(block)), tf.int32)
    first, count = tf.constant(0), tf.constant(plan.candidates)
    scores = kind.score(block, tile)
    _, candidates, _ = kernels.best_of_rows(tf.cast(scores, tf.float32), first, count)
    tasks: dict[str, Callable[[], object]] = {
        PRODUCT: lambda: kind.score(block, tile),
        RANKING: lambda: kernels.rank(block, gallery, candidates, positions),
    }
    if plan.chunk:
        stretches = tf.reshape(scores, [len(scores), -1, plan.chunk, LANES])
        tasks[CHOICE] = lambda: kernels.best_of_chunks(scores, first, count, plan.chunk)
        tasks[POOLED] = lambda: kernels.maxima_of_chunks(scores, plan.chunk)
        tasks[REDUCED] = lambda: tf.reduce_max(stretches, axis=2)
    else:
        tasks[CHOICE] = lambda: kernels.best_of_rows(scores, first, count)
    seconds = in_turns(tasks, repeats, warm_ups=3)
    blocks = -(-len(problem.queries) // plan.queries) * -(-len(gallery) // plan.gallery)
    return {
        "title": case.title,
        "type": "float32" if in_float32 else "bfloat16",
        "queries": plan.queries,
        "gallery": plan.gallery,
        "candidates": plan.candidates,
        "blocks": blocks,
        "seconds": {stage: blocks * summarize(calls).median for stage, calls in seconds.items()},
    }


if __name__ == "__main__":
    main()
