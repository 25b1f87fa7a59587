"""Features that never change, measured: which features, which sums, and how many random features.

Every row is a network that stays as it is and a classifier made of sums. `run` computes the rows in parts as it does any
method's; only the search for lam and the shrinkage goes another way, because all values share the sums, which cost nearly
everything. Book: notebooks/09_fixed_features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from clbook import metrics
from clbook.checks import Count, Fraction, Natural, check_fields
from clbook.lab import work
from clbook.lab.compare import accuracy
from clbook.lab.parts import Part, Shape, Stream
from clbook.lab.provenance import concat
from clbook.lab.report import Computed, Experiment, Reference, Report, Setting
from clbook.lab.search import Search, Tuned
from clbook.loop import Training, run
from clbook.method import State
from clbook.methods import LDA, ClassMeans, Finetune, Ridge
from clbook.methods.fixed import FixedFeatures, added, features
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
    search_seeds: tuple[Natural, ...] = (1000, 1001)  # no other run has them
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

    def parts(self, sizes: Sizes, method: FixedFeatures) -> list[Part]:
        """One run for each seed, judged on the test set."""
        stream = Stream("split", self.data, sizes.tasks, self.kind)
        shape, training = Shape(hidden=self.layer.hidden), Training(steps=self.layer.steps)
        return [Part(stream, shape, training, (method,), (seed,)) for seed in range(min(sizes.seeds, self.layer.seeds))]


def rows_of(sizes: Sizes) -> Iterator[Row]:
    """Every row of the experiment; rows with the same features follow each other."""
    for data in sizes.datas:
        for layer in sizes.layers:
            yield from (Row(data, kind, layer, name) for kind in layer.kinds for name in layer.classifiers)


def compute(s: Setting) -> Computed:
    """Choose what is tuned on held-out training data, then all rows with it; each part is kept as soon as it is there."""
    searches = {row: search(row, s.sizes) for row in rows_of(s.sizes)}
    parts = {
        row: row.parts(s.sizes, row.method(**{name: one.best for name, one in found.items()}))
        for row, found in searches.items()
    }
    work.sweep_here([p for some in parts.values() for p in some], s.work, s.workers, device=s.device, progress=bool(s.progress))
    runs = {row.key: [r for p in some if (r := p.load(s.work)) is not None] for row, some in parts.items()}
    results = {key: concat(some) for key, some in runs.items()}
    arrays = {f"cpu/{key}": np.array([r.info["cpu_seconds"] for r in some]) for key, some in runs.items()}
    for row, found in searches.items():
        for name, one in found.items():
            arrays[f"search/{row.key}: {name}"] = np.array([[v, one.mean(v), len(one.scores[v])] for v in sorted(one.scores)])
    return Computed(results, arrays, {key: accuracy(result) for key, result in results.items()})


def search(row: Row, sizes: Sizes) -> dict[str, Search]:
    """The search for what the row's classifier has to be told, by name; nothing for class means."""
    tuned = CLASSIFIERS[row.classifier][1]
    if tuned is None:
        return {}
    found = Search(tuned, row.kind)
    asking = found.trials()
    wanted = next(asking)
    while wanted:
        scores = [held_out(row, sizes, sizes.search_seeds[i], row.method(**{tuned.name: v})) for v, i in wanted]
        try:
            wanted = asking.send(scores)
        except StopIteration:
            break
    return {tuned.name: found}


def held_out(row: Row, sizes: Sizes, seed: int, method: FixedFeatures) -> float:
    """Accuracy in percent, the mean over tasks, on the training data that were held out of the sums."""
    scenario, sums, tested = summed(row.data, row.kind, row.layer, sizes, seed)
    W, b = method.classifier(sums)
    hits = [
        scenario.likelihood.score(phi @ W.to(phi) + b.to(phi), scenario.test(j)[1], scenario.mask[-1, j]).mean()
        for j, phi in enumerate(tested)
    ]
    return 100 * float(torch.stack(hits).mean())


@lru_cache(maxsize=1)
def summed(data: str, kind: Kind, layer: Layer, sizes: Sizes, seed: int) -> tuple[Scenario, State, list[Tensor]]:
    """The held-out scenario, the sums over all its training data, and the features of what was held out, task by task."""
    scenario = Stream("split", data, sizes.tasks, kind, held_out=sizes.held_out).build()
    net, method = Shape(hidden=layer.hidden).build(scenario), Ridge()
    theta = net.init(seed)
    if layer.learn == "first":
        first = run(scenario.first(1), Finetune(), [seed], net=net, steps=layer.steps, device="cpu", progress=False)
        theta = first.theta[0]
    sums = {name: value for name, value in method.start(net, theta).items() if name in method.keeps}
    for task in scenario:
        sums = added(sums, net, theta, task)
    return scenario, sums, [features(net, theta, scenario.test(j)[0]) for j in range(len(scenario))]


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


RIDGE = ("ridge",)
TARGET = "target of this book, after a first sketch; the sources use other features or other images"


def layers(
    widths: tuple[int, ...], wide: tuple[int, ...], hidden: tuple[int, ...], steps: int, seeds: int
) -> tuple[Layer, ...]:
    """Pixels and the narrowest random layer for every classifier, wider ones for ridge, and new classes alone for `wide`."""
    random = [
        Layer(f"{M} random features", (M,), seeds, classifiers=tuple(CLASSIFIERS) if M == widths[0] else RIDGE) for M in widths
    ]
    largest = [Layer(f"{M} random features", (M,), seeds, classifiers=RIDGE, kinds=("class",)) for M in wide]
    first = Layer("features of the first task", hidden, seeds, "first", steps)
    return Layer("pixels", (), 1), *random, *largest, first  # on pixels nothing is random, so one run is enough


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
        "book": Sizes(seeds=5, datas=BOTH, layers=layers((500, 2000), (100, 200, 1000, 5000), (400, 400), 300, 5)),
        "paper": Sizes(seeds=20, datas=BOTH, layers=layers((500, 2000), (100, 200, 1000, 5000, 10_000), (400, 400), 2000, 20)),
    },
    compute=compute,
    draw=draw,
    notes="The random layer is the hidden layer of a network as PyTorch draws it. lam and the shrinkage were chosen on a tenth "
    "of the training data that no sum contains, with seeds that no other run has; the test set was looked at once. The arrays "
    "search/... hold value, mean accuracy and number of seeds, cpu/... the seconds that the processor was busy with one run, "
    "with the loading of the data in the first. On pixels nothing is random, so there is one run.",
)
