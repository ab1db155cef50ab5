"""What several replicas cost.

    python -m benchmarks.scaling sharded                 # C = 10 000 to 1 million; about 20 minutes
    python -m benchmarks.scaling sharded --quick         # C = 10 000; writes nothing
    python -m benchmarks.scaling memory                  # the tables that follow from formulas; seconds

`sharded` measures a call of a proxy loss, value and gradients for embeddings and proxies: whole, with all
classes on each replica, and sharded, with the classes spread over the replicas. The replicas are logical
devices of the CPU in one process, which share its cores: what is seen is the overhead of distribution, not a
speed-up. The value of the sharded loss has to be that of the whole one on one replica. Each row is measured
in a process of its own. Time is elapsed (median, least, most) and of the processor (median), which a busy
machine disturbs less; memory is the largest that all replicas hold together during the calls, less what
TensorFlow holds before the proxies are made (Linux). What a replica hands over to the others in a call is
counted where it does so.

Results go to benchmarks/scaling.json, row by row, and the tables in docs/scaling.md are made from them. A run
continues where an earlier one on the same machine stopped: when `--minutes` are over, or by Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import losses_report, measuring, scaling_memory, scaling_report

RESULTS = Path(__file__).with_name("scaling.json")
DOCS = Path(__file__).parents[1] / "docs" / "scaling.md"
LOSSES, CLASSES, REPLICAS = ("proxy_nca", "proxy_anchor"), (10**4, 10**5, 10**6), (2, 4)
TOLERANCE = 1e-5


def main() -> None:
    options = parse_options()
    if options.part == "sharded":
        sharded(options)
    if not options.quick:
        scaling_report.write_part(DOCS, "memory", scaling_memory.table())
        scaling_report.write_part(DOCS, "traffic", scaling_memory.traffic())


def sharded(options: argparse.Namespace) -> None:
    found = measuring.machine()
    setting = (
        f"{found['processor']}, {found['cores']} cores, {options.threads} threads per operation; TensorFlow "
        f"{found['tensorflow']}; B = {options.batch_size}, D = {options.dimension}, one proxy per class"
    )
    results = {} if options.quick else losses_report.read(RESULTS, setting)
    print(f"{setting}\n\n{scaling_report.HEADER}")
    deadline = time.monotonic() + 60.0 * options.minutes
    for loss in options.losses:
        for classes in options.classes:
            for kind, replicas in kinds(options):
                key = f"{loss}/{classes}/{kind}/{replicas}"
                if key not in results or options.again:
                    if time.monotonic() > deadline:
                        raise SystemExit(f"{options.minutes:g} minutes are over; run again to continue")
                    results[key] = measure(loss, classes, kind, replicas, options)
                    check(key, results[key], results[f"{loss}/{classes}/whole/1"])
                    if not options.quick:
                        losses_report.write(RESULTS, setting, results)
                        table = scaling_report.sharded_table(setting, results)
                        scaling_report.write_part(DOCS, "sharded", table)
                print(scaling_report.line(key, results[key]), flush=True)


def kinds(options: argparse.Namespace) -> list[tuple[str, int]]:
    """(Kind, replicas) of the rows, that which the others are compared with first."""
    of_replicas = [(kind, count) for count in options.replicas for kind in ("sharded", "whole")]
    return [("whole", 1), *(row for row in of_replicas if row[0] == "sharded" or options.whole)]


def measure(loss: str, classes: int, kind: str, replicas: int, options: argparse.Namespace) -> dict[str, Any]:
    asked = {
        "loss": loss,
        "classes": classes,
        "kind": kind,
        "replicas": replicas,
        "batch_size": options.batch_size,
        "dimension": options.dimension,
        "threads": options.threads,
        "repeats": options.repeats,
    }
    command = [sys.executable, "-m", "benchmarks.scaling_worker", json.dumps(asked)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        raise SystemExit(f"{asked} failed:\n{process.stderr[-2000:]}")
    return json.loads(process.stdout.splitlines()[-1])


def check(key: str, row: dict[str, Any], whole: dict[str, Any]) -> None:
    if not math.isclose(row["value"], whole["value"], rel_tol=TOLERANCE):
        raise SystemExit(f"{key} has the value {row['value']}; expected {whole['value']}, that of the whole")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("part", nargs="?", choices=("sharded", "memory"), default="sharded", help="what to do (sharded)")
    add("--losses", nargs="+", default=LOSSES, help=" ".join(LOSSES))
    add("--classes", nargs="+", type=int, help="10000 100000 1000000")
    add("--replicas", nargs="+", type=int, default=REPLICAS, help="besides one (2 4)")
    add("--whole", action="store_true", help="measure all classes on each of several replicas, too")
    add("--batch_size", type=int, default=64, help="B (64)")
    add("--dimension", type=int, default=64, help="D (64)")
    add("--repeats", type=int, default=5, help="measurements of each row (5)")
    add("--threads", type=int, default=1, help="of each operation (1)")
    add("--minutes", type=float, default=30.0, help="start no row after so long (30)")
    add("--again", action="store_true", help="measure anew what was measured before")
    add("--quick", action="store_true", help="few classes, result files stay as they are")
    options = parser.parse_args()
    options.classes = options.classes or (CLASSES[:1] if options.quick else CLASSES)
    return options


if __name__ == "__main__":
    main()
