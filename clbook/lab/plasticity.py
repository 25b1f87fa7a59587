"""Learning for ever: hundreds of tasks, and whether the last one is still learned as well as the first.

Permuted images, one short pass over each task, so what counts is how fast a network learns. The strength of every remedy is
chosen as all strengths of the book are. Book: notebooks/11_plasticity.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from clbook import methods as m
from clbook import metrics, plots
from clbook.checks import Count
from clbook.lab.report import Computed, Experiment, Reference, Report, Setting, arguments
from clbook.lab.search import SEEDS, Search, Tuned
from clbook.loop import Training, run
from clbook.method import Method
from clbook.methods.plastic import hidden
from clbook.net import Net, mlp
from clbook.result import Result
from clbook.scenarios import Scenario, permuted


@dataclass(frozen=True)
class Remedy:
    """A way to keep a network able to learn: the method, the optimiser, and the field that is searched."""

    method: Method
    tuned: Tuned | None = None
    optimizer: str = "sgd"
    norm: bool = False  # whether every hidden layer is normalised


def _lam(*start: float) -> Tuned:
    return Tuned("lam", start)


REMEDIES = {
    "SGD": Remedy(m.Finetune()),
    "weight decay": Remedy(m.WeightDecay(), Tuned("decay", (1e-5, 1e-4, 1e-3))),
    "shrink and perturb": Remedy(m.ShrinkPerturb(perturb=0.3), Tuned("keep", (0.6, 0.8, 0.9), 2.0, most=1.0, complement=True)),
    "continual backprop": Remedy(m.ContinualBackprop(), Tuned("share", (0.01, 0.03, 0.1), 10**0.5, most=1.0)),
    "layer norm": Remedy(m.Finetune(), norm=True),
    "Adam": Remedy(m.Finetune(), optimizer="adam"),
    "Adam, weight decay": Remedy(m.WeightDecay(), Tuned("decay", (1e-5, 1e-4, 1e-3)), "adam"),
    "EWC": Remedy(m.EWC(lam=1.0, n_samples=200), _lam(1e-1, 1.0, 1e1)),
    "online EWC": Remedy(m.EWC(lam=1.0, carry="online", gamma=0.9, n_samples=200), _lam(1e-1, 1.0, 1e1)),
    "MAS": Remedy(m.MAS(lam=1.0, n_samples=200), _lam(1e-3, 1e-2, 1e-1)),
}


@dataclass(frozen=True, kw_only=True)
class Sizes(Training):
    """The stream and the network. `lr_adam` is Adam's; a part of the network's state is looked at every `every` tasks."""

    seeds: Count
    tasks: Count
    n_train: Count
    n_test: Count
    hidden: tuple[Count, ...]
    lr_adam: float
    every: Count
    remedies: tuple[str, ...] = tuple(REMEDIES)
    data: str = "mnist"


def new_task(result: Result) -> np.ndarray:
    """Accuracy on each task right after it was learned, in percent [runs, T]."""
    return 100 * np.diagonal(result.R, axis1=1, axis2=2)


def late(result: Result) -> np.ndarray:
    """The same, a mean over the last fifth of the tasks [runs]; a run that diverged counts as 0."""
    accuracy = new_task(result)
    return np.nan_to_num(accuracy[:, -max(1, accuracy.shape[1] // 5) :]).mean(1)


def condition(net: Net, theta: Tensor, x: Tensor) -> tuple[float, float, float]:
    """Of the last hidden layer: percent of units that are 0 for every input, and the effective rank; and the weights' size.

    The effective rank is exp(- sum_i p_i log p_i), p_i the singular values divided by their sum (Roy & Vetterli 2007).
    """
    h = hidden(net, theta, x)[-1]
    p = torch.linalg.svdvals(h.double())
    p = p[p > 0] / p.sum()
    dead = 100 * float((h == 0).all(0).double().mean())
    return dead, float(theta.square().mean().sqrt()), float((-(p * p.log()).sum()).exp())


def compute(s: Setting) -> Computed:
    """Choose the strength of each remedy, run it with every seed, and look at one run's network now and then."""
    stream = permuted(s.data.subset(s.sizes.n_train, s.sizes.n_test), s.sizes.tasks, first_identity=False)
    arrays: dict[str, np.ndarray] = {}
    runs: list[Result] = []
    ours: dict[str, np.ndarray] = {}
    for label in s.sizes.remedies:
        remedy, part = REMEDIES[label], label.replace(" ", "-").replace(",", "")
        net = mlp(s.data.x.shape[1], s.data.n_classes, s.sizes.hidden, norm=remedy.norm)
        how: dict[str, Any] = {"optimizer": remedy.optimizer, "keep_optimizer": True}
        how |= {"lr": s.sizes.lr_adam if remedy.optimizer == "adam" else s.sizes.lr, "on_divergence": "nan"}
        method = remedy.method
        if remedy.tuned is not None:
            method, arrays[f"search/{label}: {remedy.tuned.name}"] = _searched(s, remedy, part, stream, net, how)
        result = s.train(part, stream, method, net, **how)
        runs.append(result)
        arrays[f"new/{label}"] = new_task(result).astype(np.float32)
        arrays[f"kept/{label}"] = 100 * np.asarray(metrics.average_accuracy(result.R))
        ours[f"{label}: the last fifth of the tasks"] = late(result)
        if not remedy.norm:
            arrays[f"condition/{label}"] = _watched(s, stream, method, net, how)
    start = new_task(runs[0])[:, : max(1, s.sizes.tasks // 20)].mean(1)
    return Computed({}, arrays, {"SGD: the first twentieth of the tasks": start} | ours, tuple(runs))


def _searched(
    s: Setting, remedy: Remedy, part: str, stream: Scenario, net: Net, how: dict[str, Any]
) -> tuple[Method, np.ndarray]:
    """The method with the strength that learns the last tasks best, on images that were kept out of training."""
    assert remedy.tuned is not None
    held, name = stream.held_out(0.1), remedy.tuned.name

    def score(value: float, seed: int) -> float:
        trial = replace(remedy.method, **{name: value})
        return float(late(s.train(f"search-{part}-{value:g}-{seed}", held, trial, net, [SEEDS[seed]], **how))[0])

    search = Search(remedy.tuned)
    return replace(remedy.method, **{name: search.climb(score)}), search.table()


def _watched(s: Setting, stream: Scenario, method: Method, net: Net, how: dict[str, Any]) -> np.ndarray:
    """Task, dead units, size of a weight and effective rank of one run, every so many tasks [points, 4]."""
    place: dict[str, Any] = {"device": s.device, "progress": s.progress}
    (thetas,) = run(stream, method, [0], net=net, keep_thetas=True, **arguments(s.sizes) | how, **place).thetas
    at = range(s.sizes.every, s.sizes.tasks + 1, s.sizes.every)
    return np.array([[k, *condition(net, thetas[k - 1], stream.test(k - 1)[0])] for k in at])


def smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Means over `width` tasks that follow each other, along the last axis."""
    return np.lib.stride_tricks.sliding_window_view(values, width, -1).mean(-1)


def draw(report: Report, figure: Figure | None = None) -> Figure:
    """Accuracy on each new task right after it was learned, over the number of tasks."""
    figure = Figure(figsize=(6.5, 5), layout="constrained") if figure is None else figure
    ax, width = figure.subplots(), max(1, report.settings["tasks"] // 10)
    for i, label in enumerate(report.settings["remedies"]):
        mean = smooth(report.arrays[f"new/{label}"].mean(0), width)
        ax.plot(np.arange(width, width + len(mean)), mean, ("-", "--", ":")[i % 3], label=label, color=plots.colour(label))
    ax.set(xlabel="tasks learned", ylabel=f"accuracy on the new task (%), mean of {width} tasks")
    ax.legend(fontsize=8, ncols=2)
    return figure


SGD: dict[str, Any] = {"optimizer": "sgd", "epochs": 1, "batch_size": 16}
LONG: dict[str, Any] = {"lr": 0.1, "lr_adam": 1e-3, "hidden": (100, 100)}
TARGET = "shape: a network that goes on learning learns worse"
PLASTICITY = Experiment(
    name="plasticity",
    title="Two hundred permuted tasks: is the last still learned as well as the first?",
    source="after Dohare et al. 2024 (Nature 632:768), who train on 800 tasks of 60,000 images one by one",
    reference={"SGD: the last fifth of the tasks": Reference("<=", 85.0, TARGET)},
    sizes={
        "quick": Sizes(
            **SGD, seeds=2, tasks=6, n_train=400, n_test=100, hidden=(20, 20), lr=0.1, lr_adam=3e-3, every=3,
            remedies=("SGD", "shrink and perturb", "continual backprop", "layer norm", "online EWC"),
        ),
        "book": Sizes(**SGD, **LONG, seeds=5, tasks=200, n_train=2000, n_test=200, every=10),
        "paper": Sizes(
            **SGD, **LONG | {"hidden": (2000, 2000), "lr": 0.01}, seeds=10, tasks=800, n_train=60_000, n_test=1000, every=20
        ),
    },
    compute=compute,
    draw=draw,
    notes="new/...: accuracy on each task right after it was learned in percent [seeds, tasks]; kept/...: average over all "
    "tasks at the end; condition/...: task, percent of dead units of the last hidden layer, rms of all parameters, "
    "effective rank, one run; search/...: value, accuracy on the last fifth of the tasks on held-out images, number of seeds.",
)  # fmt: skip
