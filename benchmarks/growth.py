"""How the time and the memory of each part grow, and what a hundred million images would need.

    python -m benchmarks.growth                   # 5 minutes of the processor
    python -m benchmarks.growth --report          # draws and writes what was measured before, anew

One size of a part grows at a time: images N, classes C, dimension D, proxies per class K, batch B, rows M of
the cross-batch memory. Each point has a process of its own. Seconds are those of the processor, which a busy
machine disturbs less, the median of at least three calls; memory is the largest resident memory during the
first call less that before it (Linux), its input and output being there already. Losses are measured with
their gradients. The embedding model takes no part: drawing a pool reads embeddings from a table.

An exponent is the slope of a straight line through the three largest points of the log-log plot. Results go
to benchmarks/growth.json, the plot to docs/scaling.png and the tables to docs/scaling.md.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks import growth_report, measuring

RESULTS = measuring.FOLDER / "growth.json"
DOCS = measuring.FOLDER.parent / "docs"
_LOSSES = [f"ccp_dml.losses.{name}" for name in ("contrastive", "triplet", "ccp", "cross_batch_memory")]
_PRELOADED = ["benchmarks.growth_parts", *_LOSSES, __name__]


def main() -> None:
    options = parse_options()
    if not options.report:
        points = list(measure_all(options))
        found = {"machine": measuring.machine(), "points": points}
        RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(f"{sum(point['processor'] for point in points):.0f} s of the processor")
    growth_report.write(json.loads(RESULTS.read_text(encoding="utf-8")), DOCS)


def measure_all(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from benchmarks.growth_parts import PARTS, USUAL

    for name in options.parts or PARTS:
        part = PARTS[name]
        for axis, values in part.axes.items():
            for value in values:
                sizes = replace(USUAL, **{axis: value})
                found = in_a_process(name, sizes)
                milliseconds, megabytes = 1e3 * found["seconds"], found["megabytes"]
                print(
                    f"{name:14} {axis} = {value:<9,} {milliseconds:10.2f} ms {megabytes:8.1f} MB", flush=True
                )
                yield {"part": name, "title": part.title, "axis": axis, "sizes": asdict(sizes), **found}


def in_a_process(name: str, sizes: Any) -> dict[str, float]:
    """Seconds and megabytes of a part at given sizes."""
    context = multiprocessing.get_context("forkserver")
    # Forked from a process that has imported everything and used nothing.
    context.set_forkserver_preload(_PRELOADED)
    connection, other = context.Pipe()
    process = context.Process(target=_serve, args=(other, name, sizes))
    process.start()
    other.close()
    try:
        return connection.recv()
    except EOFError:
        raise SystemExit(f"{name} at {sizes}: the process ended without a result") from None
    finally:
        process.join()


def _serve(connection: Connection, name: str, sizes: Any) -> None:
    from benchmarks.growth_parts import PARTS

    part = PARTS[name]
    # Pools of threads start, and what is traced once is traced, at the first call of all.
    part.make(part.smallest())()
    call = part.make(sizes)
    # From here on the largest resident memory is counted anew.
    Path("/proc/self/clear_refs").write_text("5")
    before = measuring.megabytes("VmRSS")
    first = _processor_seconds(call)
    megabytes = measuring.megabytes("VmHWM") - before
    seconds = [_processor_seconds(call) for _ in range(3 if first > 0.1 else 15)]
    connection.send(
        {
            "seconds": statistics.median(seconds),
            "megabytes": max(0.0, megabytes),
            "processor": time.process_time(),
        }
    )


def _processor_seconds(call: Any) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--parts", nargs="+", metavar="NAME", help="only these, as growth_parts.py names them"
    )
    parser.add_argument("--report", action="store_true", help="measure nothing")
    return parser.parse_args()


if __name__ == "__main__":
    main()
