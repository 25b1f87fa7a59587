"""How fast is it? Avalanche, a hand-written loop and clbook on the same work, in turns, beside what the machine can multiply.

Permuted MNIST, three tasks, one epoch each, 784-400-400-10, SGD 0.1, batches of 128. `make benchmark` runs it and writes
results.json. Accuracy stands beside every time, so that nobody is fast by doing less.

    python benchmarks/speed.py --avalanche PATH_OF_A_PYTHON_WITH_AVALANCHE [--rounds 3] [--threads 2]
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from clbook import load, mlp, permuted, run
from clbook.data import data_dir
from clbook.lab.provenance import commit
from clbook.methods import ER, EWC, MAS, SI, Finetune, LwF

HERE = Path(__file__).parent
TASKS, BATCH, LR, HIDDEN = 3, 128, 0.1, (400, 400)
# the same strengths on both sides as far as the two mean the same by them; what is compared is time
METHODS = {
    "fine-tuning": Finetune(), "EWC": EWC(lam=100.0), "MAS": MAS(lam=1.0), "LwF": LwF(lam=1.0), "SI": SI(lam=1.0),
    "replay": ER(size=20),
}  # fmt: skip


def ours(name: str, seeds: int = 1, optimizer: str = "sgd") -> Callable[[], tuple[float, float]]:
    """Seconds a task and run, and the average accuracy at the end."""

    def measure() -> tuple[float, float]:
        lr = LR if optimizer == "sgd" else 1e-3
        net, how = mlp(784, 10, HIDDEN), {"epochs": 1, "batch_size": BATCH, "optimizer": optimizer, "lr": lr}
        start = time.perf_counter()
        result = run(SCENARIO, METHODS[name], seeds, net=net, device="cpu", progress=False, chunk=seeds, **how)
        return (time.perf_counter() - start) / TASKS / seeds, float(result.R[:, -1].mean())

    return measure


def by_hand() -> tuple[float, float]:
    """What a reader would write for fine-tuning: a module, torch.optim, shuffled indices."""
    module = mlp(784, 10, HIDDEN).factory()
    start = time.perf_counter()
    for task in SCENARIO:
        opt = torch.optim.SGD(module.parameters(), lr=LR)
        for rows in torch.randperm(len(task.x)).split(BATCH):
            loss = nn.functional.cross_entropy(module(task.x[rows]), task.y[rows])
            opt.zero_grad()
            loss.backward()
            opt.step()
    right = [float((module(t.x_test).argmax(1) == t.y_test).float().mean()) for t in SCENARIO]
    return (time.perf_counter() - start) / TASKS, statistics.mean(right)


def products() -> tuple[float, float]:
    """Seconds that the matrix products of a task take by themselves: forward, and twice as many back (not into the pixels)."""
    widths = [784, *HIDDEN, 10]
    pairs = list(itertools.pairwise(widths))
    a = [torch.rand(BATCH, n) for n, _ in pairs]
    w = [torch.rand(n, m) for n, m in pairs]
    g = [torch.rand(BATCH, m) for _, m in pairs]
    steps = len(SCENARIO.rows[0]) // BATCH
    start = time.perf_counter()
    for _ in range(steps):
        for i in range(len(pairs)):
            a[i] @ w[i]
            a[i].T @ g[i]
            if i:
                g[i] @ w[i].T
    return time.perf_counter() - start, float("nan")


def theirs(python: str, name: str, threads: int) -> Callable[[], tuple[float, float]]:
    """Avalanche in an environment of its own; it times itself, without its start."""

    def measure() -> tuple[float, float]:
        command = [python, str(HERE / "avalanche_side.py"), name, str(data_dir()), str(threads)]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = json.loads(out.strip().splitlines()[-1])
        return found["seconds"] / TASKS, found["accuracy"]

    return measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--avalanche", default="", help="a Python that has avalanche-lib 0.6")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    ways: dict[str, Callable[[], tuple[float, float]]] = {"matrix products alone": products, "by hand: fine-tuning": by_hand}
    ways |= {f"clbook: {name}": ours(name) for name in METHODS}
    ways |= {"clbook: EWC, 4 seeds": ours("EWC", 4), "clbook: EWC, Adam": ours("EWC", optimizer="adam")}
    ways |= {"clbook: fine-tuning, Adam": ours("fine-tuning", optimizer="adam")}
    if options.avalanche:
        ways |= {f"Avalanche: {name}": theirs(options.avalanche, name, options.threads) for name in METHODS}
    times: dict[str, list[float]] = {name: [] for name in ways}
    accuracy: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(options.rounds + 1):
        for name, way in ways.items():
            if turn == 0 and name.startswith("Avalanche"):
                continue  # the first round warms up this process, and Avalanche has one of its own
            seconds, right = way()
            if turn:
                times[name].append(seconds)
                accuracy[name].append(right)
                print(f"{name:34} {seconds:7.2f} s a task, accuracy {right:.3f}", flush=True)
    median, mean = statistics.median, statistics.mean
    rows = {n: {"seconds": times[n], "median": median(times[n]), "accuracy": mean(accuracy[n])} for n in ways}
    write(rows, options.threads)


def write(rows: dict[str, Any], threads: int) -> None:
    """results.json: every single time, the machine and the versions."""
    machine = {"processor": _processor(), "threads": threads, "torch": torch.__version__, "python": platform.python_version()}
    text = {"what": __doc__.strip().splitlines()[2], "machine": machine, "commit": commit(), "rows": rows}
    (HERE / "results.json").write_text(json.dumps(text, indent=1).replace("NaN", "null") + "\n")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


SCENARIO = permuted(load("mnist"), TASKS)

if __name__ == "__main__":
    main()
