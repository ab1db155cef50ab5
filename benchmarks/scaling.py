"""What several replicas cost.

    python -m benchmarks.scaling                         # all of the following
    python -m benchmarks.scaling memory                  # the tables that follow from formulas; seconds
    python -m benchmarks.scaling replicas                # training steps on 1, 2 and 4 replicas; minutes
    python -m benchmarks.scaling sharded                 # C = 10 000 to 1 million; about 20 minutes
    python -m benchmarks.scaling sharded --quick         # C = 10 000; writes nothing

`sharded` measures a call of a proxy loss, value and gradients for embeddings and proxies: whole, with all
classes on each replica, and sharded, with the classes spread over the replicas. The replicas are logical
devices of the CPU in one process, which share its cores: what is seen is the overhead of distribution, not a
speed-up. The value of the sharded loss has to be that of the whole one on one replica. Each row is measured
in a process of its own. Time is elapsed (median, least, most) and of the processor (median), which a busy
machine disturbs less; memory is the largest that all replicas hold together during the calls, less what
TensorFlow holds before the proxies are made (Linux). What a replica hands over to the others in a call is
counted where it does so.

`replicas` measures a training step, as `benchmarks.step` does: efficientnet_lite0 on a batch of images of
64 px, ccp/contrastive, on one device and divided among replicas, with whole and with sharded proxies. What a
replica hands over is the size of all tensors that it gives to an exchange in a step.

Results go to benchmarks/scaling.json, and the tables in docs/scaling.md are made from them. `sharded` writes
row by row, and continues where an earlier run on the same machine stopped: when `--minutes` are over, or by
Ctrl-C. (The growth of each part, also in docs/scaling.md, is measured by `benchmarks.growth`.)
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

from benchmarks import measuring, scaling_memory, scaling_report

RESULTS = Path(__file__).with_name("scaling.json")
DOCS = Path(__file__).parents[1] / "docs" / "scaling.md"
LOSSES, CLASSES, REPLICAS = ("proxy_nca", "proxy_anchor"), (10**4, 10**5, 10**6), (2, 4)
TOLERANCE = 1e-5
PARTS = ("memory", "replicas", "sharded")


def main() -> None:
    options = parse_options()
    # In this order, as the last one may run out of minutes.
    for name, part in zip(PARTS, (memory, replicas, sharded), strict=True):
        if name in options.parts:
            part(options)


def memory(options: argparse.Namespace) -> None:
    if not options.quick:
        scaling_report.write_part(DOCS, "memory", scaling_memory.table())
        scaling_report.write_part(DOCS, "traffic", scaling_memory.traffic())


def sharded(options: argparse.Namespace) -> None:
    found = measuring.machine()
    setting = (
        f"{found['processor']}, {found['cores']} cores, {options.threads} threads per operation; TensorFlow "
        f"{found['tensorflow']}; B = {options.batch_size}, D = {options.dimension}, one proxy per class"
    )
    results = {} if options.quick else read("sharded", setting)
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
                        write("sharded", setting, results)
                        table = scaling_report.sharded_table(setting, results)
                        scaling_report.write_part(DOCS, "sharded", table)
                print(scaling_report.line(key, results[key]), flush=True)


def replicas(options: argparse.Namespace) -> None:
    found = measuring.machine()
    setting = (
        f"{found['processor']}, {found['cores']} cores, load {found['load_average'][0]:g}, {options.threads} "
        f"threads per operation; TensorFlow {found['tensorflow']}; B = {options.images}"
    )
    results: dict[str, Any] = {}
    print(f"{setting}\n\n{scaling_report.HEADER}")
    for count, is_sharded in [(1, False), *((n, s) for n in options.replicas for s in (False, True))]:
        key = f"{'sharded' if is_sharded else 'whole'}/{count}"
        asked = {
            "replicas": count,
            "sharded": is_sharded,
            "batch_size": options.images,
            "steps": options.steps,
        }
        asked |= {"threads": options.threads, "repeats": options.repeats}
        results[key] = in_process("benchmarks.scaling_replicas", asked)
        print(scaling_report.line(key, results[key]), flush=True)
    if not options.quick:
        write("replicas", setting, results)
        table = scaling_report.replicas_table(setting, results)
        scaling_report.write_part(DOCS, "replicas", table)


def read(part: str, setting: str) -> scaling_report.Results:
    """Results of a part on the same machine; none of others."""
    found = json.loads(RESULTS.read_text(encoding="utf-8")).get(part, {})
    return found["results"] if found.get("setting") == setting else {}


def write(part: str, setting: str, results: scaling_report.Results) -> None:
    """Replaces a part of the file of results."""
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    found |= {"machine": measuring.machine(), part: {"setting": setting, "results": results}}
    found["headlines"] = [headline._asdict() for headline in scaling_report.headlines(found)]
    RESULTS.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")


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
    return in_process("benchmarks.scaling_worker", asked)


def in_process(module: str, asked: dict[str, Any]) -> dict[str, Any]:
    """What a module prints that is run in a process of its own."""
    command = [sys.executable, "-m", module, json.dumps(asked)]
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
    add("parts", nargs="*", help=f"{', '.join(PARTS)} (all)")
    add("--losses", nargs="+", default=LOSSES, help=" ".join(LOSSES))
    add("--classes", nargs="+", type=int, help="10000 100000 1000000")
    add("--replicas", nargs="+", type=int, default=REPLICAS, help="besides one (2 4)")
    add("--whole", action="store_true", help="measure all classes on each of several replicas, too")
    add("--batch_size", type=int, default=64, help="B (64)")
    add("--images", type=int, default=32, help="B of the training steps (32)")
    add("--steps", type=int, default=5, help="training steps in a measurement (5)")
    add("--dimension", type=int, default=64, help="D (64)")
    add("--repeats", type=int, default=5, help="measurements of each row (5)")
    add("--threads", type=int, default=1, help="of each operation (1)")
    add("--minutes", type=float, default=30.0, help="start no row after so long (30)")
    add("--again", action="store_true", help="measure anew what was measured before")
    add("--quick", action="store_true", help="few classes, result files stay as they are")
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: expected parts among {', '.join(PARTS)}")
    options.parts = options.parts or PARTS
    options.classes = options.classes or (CLASSES[:1] if options.quick else CLASSES)
    return options


if __name__ == "__main__":
    main()
