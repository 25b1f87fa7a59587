"""The three figures of Kirkpatrick et al. 2017: their sizes, how they are computed and drawn, what they should give.

What can be tuned stands in the tables of sizes, THREE, MANY and DEPTH, and nowhere else.
Book: notebooks/03_ewc, of the paper the figures 3A to 3C.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from clbook import metrics, plots
from clbook.checks import Count, Positive, Share, Strength
from clbook.importance import fisher, fisher_overlap
from clbook.lab.report import Budget, Computed, Experiment, Reference, Report, Seeds, Setting, Values
from clbook.lab.search import Tuned
from clbook.loop import pick_device
from clbook.method import Method, Spring
from clbook.methods import L2, Finetune
from clbook.net import Net
from clbook.result import Result
from clbook.scenarios import Scenario, permuted

PAPER = "Kirkpatrick et al. 2017 (PNAS 114:3521)"
BOOK = "target of this book; the paper shows curves, no table"


@dataclass(frozen=True, kw_only=True)
class Three(Budget):
    """ewc-a: three permuted tasks, plain SGD against L2 and EWC.

    The paper: two hidden layers of 400, lr 1e-3, 20 epochs; it gives neither lambda nor the batch size.
    """

    lam_l2: Strength


@dataclass(frozen=True, kw_only=True)
class Many(Budget):
    """ewc-b: one to ten tasks, EWC against SGD with dropout.

    The paper: two hidden layers of 400 to 2000 and lr 1e-5 to 1e-3, both searched, 100 epochs with early stopping.
    """

    tasks: Count = 10
    dropout: tuple[Share, Share] = (0.2, 0.5)
    lr_sgd: Positive = 0.1  # of plain SGD with dropout
    single_tasks: Count = 10  # how many of the tasks a fresh network is trained on, for the single-task level


@dataclass(frozen=True, kw_only=True)
class Depth(Budget):
    """ewc-c: overlap of the Fishers of two tasks, by layer.

    The paper: six hidden layers of 100, lr 1e-3, 100 epochs; squares of 8 and of 26 pixels.
    """

    squares: tuple[Count, Count] = (8, 26)


Sizes = dict[str, Any]
SGD: Sizes = {"optimizer": "sgd", "batch_size": 128, "hidden": (400, 400), "lam": 100.0, "lam_l2": 0.2, "lr_decay": True}
ADAM: Sizes = {"optimizer": "adam", "batch_size": 128, "lam": 100.0}
SMALL: Sizes = {"seeds": 3, "epochs": 6, "lr": 0.2, "optimizer": "sgd", "batch_size": 64, "hidden": (400,), "lam": 200.0}
THREE = {
    "quick": Three(**SMALL, searched=False, lam_l2=1.0, eval_every=22, eval_samples=360),
    "book": Three(**SGD, seeds=3, epochs=4, lr=0.5, eval_every=200, eval_samples=2000),
    "paper": Three(**SGD, seeds=10, epochs=20, lr=0.2, eval_every=200, eval_samples=10_000),
}
MANY = {
    "quick": Many(**SMALL, searched=False, lr_sgd=SMALL["lr"], tasks=4, single_tasks=2),
    "book": Many(**ADAM, seeds=3, epochs=3, lr=2e-3, hidden=(800, 800), lr_decay=True, single_tasks=2),
    "paper": Many(**ADAM, seeds=10, epochs=10, lr=2e-3, hidden=(2000, 2000), lr_decay=True),
}
DEEP = ADAM | {"lr": 1e-3, "hidden": (100,) * 6, "searched": False}
DEPTH = {
    "quick": Depth(**DEEP | {"hidden": (50,) * 6, "batch_size": 32}, seeds=3, epochs=8, squares=(3, 7)),
    "book": Depth(**DEEP, seeds=3, epochs=3, lr_decay=True, fisher_samples=2000),
    "paper": Depth(**DEEP, seeds=10, epochs=100, fisher_samples=60_000),
}


# ewc-a ---------------------------------------------------------------------------------------------------------------------


def three_tasks(s: Setting) -> Computed:
    """Three permuted tasks in turn: plain SGD, L2 and EWC."""
    scenario, arrays = permuted(s.data, 3), dict[str, np.ndarray]()
    methods: dict[str, Method] = {"SGD": Finetune()}
    for label, method in {"L2": L2(lam=s.sizes.lam_l2), "EWC": s.ewc()}.items():

        def train(part: str, held: Scenario, values: Values, seeds: Seeds, method: Spring = method) -> Result:
            return s.train(part, held, replace(method, lam=values["lam"]), seeds=seeds)

        found, tried = s.search(label, scenario, [_around("lam", method.lam)], train)
        methods[label], arrays = replace(method, lam=found.get("lam", method.lam)), arrays | tried
    results = {label: s.train(label, scenario, method) for label, method in methods.items()}
    R = {label: 100 * r.R for label, r in results.items()}
    fall = lambda label: R[label][:, 0, 0] - R[label][:, 2, 0]  # noqa: E731
    ours = {
        "EWC, average of the three tasks": metrics.average_accuracy(R["EWC"]),
        "EWC, worst of the three tasks": R["EWC"][:, 2].min(-1),
        "SGD, lost on the first task": fall("SGD"),
        "L2, lost on the first task": fall("L2"),
        "L2, short of EWC on the third task": R["EWC"][:, 2, 2] - R["L2"][:, 2, 2],
    }
    return Computed(results, arrays, ours)


def _around(name: str, value: float) -> Tuned:
    """A search that begins at a value and half a decade to either side."""
    return Tuned(name, tuple(float(f"{value * f:.2g}") for f in (10**-0.5, 1, 10**0.5)), factor=10**0.5)


def draw_three(report: Report) -> Figure:
    """Accuracy on each task while all three are trained."""
    figure = _figure(8, 7.5)
    axes = figure.subplots(3, 1, sharex=True, sharey=True)
    for task, ax in enumerate(axes):
        plots.training_curves(report.results, task, ax=ax, legend=task == 0)
        ax.set(xlabel="training steps" if task == 2 else "", ylim=(0, 102))
    return figure


# ewc-b ---------------------------------------------------------------------------------------------------------------------


def many_tasks(s: Setting) -> Computed:
    """The average over a growing number of tasks: EWC, SGD with dropout, and a fresh network for each task.

    lambda and learning rate of EWC, learning rate and width of plain SGD with dropout are searched alike.
    """
    scenario, last = permuted(s.data, s.sizes.tasks), s.sizes.tasks

    def ewc(part: str, where: Scenario, values: Values, seeds: Seeds) -> Result:
        chosen = {"lam": s.sizes.lam, "lr": s.sizes.lr} | values
        return s.train(part, where, replace(s.ewc(), lam=chosen["lam"]), seeds=seeds, lr=chosen["lr"])

    def sgd(part: str, where: Scenario, values: Values, seeds: Seeds) -> Result:
        chosen = {"width": s.sizes.hidden[0], "lr": s.sizes.lr_sgd} | values
        net = s.net(s.sizes.dropout, round(chosen["width"]))
        return s.train(part, where, Finetune(), net=net, seeds=seeds, optimizer="sgd", lr=chosen["lr"])

    width = Tuned("width", (400, 800, 1600), factor=2, most=2000, whole=True)
    best, arrays = s.search("EWC", scenario, [_around("lr", s.sizes.lr), _around("lam", s.sizes.lam)], ewc)
    rival, tried = s.search("SGD + dropout", scenario, [_around("lr", s.sizes.lr_sgd), width], sgd)
    results = {"EWC": ewc("EWC", scenario, best, None), "SGD + dropout": sgd("SGD", scenario, rival, None)}
    single = []
    for k in range(min(s.sizes.single_tasks, last)):
        task = scenario[k]
        alone = permuted(replace(s.data, x=task.x, x_test=task.x_test), 1)
        results[f"task {k + 1} alone"] = s.train(f"single-{k}", alone, Finetune())
        single.append(results[f"task {k + 1} alone"].R[:, 0, 0])
    average = {label: 100 * metrics.average_accuracy(results[label].R) for label in ("EWC", "SGD + dropout")}
    ours = {
        f"EWC, average of {last} tasks": average["EWC"],
        f"SGD + dropout, average of {last} tasks": average["SGD + dropout"],
        "single task, fresh network": 100 * np.mean(single, 0),
    }
    return Computed(results, arrays | tried | {"single": np.stack(single, 1)}, ours)


def draw_many(report: Report) -> Figure:
    """Average accuracy against the number of tasks, and the single-task level as a dashed line."""
    figure = _figure(7, 4.5)
    ax = plots.average_so_far({k: report.results[k] for k in ("EWC", "SGD + dropout")}, ax=figure.subplots())
    ax.axhline(100 * report.arrays["single"].mean(), color="#222222", linestyle="--", label="single task")
    ax.legend()
    return figure


# ewc-c ---------------------------------------------------------------------------------------------------------------------


def fisher_by_depth(s: Setting) -> Computed:
    """Two tasks learned with EWC, the second with a permuted square; the overlap of their Fishers in each layer."""
    results: dict[str, Result] = {}
    overlaps = []
    for square in s.sizes.squares:
        scenario = permuted(s.data, 2, square=square)
        label = f"{square} x {square} pixels"
        results[label] = s.train(f"square-{square}", scenario, s.ewc())
        samples = s.sizes.fisher_samples
        overlaps.append([layer_overlaps(s.net(), theta, scenario, samples, s.device) for theta in results[label].theta])
    overlap = np.array(overlaps)  # [squares, seeds, layers]
    small, large = overlap
    ours = {
        "small square, lowest overlap of any layer": small.min(-1),
        "large square, overlap in the first layer": large[:, 0],
        "large square, overlap in the last layer": large[:, -1],
        "large square, rise from first to last layer": large[:, -1] - large[:, 0],
    }
    return Computed(results, {"overlap": overlap}, ours)


def layer_overlaps(net: Net, theta: Tensor, scenario: Scenario, samples: int, device: str = "auto") -> list[float]:
    """The overlap of the exact Fishers of the first two tasks at theta [P], layer by layer, each scaled to unit trace."""
    where = pick_device(device)
    net.module.to(where)
    both = [fisher(net, theta.to(where), scenario[k].x[:samples].to(where)) for k in (0, 1)]
    parts = [net.unflatten(f) for f in both]
    layers = [name.removesuffix(".weight") for name in net.names if name.endswith(".weight")]
    flat = lambda part, layer: torch.cat([part[f"{layer}.{p}"].flatten() for p in ("weight", "bias")]).double()  # noqa: E731
    return [fisher_overlap(flat(parts[0], layer), flat(parts[1], layer)) for layer in layers]


def draw_depth(report: Report) -> Figure:
    """Overlap of the Fishers against the layer, a line for each size of the permuted square."""
    figure = _figure(7, 4.5)
    ax = figure.subplots()
    for label, values in zip(report.results, report.arrays["overlap"], strict=True):
        layers = np.arange(1, values.shape[1] + 1)
        mean, half = metrics.interval(values)
        ax.errorbar(layers, mean, yerr=np.nan_to_num(half), marker="o", capsize=3, label=f"{label} permuted")
    ax.set(xlabel="layer (1 is next to the input)", ylabel="overlap of the Fishers (0 to 1)", ylim=(0, 1.02), xticks=layers)
    ax.legend()
    return figure


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


# what they should give ----------------------------------------------------------------------------------------------------

KIRKPATRICK = (
    Experiment(
        name="ewc-a",
        title="EWC on three permuted tasks, against SGD and L2",
        source=f"{PAPER}, Fig. 3A",
        reference={
            "EWC, average of the three tasks": Reference(">=", 97.0, BOOK),
            "EWC, worst of the three tasks": Reference(">=", 96.0, BOOK),
            "SGD, lost on the first task": Reference(">=", 5.0, BOOK),
            "L2, lost on the first task": Reference("<=", 5.0, "L2 strong enough to keep the first task"),
            "L2, short of EWC on the third task": Reference(">=", 5.0, "and then too stiff to learn the third"),
        },
        sizes=THREE,
        compute=three_tasks,
        draw=draw_three,
        notes="The paper does not report lambda, the batch size, the number of seeds or how the Fisher was estimated. "
        "The strengths of EWC and of L2 are searched on a held-out tenth of the training data (the arrays search/...).",
    ),
    Experiment(
        name="ewc-b",
        title="EWC over ten permuted tasks, against SGD with dropout and single-task training",
        source=f"{PAPER}, Fig. 3B",
        reference={"EWC, average of 10 tasks": Reference(">=", 94.0, "accepted reading of the figure; Avalanche gets 83")},
        sizes=MANY,
        compute=many_tasks,
        draw=draw_many,
        notes="The paper searched width and learning rate for every number of tasks, and stopped early on the "
        "validation error of all tasks seen so far, which looks at old data. Here one setting serves all numbers of tasks, "
        "and every epoch is run. lambda and learning rate of EWC, learning rate and width of plain SGD with dropout are "
        "searched on a held-out tenth of the training data.",
    ),
    Experiment(
        name="ewc-c",
        title="Overlap of the Fisher matrices of two tasks, by depth",
        source=f"{PAPER}, Fig. 3C",
        reference={
            "large square, rise from first to last layer": Reference(">=", 0.1, "shape: early layers share less"),
            "small square, lowest overlap of any layer": Reference(">=", 0.5, "shape: shared throughout"),
            "large square, overlap in the first layer": Reference("<=", 0.8, "shape: low in early layers"),
        },
        sizes=DEPTH,
        compute=fisher_by_depth,
        draw=draw_depth,
        unit="",
        notes="Each layer's Fisher is scaled to unit trace by itself. Both Fishers are taken at the end, in the "
        "network that has learned both tasks.",
    ),
)
