"""Learning for ever: hundreds of tasks, and whether the last one is still learned as well as the first.

Permuted images, one short pass over each task, so what counts is how fast a network learns. The strength of every remedy is
chosen as all strengths of the book are. Book: notebooks/11_plasticity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from clbook import methods as m
from clbook import metrics, plots
from clbook.checks import Count
from clbook.lab.report import Arrays, Computed, Experiment, Reference, Report, Seeds, Setting, Values, arguments, with_values
from clbook.lab.search import Tuned
from clbook.loop import Training, run
from clbook.method import Method
from clbook.methods.plastic import hidden
from clbook.net import Net, mlp
from clbook.result import Result
from clbook.scenarios import Scenario, permuted


@dataclass(frozen=True)
class Remedy:
    """A way to keep a network able to learn: the method, the optimiser, and what is searched, in this order.

    `lr_of` names the remedy before it whose learning rate it takes over, `lr` is a rate of its own that is not searched;
    without either, the rate is one of what is searched.
    """

    method: Method
    tuned: tuple[Tuned, ...] = ()
    lr_of: str = ""
    lr: float | None = None
    optimizer: str = "sgd"
    norm: bool = False  # whether every hidden layer is normalised


THIRD = 10**0.5
RATE = Tuned("lr", (0.03, 0.1, 0.3), THIRD)
DECAY = Tuned("decay", (1e-5, 1e-4, 1e-3))
KEEP = Tuned("keep", (0.6, 0.8, 0.9), 2.0, most=1.0, complement=True)
GAMMA = Tuned("gamma", (0.8, 0.9, 0.95, 1.0), 2.0, most=1.0, complement=True)
LAM = Tuned("lam", (1e-1, 1.0, 1e1))
ONLINE = m.EWC(lam=1.0, carry="online", gamma=0.9, n_samples=200)
REMEDIES = {
    "SGD": Remedy(m.Finetune(), (RATE,)),
    "SGD, lr 0.1": Remedy(m.Finetune(), lr=0.1),
    "SGD, lr 0.3": Remedy(m.Finetune(), lr=0.3),
    "a fresh network": Remedy(m.ShrinkPerturb(keep=0.0, perturb=1.0), (RATE,)),
    "weight decay": Remedy(m.WeightDecay(), (DECAY,), "SGD"),
    "shrink and perturb": Remedy(m.ShrinkPerturb(perturb=0.3), (KEEP, Tuned("perturb", (0.1, 0.3, 1.0), THIRD)), "SGD"),
    "continual backprop": Remedy(m.ContinualBackprop(), (Tuned("share", (0.01, 0.03, 0.1), THIRD, most=1.0),), "SGD"),
    "layer norm": Remedy(m.Finetune(), (RATE,), norm=True),
    "Adam": Remedy(m.Finetune(), (Tuned("lr", (3e-4, 1e-3, 3e-3), THIRD),), optimizer="adam"),
    "Adam, weight decay": Remedy(m.WeightDecay(), (DECAY,), "Adam", optimizer="adam"),
    "EWC": Remedy(m.EWC(lam=1.0, n_samples=200), (LAM,), "SGD"),
    "online EWC": Remedy(ONLINE, (LAM, GAMMA), "SGD"),
    "MAS": Remedy(m.MAS(lam=1.0, n_samples=200), (Tuned("lam", (1e-3, 1e-2, 1e-1)),), "SGD"),
}


@dataclass(frozen=True, kw_only=True)
class Sizes(Training):
    """The stream and the network, whose state is looked at every `every` tasks. `lr_adam` is Adam's where none is searched."""

    seeds: Count
    tasks: Count
    n_train: Count
    n_test: Count
    hidden: tuple[Count, ...]
    lr_adam: float
    every: Count
    searched: bool = True  # strengths and learning rates are chosen on held-out images
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
    """Choose what is searched of each remedy, run it with every seed, and look at one run's network now and then."""
    stream = permuted(s.data.subset(s.sizes.n_train, s.sizes.n_test), s.sizes.tasks, first_identity=False)
    arrays: dict[str, np.ndarray] = {}
    runs: dict[str, Result] = {}
    rates: dict[str, float] = {}
    for label in s.sizes.remedies:
        remedy = REMEDIES[label]
        own = remedy.lr or (s.sizes.lr_adam if remedy.optimizer == "adam" else s.sizes.lr)
        rates[label], runs[label], more = _learned(s, stream, label, rates.get(remedy.lr_of, own))
        arrays |= more
    return Computed({}, arrays, _ours(runs), tuple(runs.values()))


def _learned(s: Setting, stream: Scenario, label: str, lr: float) -> tuple[float, Result, Arrays]:
    """What is searched of one remedy, and then all its runs: its learning rate, the runs, and what is kept beside."""
    remedy = REMEDIES[label]
    net = mlp(s.data.x.shape[1], s.data.n_classes, s.sizes.hidden, norm=remedy.norm)

    def at(values: Values) -> tuple[Method, dict[str, Any]]:
        method, more = with_values(remedy.method, values)
        return method, {"optimizer": remedy.optimizer, "keep_optimizer": True, "lr": lr, "on_divergence": "nan"} | more

    def train(part: str, scenario: Scenario, values: Values, seeds: Seeds) -> Result:
        method, how = at(values)
        return s.train(part.replace(" ", "-"), scenario, method, net, seeds, **how)

    found, arrays = s.search(label, stream, remedy.tuned, train, late)
    result = train(label, stream, found, None)
    arrays[f"new/{label}"] = new_task(result).astype(np.float32)
    arrays[f"kept/{label}"] = 100 * np.asarray(metrics.average_accuracy(result.R))
    if not remedy.norm:
        arrays[f"condition/{label}"] = _watched(s, stream, net, *at(found))
    return found.get("lr", lr), result, arrays


def lost(result: Result) -> np.ndarray:
    """How much worse new tasks are learned in the end: the second fifth of the tasks minus the last, in points [runs].

    The second, since a network that has just been drawn needs some tasks before it learns in so few steps.
    """
    accuracy = np.nan_to_num(new_task(result))
    fifth = max(1, accuracy.shape[1] // 5)
    return accuracy[:, fifth : 2 * fifth].mean(1) - late(result)


def _ours(runs: dict[str, Result]) -> dict[str, np.ndarray]:
    return {f"{label}: late": late(r) for label, r in runs.items()} | {f"{label}: lost": lost(r) for label, r in runs.items()}


def _watched(s: Setting, stream: Scenario, net: Net, method: Method, how: dict[str, Any]) -> np.ndarray:
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
    figure = Figure(figsize=(7, 7), layout="constrained") if figure is None else figure
    ax, width = figure.subplots(), max(1, report.settings["tasks"] // 10)
    for i, label in enumerate(report.settings["remedies"]):
        mean = smooth(report.arrays[f"new/{label}"].mean(0), width)
        ax.plot(np.arange(width, width + len(mean)), mean, ("-", "--", ":")[i % 3], label=label, color=plots.colour(label))
    ax.set(xlabel="tasks learned", ylabel=f"accuracy on the new task (%), mean of {width} tasks")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


SGD: dict[str, Any] = {"optimizer": "sgd", "epochs": 1, "batch_size": 16}
LONG: dict[str, Any] = {"lr": 0.1, "lr_adam": 1e-3, "hidden": (100, 100)}
TARGET = "shape: the longer a network has learned, the worse it learns"
PLASTICITY = Experiment(
    name="plasticity",
    title="Two hundred permuted tasks: is the last still learned as well as the first?",
    source="after Dohare et al. 2024 (Nature 632:768), who train on 800 tasks of 60,000 images one by one",
    reference={f"{label}: lost": Reference(">=", 0.0, TARGET) for label in ("SGD", "Adam")},
    sizes={
        "quick": Sizes(
            **SGD, seeds=2, tasks=6, n_train=400, n_test=100, hidden=(20, 20), lr=0.1, lr_adam=3e-3, every=3, searched=False,
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
    "effective rank, one run; search/...: value, accuracy on the last fifth of the tasks on held-out images, number of seeds. "
    "Remedies of plain SGD have its learning rate, which was searched for it.",
)  # fmt: skip
