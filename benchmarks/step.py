"""One optimiser step of `clbook.run` against that of a plain PyTorch loop over a DataLoader, for fine-tuning and for EWC."""

from __future__ import annotations

import torch
from timing import interleaved, report
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from clbook import Data, mlp, permuted, run
from clbook.methods import EWC, Finetune

BATCH, STEPS = 128, 300


def data() -> Data:
    """Random images of MNIST's size; few test images, so that what is timed is training."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(BATCH * STEPS, 784, generator=g), torch.randint(10, (BATCH * STEPS,), generator=g)
    return Data(x, y, x[:128], y[:128], "random", (1, 28, 28), 10)


def plain(d: Data, optimizer: str, hidden: tuple[int, ...], ewc: bool) -> None:
    """What a user would write: nn.Sequential, DataLoader, and for EWC a penalty summed over the named parameters."""
    module = mlp(784, 10, hidden).factory()
    opt = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[optimizer](module.parameters(), lr=1e-3)
    star = {n: p.detach().clone() for n, p in module.named_parameters()}
    omega = {n: torch.ones_like(p) for n, p in module.named_parameters()}
    for x, y in DataLoader(TensorDataset(d.x, d.y), batch_size=BATCH, shuffle=True, drop_last=True):
        loss = nn.functional.cross_entropy(module(x), y)
        if ewc:
            loss = loss + 0.5 * _penalty(module, omega, star)
        opt.zero_grad()
        loss.backward()
        opt.step()


def _penalty(module: nn.Module, omega: dict[str, Tensor], star: dict[str, Tensor]) -> Tensor:
    return sum((omega[n] * (p - star[n]).square()).sum() for n, p in module.named_parameters())


def main(repeats: int = 5) -> None:
    d = data()
    for hidden in ((400, 400), (100, 100)):
        for optimizer in ("sgd", "adam"):
            for name, method, ewc in (("fine-tuning", Finetune(), False), ("EWC", EWC(lam=1.0, n_samples=1), True)):
                size = {"net": mlp(784, 10, hidden), "steps": STEPS, "batch_size": BATCH, "optimizer": optimizer}
                ways = {
                    "plain loop over a DataLoader": lambda o=optimizer, h=hidden, e=ewc: plain(d, o, h, e),
                    "clbook.run": lambda m=method, s=size: run(permuted(d, 1), m, device="cpu", progress=False, **s),
                }
                title = f"one step, {name}, {optimizer}, 784-{'-'.join(map(str, hidden))}-10, batch {BATCH}"
                report(title, interleaved(ways, repeats), per=STEPS, unit="ms")


if __name__ == "__main__":
    main()
