"""How cost grows: seconds and peak memory of EWC over the number of tasks, of runs, and the width of the network.

Each point is a process of its own with one thread, in turns, three rounds, medians; seconds are those of the processor. A
straight line through the logarithms gives the power with which the cost grows. Writes growth.json beside this file. Runs on
Linux and macOS.

    python benchmarks/growth.py [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from clbook import Data, mlp, permuted, run
from clbook.lab.provenance import commit
from clbook.methods import EWC

HERE = Path(__file__).parent
USUAL = {"tasks": 5, "runs": 1, "width": 100}
GROWS = {"tasks": (5, 10, 20, 50), "runs": (1, 3, 10, 30, 100), "width": (100, 200, 500, 1000, 2000)}
STEPS, BATCH, INPUTS = 50, 32, 256


def measure(tasks: int, runs: int, width: int) -> tuple[float, float]:
    """Seconds, and megabytes beyond what the process held before."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(2000, INPUTS, generator=g), torch.randint(10, (2000,), generator=g)
    scenario, net = permuted(Data(x, y, x[:200], y[:200], "random", (1, 16, 16), 10), tasks), mlp(INPUTS, 10, (width, width))
    before, start = peak(), time.process_time()
    run(scenario, EWC(lam=1.0, n_samples=200), runs, net=net, steps=STEPS, batch_size=BATCH, device="cpu", progress=False)
    return time.process_time() - start, peak() - before


def peak() -> float:
    """The most memory that this process has held so far, in megabytes."""
    kilobytes = 1 if sys.platform == "linux" else 1 / 1024  # macOS counts bytes
    return kilobytes * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def alone(point: dict[str, int]) -> tuple[float, float]:
    """`measure` in a process of its own."""
    command = [sys.executable, __file__, "--point", json.dumps(point)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    seconds, megabytes = json.loads(done.stdout)
    return seconds, megabytes


def power(sizes: tuple[int, ...], values: list[float]) -> float:
    """The exponent a of values = c sizes^a, fitted to the upper half of the sizes, where what is fixed counts least."""
    half = len(sizes) // 2
    return float(np.polyfit(np.log(sizes[half:]), np.log(values[half:]), 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--point", type=json.loads)
    options = parser.parse_args()
    if options.point:
        return print(json.dumps(measure(**options.point)))
    found: dict[str, list[list[tuple[float, float]]]] = {name: [[] for _ in sizes] for name, sizes in GROWS.items()}
    for _ in range(options.rounds):
        for name, sizes in GROWS.items():
            for i, size in enumerate(sizes):
                found[name][i].append(alone(USUAL | {name: size}))
    report: dict[str, object] = {"what": f"EWC, {INPUTS}-w-w-10, {STEPS} steps a task", "usual": USUAL, "commit": commit()}
    report["machine"] = platform.processor()
    for name, sizes in GROWS.items():
        seconds, megabytes = ([statistics.median(p[kind] for p in point) for point in found[name]] for kind in (0, 1))
        powers = {"power of seconds": power(sizes, seconds), "power of megabytes": power(sizes, megabytes)}
        report[name] = {"sizes": sizes, "seconds": seconds, "megabytes": megabytes} | powers
        print(name, report[name])
    (HERE / "growth.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
