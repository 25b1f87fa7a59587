"""Several seeds as one stack against the same runs one after the other, for networks of several sizes."""

from __future__ import annotations

import torch
from timing import interleaved, report

from clbook import Data, mlp, permuted, run
from clbook.methods import EWC

BATCH, STEPS = 32, 60


def data(inputs: int) -> Data:
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(2000, inputs, generator=g), torch.randint(10, (2000,), generator=g)
    side = int(inputs**0.5)
    return Data(x, y, x[:100], y[:100], "random", (1, side, side), 10)


def main(runs: int = 16, repeats: int = 3) -> None:
    for inputs, hidden in ((64, (32, 32)), (64, (100, 100)), (64, (200, 200)), (784, (100, 100)), (784, (400, 400))):
        net, scenario = mlp(inputs, 10, hidden), permuted(data(inputs), 2)
        size = {"net": net, "steps": STEPS, "batch_size": BATCH, "optimizer": "adam", "device": "cpu", "progress": False}
        ways = {
            "one after the other (chunk=1)": lambda s=scenario, z=size: run(s, EWC(lam=1.0, n_samples=200), runs, chunk=1, **z),
            f"one stack (chunk={runs})": lambda s=scenario, z=size: run(s, EWC(lam=1.0, n_samples=200), runs, chunk=runs, **z),
            "as run chooses": lambda s=scenario, z=size: run(s, EWC(lam=1.0, n_samples=200), runs, **z),
        }
        title = f"{runs} seeds of EWC, {inputs}-{'-'.join(map(str, hidden))}-10 ({net.n_params} parameters), batch {BATCH}"
        report(title, interleaved(ways, repeats))


if __name__ == "__main__":
    main()
