"""Cost of several replicas.

    python -m benchmarks.scaling.run                         # all sections: about 20 minutes
    python -m benchmarks.scaling.run --sections memory       # the tables that follow from formulas: seconds
    python -m benchmarks.scaling.run --quick                 # one row of each other section, and its baseline

`replicas` measures a training step as `benchmarks.step` does: efficientnet_lite0 on a batch of images of
64 px, ccp/contrastive, on one device and divided among replicas, with whole and with sharded proxies.

`sharded` measures a call of a proxy loss, value and gradients for embeddings and proxies: whole, with all
classes on one replica, and sharded, with the classes spread over the replicas. Both have to have the same
value.

The replicas are logical devices of the CPU in one process and share its cores: the ratios show the overhead
of distribution, not a speed-up. Each row has a process of its own. Time is elapsed (median, least, most) and
of the processor (median), which a busy machine disturbs less; memory is the peak of all replicas together
during the calls, less the memory of TensorFlow before the proxies are made (Linux). The bytes that a replica
hands over are counted where it gives tensors to an exchange.

`sharded` writes row by row and continues where an earlier run on the same machine stopped: after `--minutes`,
or by Ctrl-C.
"""

from __future__ import annotations

import argparse
import math
import time
from typing import Any

from benchmarks.common import results
from benchmarks.common.processes import in_process
from benchmarks.scaling.processes import BATCH_SIZE, DIMENSION, IMAGES, THREADS, proxy_loss, training_step

LOSSES, CLASSES, REPLICAS = ("proxy_nca", "proxy_anchor"), (10**4, 10**5, 10**6), (2, 4)
TOLERANCE = 1e-5
SECTIONS = ("memory", "replicas", "sharded")


def main() -> None:
    parser = results.make_parser(__doc__)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SECTIONS, help="default: all")
    parser.add_argument("--minutes", type=float, default=30.0, help="start no row after that (default: 30)")
    parser.add_argument("--again", action="store_true", help="repeat rows of `sharded` that have results")
    options = parser.parse_args()
    found = {} if options.quick else results.read("scaling")
    if "replicas" in options.sections:
        found["replicas"] = measure_steps(options.quick)
        if not options.quick:
            results.write_results("scaling", found)
    if "sharded" in options.sections:
        measure_losses(found, options)
    results.show("scaling", found)
    if not options.quick:
        results.write_sections("scaling", found)


def measure_steps(quick: bool) -> dict[str, Any]:
    """The results of `replicas`."""
    here = results.machine()
    setting = (
        f"{here['processor']}, {here['cores']} cores, load {here['load_average'][0]:g}, {THREADS} threads "
        f"per operation; TensorFlow {here['tensorflow']}; B = {IMAGES}"
    )
    rows = {"whole/1": in_process(training_step, 1, False)}
    for count in REPLICAS[:1] if quick else REPLICAS:
        for kind in ("whole", "sharded"):
            rows[f"{kind}/{count}"] = in_process(training_step, count, kind == "sharded")
    return {"setting": setting, "results": rows}


def measure_losses(found: dict[str, Any], options: argparse.Namespace) -> None:
    """Adds the results of `sharded`, row by row."""
    here = results.machine()
    setting = (
        f"{here['processor']}, {here['cores']} cores, {THREADS} threads per operation; TensorFlow "
        f"{here['tensorflow']}; B = {BATCH_SIZE}, D = {DIMENSION}, one proxy per class"
    )
    if found.get("sharded", {}).get("setting") != setting:
        found["sharded"] = {"setting": setting, "results": {}}
    rows = found["sharded"]["results"]
    deadline = time.monotonic() + 60.0 * options.minutes
    kinds = [("whole", 1), *(("sharded", count) for count in REPLICAS)]
    for loss in LOSSES[:1] if options.quick else LOSSES:
        for classes in CLASSES[:1] if options.quick else CLASSES:
            for kind, count in kinds[:2] if options.quick else kinds:
                key = f"{loss}/{classes}/{kind}/{count}"
                if key in rows and not options.again:
                    continue
                if time.monotonic() > deadline:
                    raise SystemExit(f"{options.minutes:g} minutes are over; run again to continue")
                rows[key] = in_process(proxy_loss, loss, classes, kind == "sharded", count)
                check(key, rows[key], rows[f"{loss}/{classes}/whole/1"])
                print(f"{key}: {rows[key]['milliseconds']:.3g} ms", flush=True)
                if not options.quick:
                    results.write_results("scaling", found)


def check(key: str, row: dict[str, Any], whole: dict[str, Any]) -> None:
    """Raises SystemExit unless a row has the value of the whole loss."""
    if not math.isclose(row["value"], whole["value"], rel_tol=TOLERANCE):
        raise SystemExit(f"{key} has the value {row['value']}; expected {whole['value']}, as the whole loss")


if __name__ == "__main__":
    main()
