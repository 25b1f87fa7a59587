"""Features that never change, measured: which features, which sums, and how many random features.

The sums cost nearly everything and are the same for all classifiers, all values of lam, and all kinds of scenario. So they are
made once for each layer of features and seed, and not by `run`, which gives the same R (and is tested to). In the domain
scenario the features of the first task are those of a network with ten outputs, where `run` would train two.
Book: notebooks/09_fixed_features.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from clbook import metrics
from clbook.checks import Count, Fraction, Natural, check_fields
from clbook.evaluate import Outcome
from clbook.lab.parts import Shape, Stream
from clbook.lab.provenance import concat
from clbook.lab.report import Computed, Experiment, Reference, Report, Setting, accuracy
from clbook.lab.search import SEEDS, Search, Tuned
from clbook.loop import Training, run
from clbook.method import State
from clbook.methods import LDA, ClassMeans, Finetune, Ridge
from clbook.methods.fixed import FixedFeatures, added, features
from clbook.result import Result, provenance
from clbook.scenarios import KINDS, Kind, Scenario

CLASSIFIERS: dict[str, tuple[FixedFeatures, Tuned | None]] = {
    "class means": (ClassMeans(), None),
    "LDA": (LDA(), Tuned("shrinkage", (1e-4, 1e-3, 1e-2), least=1e-7, most=1.0)),
    "ridge": (Ridge(), Tuned("lam", (0.1, 1.0, 10.0), least=1e-3)),
}


@dataclass(frozen=True)
class Layer:
    """Features: those of the network with these hidden layers, as drawn or after `steps` of training on the first task.

    `classifiers` and `kinds` say what is computed on them, with `seeds` runs each.
    """

    name: str
    hidden: tuple[Count, ...]
    seeds: Count
    learn: Literal["never", "first"] = "never"
    steps: Count = 1  # a step that features which are never trained do not follow
    classifiers: tuple[str, ...] = tuple(CLASSIFIERS)
    kinds: tuple[Kind, ...] = KINDS

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is computed: which features on which data. Every layer may have its own number of seeds, at most `seeds`."""

    seeds: Count
    datas: tuple[str, ...]
    layers: tuple[Layer, ...]
    tasks: Count = 5
    held_out: Fraction = 0.1  # the share of the training data on which lam and the shrinkage are chosen
    search_seeds: tuple[Natural, ...] = SEEDS
    data: str = "mnist"

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Row:
    """One number: a data set, a kind of scenario, features and a classifier."""

    data: str
    kind: Kind
    layer: Layer
    classifier: str

    @property
    def key(self) -> str:
        """Its name, such as "mnist class: ridge, 2000 random features"."""
        return f"{self.data} {self.kind}: {self.classifier}, {self.layer.name}"

    def method(self, **chosen: float) -> FixedFeatures:
        return replace(CLASSIFIERS[self.classifier][0], learn=self.layer.learn, **chosen)


class Seen(NamedTuple):
    """What all rows on one layer of features share: the scenarios by kind, the sums after each task [T], and the features
    of the test samples of each task. `seconds` of one core went into it.
    """

    scenarios: dict[Kind, Scenario]
    sums: list[State]
    tested: list[Tensor]
    theta: Tensor
    n_params: int
    seconds: float


def rows_of(sizes: Sizes) -> Iterator[Row]:
    """Every row of the experiment; rows with the same features follow each other."""
    for data in sizes.datas:
        for layer in sizes.layers:
            yield from (Row(data, kind, layer, name) for kind in layer.kinds for name in layer.classifiers)


def compute(s: Setting) -> Computed:
    """Choose what is tuned on held-out training data, then measure every row with it, layer by layer."""
    results: dict[str, Result] = {}
    arrays: dict[str, np.ndarray] = {}
    for (data, layer), group in groupby(rows_of(s.sizes), key=lambda row: (row.data, row.layer)):
        methods = {}
        for row in list(group):
            found = search(row, s.sizes)
            methods[row] = row.method(**{name: one.best for name, one in found.items()})
            for name, one in found.items():
                arrays[f"search/{row.key}: {name}"] = one.table()
        runs = [
            measure(methods, seen(data, layer, s.sizes.tasks, seed), seed) for seed in range(min(s.sizes.seeds, layer.seeds))
        ]
        for row in methods:
            results[row.key] = concat([run[row] for run in runs])
            arrays[f"cpu/{row.key}"] = results[row.key].seconds
    return Computed(results, arrays, {key: accuracy(result) for key, result in results.items()})


def search(row: Row, sizes: Sizes) -> dict[str, Search]:
    """The search for what the row's classifier has to be told, by name; nothing for class means."""
    tuned = CLASSIFIERS[row.classifier][1]
    if tuned is None:
        return {}

    def score(value: float, seed: int) -> float:
        held = seen(row.data, row.layer, sizes.tasks, sizes.search_seeds[seed], sizes.held_out)
        return 100 * float(np.mean(judged(row.method(**{tuned.name: value}), held, row.kind, sizes.tasks - 1)))

    found = Search(tuned, row.kind)
    found.climb(score)
    return {tuned.name: found}


@lru_cache(maxsize=len(SEEDS))  # all searches on a layer take turns with these
def seen(data: str, layer: Layer, tasks: int, seed: int, held_out: float | None = None) -> Seen:
    """The sums after each task, in the class scenario; those of the others follow from them.

    `held_out` leaves that share of the training data out of the sums and tests on it.
    """
    started = time.process_time()
    scenarios = {kind: Stream("split", data, tasks, kind, held_out=held_out).build() for kind in KINDS}
    classes, net = scenarios["class"], Shape(hidden=layer.hidden).build(scenarios["class"])
    theta = net.init(seed)
    if layer.learn == "first":
        first = run(classes.first(1), Finetune(), [seed], net=net, steps=layer.steps, device="cpu", progress=False)
        theta = first.theta[0]
    sums = [{name: value for name, value in Ridge().start(net, theta).items() if name in Ridge.keeps}]
    for task in classes:
        sums.append(added(sums[-1], net, theta, task))
    tested = [features(net, theta, classes.test(j)[0]) for j in range(tasks)]
    return Seen(scenarios, sums[1:], tested, theta, net.n_params, time.process_time() - started)


def of_kind(sums: State, scenario: Scenario) -> State:
    """The sums of a scenario from those of the class scenario: columns of S whose classes share an output there are added."""
    share = sums["n"].new_zeros(len(sums["n"]), scenario.n_outputs)  # [classes, C]
    for relabel in scenario.relabel:
        share[relabel >= 0, relabel[relabel >= 0]] = 1
    return {"n": sums["n"] @ share, "S": sums["S"] @ share, "G": sums["G"]}


def judged(method: FixedFeatures, known: Seen, kind: Kind, i: int) -> list[float]:
    """The scores on the tasks 0 to i after task i."""
    scenario = known.scenarios[kind]
    W, b = method.classifier(of_kind(known.sums[i], scenario))
    return [
        float(scenario.likelihood.score(phi @ W.to(phi) + b.to(phi), scenario.test(j)[1], scenario.mask[i, j]).mean())
        for j, phi in enumerate(known.tested[: i + 1])
    ]


def measure(methods: dict[Row, FixedFeatures], known: Seen, seed: int) -> dict[Row, Result]:
    """R of every row on these features, and what the row took: the sums, and its own classifiers."""
    found = {}
    for row, method in methods.items():
        started, tasks = time.process_time(), len(known.sums)
        R = np.full((tasks, tasks), np.nan)
        for i in range(tasks):
            R[i, : i + 1] = judged(method, known, row.kind, i)
        scenario = known.scenarios[row.kind]
        memory = method.memory_bytes(of_kind(known.sums[-1], scenario), scenario)
        seconds = known.seconds + time.process_time() - started
        none, steps = np.zeros((0, tasks)), np.zeros((0, 2), dtype=int)
        outcome = Outcome(R, none, steps, memory, seconds, known.n_params, known.theta, [])
        info = provenance(Training(steps=row.layer.steps), scenario, torch.float32, seconds)
        found[row] = Result.join([outcome], [(method, seed)], scenario, info)
    return found


def rows(report: Report) -> list[dict[str, Any]]:
    """The table: data, kind, features, classifier, accuracy with its interval in percent, bytes kept, seconds of one core."""
    found = []
    for key, result in report.results.items():
        cell, label = key.split(": ")
        data, kind = cell.split()
        classifier, features = label.split(", ", 1)
        mean, half = metrics.interval(report.ours[key])
        found.append({
            "data": data, "kind": kind, "features": features, "classifier": classifier, "seeds": len(result.R),
            "accuracy": float(mean), "interval": float(half), "bytes": int(result.memory_bytes.max()),
            "seconds": float(report.arrays[f"cpu/{key}"].min()),
            "chosen": {n: v for n, v in result.runs[0].items() if n in ("lam", "shrinkage")},
        })  # fmt: skip
    return found


def width(row: dict[str, Any]) -> int:
    """M, of a row with random features."""
    return int(row["features"].split()[0])


def draw(report: Report, figure: Figure | None = None) -> Figure:
    """Class-incremental accuracy of ridge regression against the number of random features, with 95 % intervals."""
    figure = Figure(figsize=(6.5, 4.5), layout="constrained") if figure is None else figure
    ax = figure.subplots()
    found = [r for r in rows(report) if r["kind"] == "class" and r["classifier"] == "ridge" and "random" in r["features"]]
    for data, marker in zip(dict.fromkeys(r["data"] for r in found), "os^", strict=False):
        mine = sorted((r for r in found if r["data"] == data), key=width)
        widths = [width(r) for r in mine]
        half = np.nan_to_num([r["interval"] for r in mine])
        ax.errorbar(widths, [r["accuracy"] for r in mine], yerr=half, marker=marker, capsize=4, label=data)
    ax.set(xscale="log", xlabel="random features M", ylabel="class-incremental accuracy (%)")
    ax.set_xticks(widths, [f"{M:,}" for M in widths])
    ax.minorticks_off()
    ax.legend()
    return figure


TARGET = "target of this book, after a first sketch; the sources use other features or other images"


def layers(
    widths: tuple[int, ...], wide: tuple[int, ...], hidden: tuple[int, ...], steps: int, seeds: int
) -> tuple[Layer, ...]:
    """Pixels, where nothing is random and one run is enough, random layers, and features of the first task.

    On the `wide` ones there is ridge regression with new classes alone.
    """
    random = [Layer(f"{M} random features", (M,), seeds) for M in widths]
    random += [Layer(f"{M} random features", (M,), min(seeds, 3), classifiers=("ridge",), kinds=("class",)) for M in wide]
    return Layer("pixels", (), 1), *random, Layer("features of the first task", hidden, seeds, "first", steps)


BOTH = ("mnist", "fashion")
FIXED = Experiment(
    name="fixed-features",
    title="Class means, LDA and ridge regression on features that never change",
    source="after McDonnell et al. 2023 (arXiv:2307.02251) and Prabhu et al. 2024 (arXiv:2402.08823)",
    reference={
        "mnist class: ridge, 2000 random features": Reference(">=", 95.0, TARGET),
        "mnist class: ridge, 5000 random features": Reference(">=", 97.0, TARGET),
        "fashion class: ridge, 2000 random features": Reference(">=", 85.5, TARGET),
        "fashion class: ridge, 5000 random features": Reference(">=", 87.0, TARGET),
    },
    sizes={
        "quick": Sizes(seeds=2, datas=("digits",), layers=layers((50, 200), (400,), (50,), 60, 2)),
        "book": Sizes(seeds=5, datas=BOTH, layers=layers((100, 200, 500, 1000, 2000), (5000,), (400, 400), 300, 5)),
        "paper": Sizes(seeds=20, datas=BOTH, layers=layers((100, 200, 500, 1000, 2000), (5000, 10_000), (400, 400), 2000, 20)),
    },
    compute=compute,
    draw=draw,
    notes="The random layer is the hidden layer of a network as PyTorch draws it. lam and the shrinkage were chosen on a tenth "
    "of the training data that no sum contains, with seeds that no other run has; the test set was looked at once. The arrays "
    "search/... hold value, mean accuracy and number of seeds, cpu/... the seconds that the processor was busy with one row: "
    "the sums n, S and G, which all rows on the same features share, and its own classifiers, one after each task.",
)
