"""Strong springs on a stream that does not end: do they make a network old, and what does online EWC's gamma do about it?

The stream, the network and the learning rate are those of the experiment `plasticity`, whose search chose weak springs, since
it looks at new tasks alone. Beside them a network that is drawn anew for each task and learns with Adam.
Book: notebooks/11_plasticity, "What springs do to it".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from clbook import methods as m
from clbook import plots
from clbook.checks import Count, Share, Strength
from clbook.lab.plasticity import LONG, REMEDIES, SGD, condition, late, lost, new_task, smooth
from clbook.lab.report import Arrays, Computed, Experiment, Report, Seeds, Setting, Values, accuracy
from clbook.loop import Training
from clbook.method import Method
from clbook.result import Result
from clbook.scenarios import Scenario, permuted

FRESH = "a fresh network, Adam"
LINES = ("-", "--", ":", "-.")


@dataclass(frozen=True, kw_only=True)
class Stiff(Training):
    """How stiff the springs of EWC and of MAS are, and by what the old ones of online EWC fade.

    `lr_adam` is the learning rate of the fresh network where none is searched.
    """

    seeds: Count
    tasks: Count
    n_train: Count
    n_test: Count
    hidden: tuple[Count, ...]
    lam: Strength
    lam_mas: Strength
    gammas: tuple[Share, ...]
    lr_adam: float
    samples: Count = 200  # for the stiffness
    searched: bool = True  # the learning rate of the fresh network is chosen on held-out images
    data: str = "mnist"

    def springs(self) -> dict[str, Method]:
        """The methods by their labels."""
        ewc = m.EWC(lam=self.lam, n_samples=self.samples)
        found: dict[str, Method] = {f"EWC, λ = {self.lam:g}": ewc}
        for gamma in self.gammas:
            online = m.EWC(lam=self.lam, carry="online", gamma=gamma, n_samples=self.samples)
            found[f"online EWC, λ = {self.lam:g}, γ = {gamma:g}"] = online
        return found | {f"MAS, λ = {self.lam_mas:g}": m.MAS(lam=self.lam_mas, n_samples=self.samples)}


def compute(s: Setting) -> Computed:
    """Train with every spring and seed, choose the rate of the fresh network, and train it."""
    stream = permuted(s.data.subset(s.sizes.n_train, s.sizes.n_test), s.sizes.tasks, first_identity=False)
    net, runs, arrays = s.net(), dict[str, Result](), Arrays()
    for number, (label, method) in enumerate(s.sizes.springs().items()):
        runs[label] = s.train(f"spring-{number}", stream, method, net, keep_optimizer=True, on_divergence="nan")
        x = stream.test(s.sizes.tasks - 1)[0]
        arrays[f"condition/{label}"] = np.array([condition(net, theta, x) for theta in runs[label].theta])
    runs[FRESH], searched = _fresh(s, stream)
    for label, result in runs.items():
        arrays[f"new/{label}"] = new_task(result).astype(np.float32)
        arrays[f"end/{label}"] = 100 * result.R[:, -1].astype(np.float32)
    judges = {"late": late, "lost": lost, "kept": accuracy}
    ours = {f"{label}: {word}": judge(r) for word, judge in judges.items() for label, r in runs.items()}
    return Computed({}, arrays | searched, ours, tuple(runs.values()))


def _fresh(s: Setting, stream: Scenario) -> tuple[Result, Arrays]:
    """A network that is drawn anew for each task, its optimiser too, with the best learning rate for Adam."""

    def train(part: str, scenario: Scenario, values: Values, seeds: Seeds) -> Result:
        how = {"lr": s.sizes.lr_adam, "optimizer": "adam", "on_divergence": "nan"} | values
        return s.train(part.replace(" ", "-"), scenario, m.ShrinkPerturb(keep=0.0, perturb=1.0), s.net(), seeds, **how)

    found, arrays = s.search(FRESH, stream, REMEDIES["Adam"].tuned, train, late)
    return train(FRESH, stream, found, None), arrays


def draw(report: Report, figure: Figure | None = None) -> Figure:
    """Accuracy on each new task right after it was learned, over the number of tasks."""
    figure = Figure(figsize=(7, 6), layout="constrained") if figure is None else figure
    ax, width = figure.subplots(), max(1, report.settings["tasks"] // 10)
    labels = [name.removeprefix("new/") for name in report.arrays if name.startswith("new/")]
    for i, label in enumerate(labels):
        mean, line = smooth(report.arrays[f"new/{label}"].mean(0), width), LINES[i % len(LINES)]
        ax.plot(np.arange(width, width + len(mean)), mean, line, label=label, color=plots.colour(label))
    ax.set(xlabel="tasks learned", ylabel=f"accuracy on the new task (%), mean of {width} tasks")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


STIFFNESS = Experiment(
    name="plasticity-springs",
    title="Two hundred permuted tasks with strong springs: is the last still learned as well as the first?",
    source="the stream of the experiment plasticity; nothing published to compare with",
    reference={},
    sizes={
        "quick": Stiff(
            **SGD, seeds=2, tasks=6, n_train=400, n_test=100, hidden=(20, 20), lr=0.1, lr_adam=3e-3, lam=10.0, lam_mas=0.1,
            gammas=(0.6, 1.0), searched=False,
        ),
        "book": Stiff(
            **SGD, **LONG | {"lr": 0.03}, seeds=5, tasks=200, n_train=2000, n_test=200, lam=10.0, lam_mas=0.1,
            gammas=(0.6, 0.9, 1.0),
        ),
        "paper": Stiff(
            **SGD, **LONG | {"hidden": (2000, 2000), "lr": 0.01}, seeds=10, tasks=800, n_train=60_000, n_test=1000, lam=10.0,
            lam_mas=0.1, gammas=(0.6, 0.8, 0.9, 0.95, 1.0),
        ),
    },
    compute=compute,
    draw=draw,
    notes="new/...: accuracy on each task right after it was learned in percent [seeds, tasks]; end/...: accuracy on each task "
    "at the end; condition/...: percent of dead units of the last hidden layer, rms of all parameters and effective rank at "
    "the end [seeds, 3]; search/...: value, accuracy on the last fifth of the tasks on held-out images, number of seeds. The "
    "learning rate of the springs is the one that the search of plasticity chose for SGD; their strengths were not searched.",
)  # fmt: skip
