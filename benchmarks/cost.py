"""What a run costs: processor seconds a run of small networks, one by one and stacked, and of the benchmark's wide ones.

    python benchmarks/cost.py

The book's page on large sweeps quotes what this prints. Processor time is hardly disturbed by other work on the machine.
"""

from __future__ import annotations

import time

import numpy as np
import torch

from clbook import load, mlp, run, split
from clbook.lab.experiments import stored
from clbook.methods import ER, EWC, Finetune


def main() -> None:
    torch.set_num_threads(1)
    scenario, net = split(load("digits"), 5, kind="class"), mlp(64, 10, (32,))
    how = {"net": net, "epochs": 5, "batch_size": 32, "progress": False, "device": "cpu"}
    print("digits, five tasks, 64-32-10, five epochs a task: processor seconds a run")
    for method in (Finetune(), EWC(lam=100.0, n_samples=200), ER(size=10)):
        cost = {}
        for runs, chunk in ((8, 1), (200, None)):
            start = time.process_time()
            run(scenario, method, runs, chunk=chunk, **how)
            cost[runs] = (time.process_time() - start) / runs
        print(f"  {method.label:10} alone {cost[8]:.3f}, 200 together {cost[200]:.4f}")
    report = stored("benchmark")
    print("Split MNIST, five tasks, 784-400-400-10, 2,000 steps a task: processor seconds a run, stored with the benchmark")
    for label in ("fine-tuning", "EWC", "ER", "DGR"):
        print(f"  {label:12} {np.median(report.arrays[f'cpu/split class: {label}']):.0f}")


if __name__ == "__main__":
    main()
