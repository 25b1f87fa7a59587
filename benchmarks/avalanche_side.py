"""Avalanche's half of speed.py, for an environment of its own: `python avalanche_side.py METHOD DATA THREADS` prints JSON.

Written as Avalanche's own examples are: its permuted MNIST, its strategies, its data loaders without extra processes.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings

import torch
from torch import nn

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)


def main(method: str, data: str, threads: int) -> None:
    torch.set_num_threads(threads)
    from avalanche.benchmarks.classic import PermutedMNIST
    from avalanche.evaluation.metrics import accuracy_metrics
    from avalanche.training.plugins import EvaluationPlugin
    from avalanche.training.supervised import EWC, MAS, LwF, Naive, Replay, SynapticIntelligence

    torch.manual_seed(0)
    stream = PermutedMNIST(3, seed=0, dataset_root=data)
    module = nn.Sequential(nn.Flatten(), nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 400), nn.ReLU(), nn.Linear(400, 10))
    quiet = EvaluationPlugin(accuracy_metrics(stream=True), loggers=[])
    common = dict(
        model=module, optimizer=torch.optim.SGD(module.parameters(), lr=0.1), criterion=nn.CrossEntropyLoss(),
        train_mb_size=128, train_epochs=1, eval_mb_size=2000, evaluator=quiet,
    )  # fmt: skip
    make = {
        "fine-tuning": lambda: Naive(**common),
        "EWC": lambda: EWC(ewc_lambda=100.0, **common),
        "MAS": lambda: MAS(lambda_reg=1.0, **common),
        "LwF": lambda: LwF(alpha=1.0, temperature=2.0, **common),
        "SI": lambda: SynapticIntelligence(si_lambda=1.0, **common),
        "replay": lambda: Replay(mem_size=600, **common),
    }[method]
    strategy = make()
    start = time.perf_counter()
    for experience in stream.train_stream:
        strategy.train(experience, num_workers=0)
    accuracy = next(v for k, v in strategy.eval(stream.test_stream, num_workers=0).items() if k.startswith("Top1_Acc_Stream"))
    print(json.dumps({"seconds": time.perf_counter() - start, "accuracy": float(accuracy)}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
