"""Growth of time and memory of each component, and the needs of a hundred million images.

    python -m benchmarks.growth.run            # 5 minutes of the processor
    python -m benchmarks.growth.run --quick    # the smallest point of each component; writes nothing
    python -m benchmarks.growth.report         # makes plot and tables anew from the results

One size of a component grows at a time: images N, classes C, dimension D, proxies per class K, batch B, rows
M of the cross-batch memory. Each point has a process of its own. Seconds are of the processor, which a busy
machine disturbs less, the median of at least three calls; memory is the peak during the first call less the
resident memory before it, when inputs are already there (Linux). Losses are measured with their gradients. No
embedding model takes part: a pool reads its embeddings from a table.

An exponent is the slope of a line through the three largest points of the log-log plot.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any

from benchmarks.common import measuring, results
from benchmarks.common.processes import in_process
from benchmarks.growth import report

_LOSSES = [f"ccp_dml.losses.{name}" for name in ("contrastive", "triplet", "ccp", "cross_batch_memory")]
_PRELOAD = ["benchmarks.growth.components", *_LOSSES]


def main() -> None:
    options = results.make_parser(__doc__).parse_args()
    points = list(measure_all(options.quick))
    print(f"{sum(point['processor'] for point in points):.0f} s of the processor")
    if not options.quick:
        results.publish("growth", {"points": points}, write=True)
        report.draw()


def measure_all(quick: bool) -> Iterator[dict[str, Any]]:
    """The points of all components; if `quick`, the first one of each."""
    from benchmarks.growth.components import COMPONENTS, USUAL

    for name, component in COMPONENTS.items():
        points = [(axis, value) for axis, values in component.axes.items() for value in values]
        for axis, value in points[:1] if quick else points:
            sizes = replace(USUAL, **{axis: value})
            found = in_process(measure, name, sizes, preload=_PRELOAD)
            seconds, megabytes = found["seconds"], found["megabytes"]
            print(f"{name:14} {axis} = {value:<9,} {1e3 * seconds:10.2f} ms {megabytes:8.1f} MB", flush=True)
            yield {"part": name, "title": component.title, "axis": axis, "sizes": asdict(sizes), **found}


def measure(name: str, sizes: Any) -> dict[str, float]:
    """Seconds and megabytes of a component; to be called in a new process."""
    from benchmarks.growth.components import COMPONENTS

    component = COMPONENTS[name]
    # The very first call starts threads and traces functions.
    component.make(component.smallest())()
    call = component.make(sizes)
    measuring.reset_peak()
    before = measuring.megabytes("VmRSS")
    first = _processor_seconds(call)
    megabytes = measuring.megabytes("VmHWM") - before
    seconds = [_processor_seconds(call) for _ in range(3 if first > 0.1 else 15)]
    return {
        "seconds": statistics.median(seconds),
        "megabytes": max(0.0, megabytes),
        "processor": time.process_time(),
    }


def _processor_seconds(call: Callable[[], object]) -> float:
    return measuring.timed(call)[1]


if __name__ == "__main__":
    main()
