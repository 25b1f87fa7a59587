"""A small language model that is fine-tuned: from the prose of Python's own library to its code.

`lm-base` trains the base on prose; its weights are shipped with the results. `lm-finetuning` goes on from there with code, with
every method at several strengths. Book: notebooks/10_finetuning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from clbook import methods as m
from clbook import plots, text
from clbook.checks import Count, Positive
from clbook.data import Data
from clbook.importance import slices
from clbook.lab.report import Computed, Experiment, Report, Setting, arguments
from clbook.likelihood import Categorical
from clbook.loop import Training, run
from clbook.method import Method
from clbook.net import Net, transformer
from clbook.result import Result
from clbook.scenarios import Scenario, sequence

TOPICS: tuple[text.Topic, ...] = ("prose", "code")
STORED = np.float16  # of the weights that are shipped
BOUND = "both texts"  # the family that learns the old text and the new one together
MARKERS = "os^vDPX<>hp"


@dataclass(frozen=True, kw_only=True)
class Language(Training):
    """The network, the windows of text that it sees, and how it is trained."""

    seeds: Count
    context: Count = 64
    width: Count = 128
    heads: Count = 4
    depth: Count = 3
    modules: Count | None = None  # of the library, all where none is said
    n_train: Count = 100_000  # windows of each text, at most
    n_test: Count = 1000
    data: str = "digits"  # not looked at: the text comes with Python

    def net(self) -> Net:
        return transformer(text.TOKENS, self.context, self.width, self.heads, self.depth)

    def scenario(self, *topics: text.Topic) -> Scenario:
        """One task for each topic."""
        return judged([self.windows(topic) for topic in topics])

    def windows(self, topic: text.Topic) -> Data:
        """The windows of one text."""
        return text.library(topic, self.context, n_train=self.n_train, n_test=self.n_test, modules=self.modules)


class Tried(NamedTuple):
    """A family of runs, its strength, the method, and what of its training is not as usual."""

    family: str
    strength: float
    method: Method
    how: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Protected(Language):
    """Strengths of three ways to protect the old text. `base` is the preset whose base is fine-tuned."""

    shares: tuple[Positive, ...]  # of the weight that replayed text has
    lam_pseudo: tuple[Positive, ...]
    lam_ewc: tuple[Positive, ...]
    fisher_samples: Count = 500
    kept: Count = 1000  # windows that replay keeps
    base: str

    def settings(self) -> Iterator[Tried]:
        """What is tried."""
        ewc = m.EWC(lam=1.0, estimator="sampled", n_samples=self.fisher_samples)
        yield from (Tried("replay", a, m.ER(size=self.kept, lam=a / (1 - a))) for a in self.shares)
        yield from (Tried("pseudo-rehearsal", lam, m.PseudoRehearsal(lam=lam)) for lam in self.lam_pseudo)
        yield from (Tried("EWC", lam, replace(ewc, lam=lam)) for lam in self.lam_ewc)


@dataclass(frozen=True, kw_only=True)
class Tuned(Protected):
    """How else the base is fine-tuned, and at which strengths."""

    lrs: tuple[Positive, ...]
    lam_l2: tuple[Positive, ...]
    lora: tuple[Positive, ...]  # learning rates of LoRA
    rank: Count = 4
    trainable: tuple[Count, ...]  # how many layers are not frozen
    averaged: tuple[Positive, ...]  # shares of the fine-tuned weights in the average
    recovery_steps: tuple[Count, ...] = (1, 3, 10, 30, 100)
    recovery_lr: Positive = 1e-4

    def settings(self) -> Iterator[Tried]:
        yield from (Tried("all weights", lr, m.Finetune(), {"lr": lr}) for lr in self.lrs)
        yield from (Tried(f"LoRA, rank {self.rank}", lr, m.LoRA(rank=self.rank), {"lr": lr}) for lr in self.lora)
        yield from (Tried("top layers alone", n, m.FeatureExtraction(trainable=n)) for n in self.trainable)
        yield from super().settings()
        yield from (Tried("L2", lam, m.L2(lam=lam)) for lam in self.lam_l2)


def judged(datas: list[Data]) -> Scenario:
    """One task for each of these texts, judged by the mean log-likelihood of a character in nats."""
    return replace(sequence(datas, kind="domain"), likelihood=Categorical("log_likelihood"))


def train_base(s: Setting) -> Computed:
    """Train the base on prose. Its weights go into the arrays in half precision."""
    scenario, net = s.sizes.scenario("prose", "code"), s.sizes.net()
    result = s.train("base", scenario.first(1), m.Finetune(), net)
    weights = np.stack([theta.numpy().astype(STORED) for theta in result.theta])
    ours = {
        topic: np.array([nats(net, torch.from_numpy(w.astype(np.float32)), scenario, j) for w in weights])
        for j, topic in enumerate(scenario.names)
    }
    return Computed({"base": result}, {"theta": weights}, ours)


def nats(net: Net, theta: Tensor, scenario: Scenario, j: int) -> float:
    """- log p of a character of task j's test windows, a mean in nats."""
    x, y = scenario.test(j)
    with torch.no_grad():
        parts = [scenario.likelihood.log_p(net(theta, x[s]), y[s], scenario.mask[j, j]) for s in slices(len(x), 250)]
    return -float(torch.cat(parts).double().mean()) / y.shape[1]


def base_of(preset: str) -> Tensor:
    """The weights that `lm-base` has left; at the quick preset, where nothing is stored, those of a base trained now."""
    from clbook.lab.experiments import stored

    if preset == "quick":
        sizes = SIZES["quick"]
        trained = run(sizes.scenario("prose"), m.Finetune(), 1, net=sizes.net(), progress=False, **arguments(sizes))
        return trained.theta[0]
    return torch.from_numpy(stored("lm-base").arrays["theta"][0].astype(np.float32))


def fine_tune(s: Setting) -> Computed:
    """Go on with code, with every method at every strength; then average, and give ten windows of the old text back."""
    sizes, scenario, net = s.sizes, s.sizes.scenario("prose", "code"), s.sizes.net()
    start = base_of(sizes.base)
    known = net.pretrained(start)
    tried = run_all(s, scenario, known)
    arrays = {f"front/{family}": front(some) for family, some in tried.items()}
    full = dict(tried["all weights"])[sizes.lr]
    arrays["front/averaged with the base"] = averaged(net, start, full.theta, scenario, sizes.averaged)
    arrays["recovery"] = recovery(s, net, full.theta)
    arrays["start"] = np.array([[nats(net, start, scenario, j) for j in (0, 1)]])
    results = {f"{family}, {strength:g}": result for family, some in tried.items() for strength, result in some}
    return Computed(results, arrays, numbers(arrays))


def run_all(s: Setting, scenario: Scenario, known: Net) -> dict[str, list[tuple[float, Result]]]:
    """The strengths and the runs of all that is tried, by family."""
    tried: dict[str, list[tuple[float, Result]]] = {}
    for family, strength, method, how in s.sizes.settings():
        part = f"{family}-{strength:g}".replace(" ", "-").replace(",", "")
        tried.setdefault(family, []).append((strength, s.train(part, scenario, method, known, **how)))
    return tried


def front(some: list[tuple[float, Result]]) -> np.ndarray:
    """strength, nats of prose and of code [strengths, seeds, 3]."""
    return np.stack([np.column_stack([np.full(len(r.R), strength), -r.R[:, 1]]) for strength, r in some])


def averaged(net: Net, start: Tensor, tuned: list[Tensor], scenario: Scenario, shares: tuple[float, ...]) -> np.ndarray:
    """The same of (1 - a) theta_0 + a theta for every share a [shares, seeds, 3]."""
    return np.array(
        [[[a, *(nats(net, torch.lerp(start, theta, a), scenario, j) for j in (0, 1))] for theta in tuned] for a in shares]
    )


def recovery(s: Setting, net: Net, tuned: list[Tensor]) -> np.ndarray:
    """Nats of prose and code after the fine-tuned network has seen ten windows of prose for some steps [steps, seeds, 3]."""
    found = []
    prose, code = map(s.sizes.windows, TOPICS)
    some = torch.linspace(0, len(prose.x) - 1, 10).long()
    scenario = judged([code, replace(prose, x=prose.x[some], y=None if prose.y is None else prose.y[some])])
    for steps in s.sizes.recovery_steps:
        back = []
        for seed, theta in enumerate(tuned):
            how = {"steps": steps, "batch_size": len(some), "lr": s.sizes.recovery_lr}
            result = s.train(f"back-{steps}-{seed}", scenario, m.Finetune(), net.pretrained(theta), [seed], **how)
            back.append(result.R[0, 1])
        found.append([[steps, -prose_now, -code_now] for code_now, prose_now in back])
    return np.array(found)


def numbers(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Nats a character of prose and of code, of every family at every strength."""
    ours: dict[str, np.ndarray] = {}
    for key, front in arrays.items():
        if key.startswith("front/"):
            family = key.removeprefix("front/")
            for row in front:
                ours |= {f"{family}, {row[0, 0]:g}: {topic}": row[:, 1 + j] for j, topic in enumerate(TOPICS)}
    return ours


def draw(report: Report, figure: Figure | None = None, *more: Report) -> Figure:
    """Prose against code in nats a character, a curve over strength for each family: the lower left is best.

    `more` are reports of further strengths from the same base. Both texts learned together are the bound, in black.
    """
    figure = Figure(figsize=(6.5, 5), layout="constrained") if figure is None else figure
    ax = figure.subplots()
    for (key, front), marker in zip(fronts(report, *more).items(), MARKERS, strict=False):
        mean, line = front.mean(1), ":" if key == BOUND else "-"
        ax.plot(mean[:, 2], mean[:, 1], f"{marker}{line}", label=key, color=plots.colour(key), alpha=0.8)
    ax.plot(*report.arrays["start"][0, ::-1], "k*", markersize=12, label="before")
    ax.set(xlabel="new text: nats a character of code", ylabel="old text: nats a character of prose")
    ax.legend(fontsize=10)
    return figure


def fronts(*reports: Report) -> dict[str, np.ndarray]:
    """The curves of all families, in the order of strength: strength, nats of prose and of code [strengths, seeds, 3].

    Several reports are taken together, so they should be from one base. A strength that two of them have counts twice.
    """
    found: dict[str, list[np.ndarray]] = {}
    for report in reports:
        for key, front in report.arrays.items():
            if key.startswith("front/"):
                found.setdefault(key.removeprefix("front/"), []).append(front)
    joined = {family: np.concatenate(parts) for family, parts in found.items()}
    return {family: front[front[:, 0, 0].argsort(kind="stable")] for family, front in joined.items()}


def draw_base(report: Report, figure: Figure | None = None) -> Figure:
    """How the base learned: nats a character of prose while it was trained."""
    figure = Figure(figsize=(6.5, 4), layout="constrained") if figure is None else figure
    ax, base = figure.subplots(), report.results["base"]
    ax.plot(base.curve_steps[:, 1], -base.curve[:, :, 0].T)
    ax.set(xlabel="training steps", ylabel="nats a character of prose", yscale="log")
    return figure


TINY: dict[str, Any] = {"context": 16, "width": 16, "heads": 2, "depth": 1, "modules": 40, "n_train": 400, "n_test": 40}
HOW: dict[str, Any] = {"optimizer": "adam", "lr": 1e-3}
SIZES = {
    "quick": Language(**TINY, **HOW, seeds=1, steps=100, batch_size=16, eval_every=25, eval_samples=40),
    "book": Language(**HOW, seeds=1, steps=4000, batch_size=32, lr_decay=True, eval_every=200, eval_samples=200),
    "paper": Language(**HOW, seeds=1, width=256, depth=6, context=256, steps=20_000, batch_size=64, lr_decay=True),
}
FULL: dict[str, Any] = {
    "lrs": (1e-4, 3e-4, 1e-3, 3e-3),
    "lora": (1e-3, 3e-3, 1e-2),
    "trainable": (2, 8),
    "shares": (0.05, 0.25, 0.5),
    "lam_pseudo": (0.3, 1.0, 3.0),
    "lam_ewc": (1e2, 1e3, 1e4),
    "lam_l2": (1e-3, 1e-2, 1e-1, 1.0),
    "averaged": (0.1, 0.25, 0.5, 0.75, 0.9),
}
FEW: dict[str, Any] = {name: values[:2] for name, values in FULL.items() if name != "trainable"} | {
    "trainable": (2,),
    "lrs": (3e-4, 1e-3),
}
TUNED = {
    "quick": Tuned(**TINY, **HOW, **FEW, base="quick", seeds=2, steps=20, batch_size=16, kept=50, fisher_samples=20),
    "book": Tuned(**HOW, **FULL, base="book", seeds=5, steps=300, batch_size=16),
    "paper": Tuned(**HOW, **FULL, base="paper", seeds=10, width=256, depth=6, context=256, steps=2000, batch_size=64),
}
SOURCE = "this book; nothing published to compare with"
LANGUAGE = (
    Experiment(
        name="lm-base", title="A small language model of the prose in Python's own library", source=SOURCE,
        reference={}, sizes=SIZES, compute=train_base, draw=draw_base, unit="nats",
        notes="Text: docstrings and help topics of the Python that computed it, one character a token. The array theta holds "
        "the weights in half precision, with which both numbers were measured.",
    ),
    Experiment(
        name="lm-finetuning", title="Fine-tuning the small language model on code", source=SOURCE,
        reference={}, sizes=TUNED, compute=fine_tune, draw=draw, unit="nats",
        notes="One base, and several fine-tunings of it that differ in the order of the data and in what the method draws. The "
        "arrays front/... hold the strength, nats a character of prose and of code [strengths, seeds, 3]. recovery: the same "
        "after some steps on ten windows of prose, from the weights that all learned at the usual learning rate.",
    ),
)  # fmt: skip
