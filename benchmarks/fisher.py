"""The exact Fisher of 1,000 samples of a 784-400-400-10 network: by outer products, by definition, one sample at a time."""

from __future__ import annotations

import torch
from timing import interleaved, report
from torch import Tensor, nn

from clbook import Net, fisher, mlp


def one_at_a_time(net: Net, theta: Tensor, x: Tensor) -> Tensor:
    """The loop that most public code has: batch size one, one backward pass for each sample and class."""
    module = net.factory()
    nn.utils.vector_to_parameters(theta, module.parameters())
    parameters = list(module.parameters())
    total = [torch.zeros_like(p) for p in parameters]
    for i in range(len(x)):
        log_p = module(x[i : i + 1])[0].log_softmax(-1)
        weight = log_p.detach().exp()
        for c in range(len(log_p)):
            grads = torch.autograd.grad(log_p[c], parameters, retain_graph=c < len(log_p) - 1)
            for t, g in zip(total, grads, strict=True):
                t += weight[c] * g.square()
    return torch.cat([t.flatten() for t in total]) / len(x)


def main(samples: int = 1000, share: int = 20, repeats: int = 3) -> None:
    net = mlp(784, 10, (400, 400))
    theta, x = net.init(0), torch.rand(samples, 784, generator=torch.Generator().manual_seed(0))
    few = x[: samples // share]
    loop = f"a sample and a class at a time ({len(few)}, times {share})"
    ways = {
        "outer products (algorithm='outer', the default)": lambda: fisher(net, theta, x, algorithm="outer"),
        "definition by torch.func (algorithm='definition')": lambda: fisher(net, theta, x, algorithm="definition"),
        loop: lambda: one_at_a_time(net, theta, few),
    }
    wanted = one_at_a_time(net, theta, few)
    for how in ("outer", "definition"):
        value = fisher(net, theta, few, algorithm=how)
        print(f"{how}: differs from the loop by {float((value - wanted).norm() / wanted.norm()):.1e} (relative)")
    times = interleaved(ways, repeats)
    times[loop] = (share * times[loop][0], share * times[loop][1])
    report(f"exact Fisher of {samples} samples, 784-400-400-10", times)


if __name__ == "__main__":
    main()
