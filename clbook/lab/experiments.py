"""The named, published experiments of the book: their sizes, what they should give, and where that is said.

`reproduce("ewc-a")` computes one and writes its numbers, figure and provenance; one that was cut short goes on where it
stopped. What can be tuned stands in the tables of sizes, THREE, MANY and DEPTH, and nowhere else.
Book: notebooks/03_ewc, "The paper's three figures".
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from clbook.engine import pick_device
from clbook.report import Budget, Experiment, Reference, Report, Setting, comparison, settings_of
from matplotlib import rc_context
from matplotlib.figure import Figure
from torch import Tensor

from clbook import benchmark, metrics, plots
from clbook.data import Data
from clbook.importance import fisher, fisher_overlap
from clbook.methods import L2, Finetune
from clbook.net import Net
from clbook.presets import preset as pick_preset
from clbook.result import Result
from clbook.scenarios import Scenario, permuted

PAPER = "Kirkpatrick et al. 2017 (PNAS 114:3521)"

# sizes: everything that may be tuned --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Three(Budget):
    """ewc-a: three permuted tasks, plain SGD against L2 and EWC.

    The paper: two hidden layers of 400, lr 1e-3, 20 epochs; it gives neither lambda nor the batch size.
    """

    lam_l2: float = 0.1
    eval_every: int = 100
    eval_samples: int = 2000


@dataclass(frozen=True)
class Many(Budget):
    """ewc-b: one to ten tasks, EWC against SGD with dropout.

    The paper: two hidden layers of 400 to 2000 and lr 1e-5 to 1e-3, both searched, 100 epochs with early stopping.
    """

    tasks: int = 10
    dropout: tuple[float, float] = (0.2, 0.5)
    single_tasks: int = 10  # how many of the tasks a fresh network is trained on, for the single-task level


@dataclass(frozen=True)
class Depth(Budget):
    """ewc-c: overlap of the Fishers of two tasks, by layer.

    The paper: six hidden layers of 100, lr 1e-3, 100 epochs; squares of 8 and of 26 pixels.
    """

    squares: tuple[int, int] = (8, 26)


THREE = {
    "quick": Three(3, 6, 0.2, "sgd", 64, (400,), lam=200.0, lam_l2=1.0, eval_every=22, eval_samples=360),
    "book": Three(3, 4, 0.5, "sgd", 128, (400, 400), lam=100.0, decay=True, lam_l2=0.2, eval_every=200, eval_samples=2000),
    "paper": Three(10, 20, 0.2, "sgd", 128, (400, 400), lam=100.0, decay=True, lam_l2=0.2, eval_every=200, eval_samples=10_000),
}
MANY = {
    "quick": Many(3, 6, 0.2, "sgd", 64, (400,), lam=200.0, tasks=4, single_tasks=2),
    "book": Many(3, 3, 2e-3, "adam", 128, (800, 800), lam=100.0, decay=True, single_tasks=2),
    "paper": Many(10, 10, 2e-3, "adam", 128, (2000, 2000), lam=100.0, decay=True),
}
DEPTH = {
    "quick": Depth(3, 8, 1e-3, "adam", 32, (50,) * 6, lam=100.0, squares=(3, 7)),
    "book": Depth(3, 3, 1e-3, "adam", 128, (100,) * 6, lam=100.0, decay=True, fisher_samples=2000),
    "paper": Depth(10, 100, 1e-3, "adam", 128, (100,) * 6, lam=100.0, fisher_samples=60_000),
}


# computing one -------------------------------------------------------------------------------------------------------------


def reproduce(
    name: str,
    preset: str | None = None,
    out: str | os.PathLike[str] = "results",
    *,
    seeds: int | None = None,
    sizes: Any = None,
    device: str = "auto",
    workers: int = 1,
    progress: bool | None = None,
    quiet: bool = False,
) -> Report:
    """Compute the named experiment, write OUT/NAME.json, .npz and .png, and print the targets beside ours.

    `sizes` replaces those of the preset, `seeds` their number of seeds. `workers` processes of one thread each share the work
    of the benchmark; the other experiments train one run after the other. Cut short, it goes on from OUT/.work when it is
    called again with the same sizes. Raises ValueError for an unknown name and fewer than one worker or seed.
    """
    experiment, chosen = find(name), pick_preset(preset)
    sizes = experiment.sizes[chosen.name] if sizes is None else sizes
    sizes = sizes if seeds is None else replace(sizes, seeds=seeds)
    if sizes.seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {sizes.seeds}")
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    data, out = chosen.load(sizes.data), Path(out)
    settings = settings_of(sizes) | {"data": data.name}
    key = hashlib.sha256(json.dumps([chosen.name, settings], sort_keys=True).encode()).hexdigest()[:8]
    setting = Setting(sizes, data, out / ".work" / f"{name}-{key}", device, progress, workers)
    results, arrays, ours = experiment.compute(setting)
    report = Report(name, chosen.name, settings, results, arrays, ours, _provenance(results, data))
    report.save(out / name, experiment)
    with rc_context():
        plots.use_style()
        experiment.draw(report).savefig(out / f"{name}.png", dpi=150)
    shutil.rmtree(setting.work, ignore_errors=True)
    if not quiet:
        size = f"preset {chosen.name}, {sizes.seeds} seeds, {report.info['seconds']:.0f} s"
        print(f"{experiment.title}\n{experiment.source}; {size}\n")
        print(comparison(report.table(experiment.reference, experiment.unit)))
    return report


def find(name: str) -> Experiment:
    """The experiment of that name. Raises ValueError for an unknown one."""
    if name not in EXPERIMENTS:
        raise ValueError(f"unknown experiment {name!r}: choose one of {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]


def stored(name: str) -> Report:
    """The numbers of the named experiment as they lie in the repository's results/, with their provenance.

    Where the package was installed without the repository there are none: then the experiment is computed at the quick
    size, and the report says so in its `preset`. Raises ValueError for an unknown name.
    """
    find(name)
    path = Path(__file__).resolve().parents[1] / "results" / name
    if path.with_suffix(".json").exists():
        return Report.load(path)
    with tempfile.TemporaryDirectory() as folder:
        return reproduce(name, "quick", folder, quiet=True)


def _provenance(results: dict[str, Result], data: Data) -> dict[str, Any]:
    first = next(iter(results.values())).info
    seconds = sum(float(r.seconds.sum()) for r in results.values())
    commits = sorted({str(r.info["commit"]) for r in results.values()})  # an experiment may go on after a change elsewhere
    found = {k: first[k] for k in ("device", "dtype", "versions")}
    return {"data": data.name, **found, "commit": ", ".join(commits), "seconds": round(seconds, 1)}


# ewc-a ---------------------------------------------------------------------------------------------------------------------


def three_tasks(s: Setting) -> tuple[dict[str, Result], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Three permuted tasks in turn: plain SGD, L2 and EWC."""
    methods = {"SGD": Finetune(), "L2": L2(lam=s.sizes.lam_l2), "EWC": s.ewc()}
    every = {"eval_every": s.sizes.eval_every, "eval_samples": s.sizes.eval_samples}
    results = {label: s.train(label, permuted(s.data, 3), method, **every) for label, method in methods.items()}
    R = {label: 100 * r.R for label, r in results.items()}
    fall = lambda label: R[label][:, 0, 0] - R[label][:, 2, 0]  # noqa: E731
    return results, {}, {
        "EWC, average of the three tasks": metrics.average_accuracy(R["EWC"]),
        "EWC, worst of the three tasks": R["EWC"][:, 2].min(-1),
        "SGD, lost on the first task": fall("SGD"),
        "L2, lost on the first task": fall("L2"),
        "L2, short of EWC on the third task": R["EWC"][:, 2, 2] - R["L2"][:, 2, 2],
    }  # fmt: skip


def draw_three(report: Report) -> Figure:
    """Accuracy on each task while all three are trained."""
    figure = _figure(8, 7.5)
    axes = figure.subplots(3, 1, sharex=True, sharey=True)
    for task, ax in enumerate(axes):
        plots.training_curves(report.results, task, ax=ax, legend=task == 0)
        ax.set(xlabel="training steps" if task == 2 else "", ylim=(0, 102))
    return figure


# ewc-b ---------------------------------------------------------------------------------------------------------------------


def many_tasks(s: Setting) -> tuple[dict[str, Result], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The average over a growing number of tasks: EWC, SGD with dropout, and a fresh network for each task."""
    scenario, last = permuted(s.data, s.sizes.tasks), s.sizes.tasks
    results = {
        "EWC": s.train("EWC", scenario, s.ewc()),
        "SGD + dropout": s.train("SGD", scenario, Finetune(), net=s.net(s.sizes.dropout)),
    }
    single = []
    for k in range(min(s.sizes.single_tasks, last)):
        task = scenario[k]
        alone = permuted(replace(s.data, x=task.x, x_test=task.x_test), 1)
        results[f"task {k + 1} alone"] = s.train(f"single-{k}", alone, Finetune())
        single.append(results[f"task {k + 1} alone"].R[:, 0, 0])
    average = {label: 100 * metrics.average_accuracy(results[label].R) for label in ("EWC", "SGD + dropout")}
    return results, {"single": np.stack(single, 1)}, {
        f"EWC, average of {last} tasks": average["EWC"],
        f"SGD + dropout, average of {last} tasks": average["SGD + dropout"],
        "single task, fresh network": 100 * np.mean(single, 0),
    }  # fmt: skip


def draw_many(report: Report) -> Figure:
    """Average accuracy against the number of tasks, and the single-task level as a dashed line."""
    figure = _figure(7, 4.5)
    ax = plots.average_so_far({k: report.results[k] for k in ("EWC", "SGD + dropout")}, ax=figure.subplots())
    ax.axhline(100 * report.arrays["single"].mean(), color="#222222", linestyle="--", label="single task")
    ax.legend()
    return figure


# ewc-c ---------------------------------------------------------------------------------------------------------------------


def fisher_by_depth(s: Setting) -> tuple[dict[str, Result], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Two tasks learned with EWC, the second with a permuted square; the overlap of their Fishers in each layer."""
    results, overlaps = {}, []
    for square in s.sizes.squares:
        scenario = permuted(s.data, 2, square=square)
        label = f"{square} x {square} pixels"
        results[label] = s.train(f"square-{square}", scenario, s.ewc())
        samples = s.sizes.fisher_samples
        overlaps.append([layer_overlaps(s.net(), theta, scenario, samples, s.device) for theta in results[label].theta])
    overlap = np.array(overlaps)  # [squares, seeds, layers]
    small, large = overlap
    return results, {"overlap": overlap}, {
        "small square, lowest overlap of any layer": small.min(-1),
        "large square, overlap in the first layer": large[:, 0],
        "large square, overlap in the last layer": large[:, -1],
        "large square, rise from first to last layer": large[:, -1] - large[:, 0],
    }  # fmt: skip


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


# the registry ----------------------------------------------------------------------------------------------------------------

BOOK = "target of this book; the paper shows curves, no table"
EXPERIMENTS = {
    e.name: e
    for e in (
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
            "lambda = 100 is the best of 30, 100 and 300 on a held-out tenth of the training data (averages of 96.7, 96.9 and "
            "96.8 %, one run each).",
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
            "and every epoch is run. lambda is that of ewc-a.",
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
        Experiment(
            name="benchmark",
            title="All methods in three scenarios on Split MNIST, and some on permuted MNIST",
            source="the scenarios of van de Ven & Tolias 2019 (arXiv:1904.07734); the demonstration of Aljundi et al. 2018",
            reference=benchmark.REFERENCE,
            sizes=benchmark.TABLE,
            compute=benchmark.compare_all,
            draw=benchmark.draw,
            notes=" ".join(benchmark.NOTES.split()),
        ),
    )
}
