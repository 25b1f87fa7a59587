"""run: a run is the plain PyTorch loop, whatever the method it is given, and bad input never starts training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from catalogue import NAMES, example, stream
from small import clouds, drawn, module_with, net_for, train
from torch import nn

import clbook
from clbook import Method, Result, Scenario, loop, split
from clbook.loop import fits
from clbook.methods import DGR, HAT, Finetune, Progressive

# a run is the plain PyTorch loop -----------------------------------------------------------------------------------------


def plain_loop(s: Scenario, seed: int, net: clbook.Net, epochs: int, size: int, make: Any, keep: bool = False) -> Any:
    """What a reader would write: a module, an optimiser a task, shuffled batches, accuracy on all tasks so far."""
    module = module_with(net, net.init(seed).double())
    R, opt = np.full((len(s), len(s)), np.nan), None
    for k, task in enumerate(s):
        opt = opt if keep and opt else make(module.parameters())
        for rows in drawn(len(task.x), epochs * len(task.x) // size, size, seed, k):
            logits = module(task.x[rows]).masked_fill(~task.mask, -math.inf)
            opt.zero_grad()
            nn.functional.cross_entropy(logits, task.y[rows]).backward()
            opt.step()
        for j in range(k + 1):
            with torch.no_grad():
                guess = module(s[j].x_test).masked_fill(~s.mask[k, j], -math.inf).argmax(1)
            R[k, j] = (guess == s[j].y_test).double().mean()
    return R, nn.utils.parameters_to_vector(module.parameters()).detach()


@pytest.mark.parametrize("kind", ["task", "domain", "class"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("keep", [False, True])
def test_fine_tuning_is_the_plain_loop(kind: str, optimizer: str, keep: bool) -> None:
    s = split(clouds(n=50, classes=6), 3, kind=kind).to("cpu", torch.float64)
    net, seed = net_for(s, (9,)), 4
    make = lambda p: {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[optimizer](p, lr=0.05)  # noqa: E731
    R, theta = plain_loop(s, seed, net, 3, 7, make, keep)
    result = train(s, Finetune(), [seed], net=net, epochs=3, batch_size=7, optimizer=optimizer, lr=0.05, keep_optimizer=keep)
    torch.testing.assert_close(result.theta[0], theta, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(result.R[0], R, atol=1e-9)


def test_keeping_the_optimiser_makes_a_difference_for_adam() -> None:
    a, b = (train(stream(), Finetune(), keep_optimizer=keep).theta[0] for keep in (False, True))
    assert (a - b).abs().max() > 1e-4


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_falling_learning_rate_is_torchs_own_schedule(optimizer: str, keep: bool) -> None:
    """lr (1 - s / S) at step s of S, anew in each task: torch.optim's LambdaLR gives the same."""
    s = split(clouds(n=48, classes=6), 3, kind="class").to("cpu", torch.float64)
    net = net_for(s)
    result = train(s, Finetune(), net=net, optimizer=optimizer, lr=0.05, lr_decay=True, keep_optimizer=keep, steps=6)
    theta, opt = net.init(0).double().requires_grad_(), None
    for k in range(3):
        if opt is None or not keep:
            opt = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[optimizer]([theta], lr=0.05)
        opt.param_groups[0]["initial_lr"] = opt.param_groups[0]["lr"] = 0.05
        falling = torch.optim.lr_scheduler.LambdaLR(opt, lambda step: 1 - step / 6)
        for rows in drawn(16, 6, 8, seed=0, task=k):
            theta.grad = torch.autograd.grad(net.loss(theta, s.batch(k, rows)), theta)[0]
            opt.step()
            falling.step()
    torch.testing.assert_close(result.theta[0], theta.detach(), rtol=1e-9, atol=1e-11)


def test_steps_of_an_epoch() -> None:
    """50 samples in batches of 8: six whole batches a pass, two passes are twelve and not thirteen; at least one step."""
    d = clouds(n=100, classes=4)
    result = train(split(d, 2), Finetune(), epochs=2, batch_size=8, eval_every=1)
    assert result.curve_steps.tolist() == [[0, i] for i in range(1, 13)] + [[1, i] for i in range(13, 25)]
    assert len(train(split(d, 2), Finetune(), epochs=1, batch_size=1000, eval_every=1).curve_steps) == 2


# devices ---------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("name", NAMES)
def test_cuda_gives_what_the_cpu_gives(name: str) -> None:
    s, sizes = stream(name), {"steps": 5, "lr": 0.01}
    cpu, cuda = (train(s, example(name), 2, device=d, **sizes) for d in ("cpu", "cuda"))
    for a, b in zip(cpu.theta, cuda.theta, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


# how many runs are stacked -----------------------------------------------------------------------------------------------


def test_small_networks_are_stacked_and_wide_ones_are_not() -> None:
    cpu = torch.device("cpu")
    assert fits(clbook.mlp(64, 10, (16,)), 128, cpu) == 2**20 // (64 * 16 + 16 + 16 * 10 + 10)
    assert fits(clbook.mlp(784, 10, (400, 400)), 128, cpu) == 1
    for width in (100, 200, 300, 400):  # from four on, since two or three would leave a core idle
        assert fits(clbook.mlp(784, 10, (width,)), 128, cpu) in {1} | set(range(4, 2**20))


def test_a_gpu_takes_what_a_third_of_its_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    net, free = clbook.mlp(64, 10, (16,)), 2**30
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2 * free))
    sizes = [fits(net, batch, torch.device("cuda")) for batch in (128, 4000)]
    assert sizes[0] > sizes[1] >= 1  # a larger batch takes more memory a run
    for batch, n in zip((2000, 4000), sizes, strict=True):
        run_bytes = 4 * (
            12 * net.n_params + 8 * batch * 64
        )  # theta, Adam, state and gradients; a batch through the widest layer
        assert n * run_bytes <= free / 3 < (n + 1) * run_bytes
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, free))
    assert fits(net, 128, torch.device("cuda")) == 1


@pytest.mark.parametrize("method", [DGR(z=4, hidden=8), HAT(), Progressive(), Finetune()], ids=lambda m: m.label)
def test_the_parameters_are_those_of_the_network_that_is_trained(method: Method, tmp_path: Path) -> None:
    """A method that adds a generator, columns or embeddings trains more than the network it was given."""
    s = stream("HAT")
    net = net_for(s)
    result = train(s, method, 2, net=net, steps=1)
    assert result.n_params.tolist() == [len(theta) for theta in result.theta] == [method.extend(net, s).n_params] * 2
    assert (result.n_params[0] > net.n_params) == (type(method) is not Finetune)
    result.save(tmp_path / "r")
    assert Result.load(tmp_path / "r").n_params.tolist() == result.n_params.tolist()


def test_dgr_on_64_64_10_has_as_many_parameters_as_by_hand() -> None:
    s = split(clbook.load("digits").subset(200), 5, kind="class").first(1)
    classifier = 64 * 64 + 64 + 64 * 10 + 10
    encoder, decoder = 64 * 400 + 400 + 400 * 400 + 400 + 400 * 200 + 200, 100 * 400 + 400 + 400 * 400 + 400 + 400 * 64 + 64
    result = train(s, DGR(), net=clbook.mlp(64, 10, (64,)), steps=1)
    assert result.n_params.tolist() == [classifier + encoder + decoder]


def test_stacks_are_cut_by_the_size_of_the_network_that_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """2^17 parameters for a classifier alone fit eight times, and with a generator of 2^19 not even twice."""
    s = split(clouds(n=48, classes=6), 3)
    sizes: list[int] = []
    train_all = loop.train
    monkeypatch.setattr(loop, "train", lambda runs, *args: sizes.append(len(runs)) or train_all(runs, *args))
    train(s, [Finetune(), DGR(hidden=500)], 8, net=net_for(s), steps=1)
    assert sizes == [8] + [1] * 8
