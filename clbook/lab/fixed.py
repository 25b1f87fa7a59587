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

Learn = Literal["never", "first"]
CLASSIFIERS: dict[str, tuple[FixedFeatures, Tuned | None]] = {
    "class means": (ClassMeans(), None),
    "LDA": (LDA(), Tuned("shrinkage", (1e-4, 1e-3, 1e-2), least=1e-7, most=1.0)),
    "ridge": (Ridge(), Tuned("lam", (0.1, 1.0, 10.0), least=1e-3)),
}


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is computed: random layers of `widths` for every classifier and kind of scenario.

    Layers of `wide`, which take minutes, are for ridge regression with new classes alone, and for `wide_seeds`. `hidden` is
    the network whose last hidden layer gives the features of the first task, after `steps` of training.
    """

    seeds: Count
    datas: tuple[str, ...]
    widths: tuple[Count, ...]
    wide: tuple[Count, ...]
    wide_seeds: Count
    hidden: tuple[Count, ...]
    steps: Count
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
    features: str
    hidden: tuple[int, ...]
    learn: Learn
    classifier: str

    @property
    def key(self) -> str:
        """Its name, such as "mnist class: ridge, 2000 random features"."""
        return f"{self.data} {self.kind}: {self.classifier}, {self.features}"

    def method(self, **chosen: float) -> FixedFeatures:
        return replace(CLASSIFIERS[self.classifier][0], learn=self.learn, **chosen)

    def part(self, sizes: Sizes, method: FixedFeatures, seed: int) -> Part:
        """One run, judged on the test set. Features that are not trained take one step that leaves them where they are."""
        training = Training(steps=sizes.steps if self.learn == "first" else 1)
        return Part(Stream("split", self.data, sizes.tasks, self.kind), Shape(hidden=self.hidden), training, (method,), (seed,))

    def seeds(self, sizes: Sizes) -> range:
        """The pixels are the same for every seed, so one is enough."""
        if not self.hidden:
            return range(1)
        return range(sizes.wide_seeds if self.hidden[0] in sizes.wide else sizes.seeds)


def rows_of(sizes: Sizes) -> Iterator[Row]:
    """Every row of the experiment; rows with the same features follow each other."""
    for data in sizes.datas:
        for kind in KINDS:
            layers: list[tuple[str, tuple[int, ...], Learn]] = [("pixels", (), "never")]
            layers += [(f"{M} random features", (M,), "never") for M in sizes.widths]
            layers += [("features of the first task", sizes.hidden, "first")]
            yield from (Row(data, kind, *layer, name) for layer in layers for name in CLASSIFIERS)
        yield from (Row(data, "class", f"{M} random features", (M,), "never", "ridge") for M in sizes.wide)


def compute(s: Setting) -> Computed:
    """Choose what is tuned on held-out training data, then all rows with it; each part is kept as soon as it is there."""
    searches = {row: search(row, s.sizes) for row in rows_of(s.sizes)}
    parts = {
        row: [row.part(s.sizes, row.method(**{n: v.best for n, v in found.items()}), seed) for seed in row.seeds(s.sizes)]
        for row, found in searches.items()
    }
    work.sweep_here([p for some in parts.values() for p in some], s.work, s.workers, device=s.device, progress=bool(s.progress))
    loaded = {row: [p.load(s.work) for p in some] for row, some in parts.items()}
    results = {row.key: concat([r for r in some if r is not None]) for row, some in loaded.items()}
    arrays = {
        f"cpu/{row.key}": np.array([r.info["cpu_seconds"] for r in some if r is not None]) for row, some in loaded.items()
    }
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
    scenario, sums, tested = summed(row.data, row.kind, row.hidden, row.learn, sizes, seed)
    W, b = method.classifier(sums)
    hits = [
        scenario.likelihood.score(phi @ W.to(phi) + b.to(phi), scenario.test(j)[1], scenario.mask[-1, j]).mean()
        for j, phi in enumerate(tested)
    ]
    return 100 * float(torch.stack(hits).mean())


@lru_cache(maxsize=1)
def summed(
    data: str, kind: Kind, hidden: tuple[int, ...], learn: Learn, sizes: Sizes, seed: int
) -> tuple[Scenario, State, list[torch.Tensor]]:
    """The held-out scenario, the sums over all its training data, and the features of what was held out, task by task."""
    scenario = Stream("split", data, sizes.tasks, kind, held_out=sizes.held_out).build()
    net, method = Shape(hidden=hidden).build(scenario), Ridge(learn=learn)
    theta = net.init(seed)
    if learn == "first":
        first = run(scenario.first(1), Finetune(), [seed], net=net, steps=sizes.steps, device="cpu", progress=False)
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


def draw(report: Report, figure: Figure | None = None) -> Figure:
    """Class-incremental accuracy of ridge regression against the number of random features, with 95 % intervals."""
    figure = Figure(figsize=(6.5, 4.5), layout="constrained") if figure is None else figure
    ax = figure.subplots()
    found = [r for r in rows(report) if r["kind"] == "class" and r["classifier"] == "ridge" and "random" in r["features"]]
    for data, marker in zip(dict.fromkeys(r["data"] for r in found), "os^", strict=False):
        mine = [r for r in found if r["data"] == data]
        widths = [int(r["features"].split()[0]) for r in mine]
        half = np.nan_to_num([r["interval"] for r in mine])
        ax.errorbar(widths, [r["accuracy"] for r in mine], yerr=half, marker=marker, capsize=4, label=data)
    ax.set(xscale="log", xlabel="random features M", ylabel="class-incremental accuracy (%)")
    ax.set_xticks(widths, [f"{M:,}" for M in widths])
    ax.minorticks_off()
    ax.legend()
    return figure


TARGET = "target of this book, after a first sketch; the sources use other features or other images"
BOOK = Sizes(
    seeds=5, datas=("mnist", "fashion"), widths=(500, 2000), wide=(5000, 10_000), wide_seeds=3, hidden=(400, 400), steps=500
)
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
        "quick": Sizes(seeds=2, datas=("digits",), widths=(50, 200), wide=(400,), wide_seeds=2, hidden=(50,), steps=60),
        "book": BOOK,
        "paper": replace(BOOK, seeds=20, wide_seeds=20),
    },
    compute=compute,
    draw=draw,
    notes="The random layer is the hidden layer of a network as PyTorch draws it. lam and the shrinkage were chosen on a tenth "
    "of the training data that no sum contains, with seeds that no other run has; the test set was looked at once. The arrays "
    "search/... hold value, mean accuracy and number of seeds, cpu/... the seconds that the processor was busy with one run, "
    "with the loading of the data in the first. On pixels nothing is random, so there is one run.",
)
