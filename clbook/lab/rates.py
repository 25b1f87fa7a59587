"""Fine-tuning the small language model at other learning rates, and beyond the ends of what was tried first.

So that every way to protect the old text is searched alike. Book: notebooks/10_finetuning, "What going on costs by itself".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from clbook import methods as m
from clbook import plots
from clbook.checks import Count, Positive
from clbook.lab.further import Recorded
from clbook.lab.language import (
    BOUND,
    HOW,
    MARKERS,
    SOURCE,
    TINY,
    Tried,
    Tuned,
    averaged,
    base_of,
    front,
    fronts,
    nats,
    numbers,
    run_all,
)
from clbook.lab.report import Computed, Experiment, Report, Setting

AVERAGED = "averaged with the base"
LINES = ("-", "--", ":")


@dataclass(frozen=True, kw_only=True)
class Rates(Recorded):
    """The learning rates that take the place of the usual one, and the strengths of plain springs."""

    rates: tuple[Positive, ...]
    lam_l2: tuple[Positive, ...]

    def settings(self) -> Iterator[Tried]:
        usual = [*super().settings(), *(Tried("L2", lam, m.L2(lam=lam)) for lam in self.lam_l2)]
        for lr in self.rates:
            yield from (t._replace(family=at(t.family, lr), how={**t.how, "lr": lr}) for t in usual)


@dataclass(frozen=True, kw_only=True)
class Ends(Recorded, Tuned):
    """Strengths that lie beyond those which were tried first, and rates at which the base is averaged and layers are frozen."""

    rates: tuple[Positive, ...]
    frozen: tuple[Count, ...]  # how many layers are not, at these rates
    recovery_steps: tuple[Count, ...] = ()

    def settings(self) -> Iterator[Tried]:
        yield from super().settings()
        for lr in self.rates:
            yield from (Tried(at("top layers alone", lr), n, m.FeatureExtraction(trainable=n), {"lr": lr}) for n in self.frozen)


def at(family: str, lr: float) -> str:
    """The name of a family at a learning rate."""
    return f"{family}, lr {lr:g}"


def try_all(s: Setting) -> Computed:
    """The fronts of everything that the sizes set."""
    sizes, net, start = s.sizes, s.sizes.net(), base_of(s.sizes.base)
    scenario = sizes.scenario("prose", "code")
    tried = run_all(s, scenario, net.pretrained(start))
    arrays = {f"front/{family}": front(some) for family, some in tried.items()}
    arrays["start"] = np.array([[nats(net, start, scenario, j) for j in (0, 1)]])
    return Computed({}, arrays, numbers(arrays), tuple(result for some in tried.values() for _, result in some))


def go_beyond(s: Setting) -> Computed:
    """The fronts of everything that the sizes set, and of averages with the base at every rate."""
    sizes, net, start = s.sizes, s.sizes.net(), base_of(s.sizes.base)
    scenario, found = sizes.scenario("prose", "code"), try_all(s)
    full = [s.train(f"full-{lr:g}", scenario, m.Finetune(), net.pretrained(start), lr=lr) for lr in sizes.rates]
    for lr, result in zip(sizes.rates, full, strict=True):
        found.arrays[f"front/{at(AVERAGED, lr)}"] = averaged(net, start, result.theta, scenario, sizes.averaged)
    return found._replace(ours=numbers(found.arrays), searches=(*found.searches, *full))


def draw_rates(report: Report, figure: Figure | None = None) -> Figure:
    """Prose against code in nats a character, a curve over strength for each family, a kind of line for each rate."""
    figure = Figure(figsize=(6.5, 5), layout="constrained") if figure is None else figure
    ax, rates = figure.subplots(), ["", *(f"{rate:g}" for rate in report.settings["rates"])]
    for key, curve in fronts(report).items():
        family, _, lr = key.partition(", lr ")
        mean, line = curve.mean(1), LINES[rates.index(lr) % len(LINES)]
        ax.plot(mean[:, 2], mean[:, 1], label=key, **plots.look(family) | {"linestyle": line})
    ax.plot(*report.arrays["start"][0, ::-1], "k*", markersize=12, label="before")
    ax.set(xlabel="new text: nats a character of code", ylabel="old text: nats a character of prose")
    ax.legend(fontsize=8)
    return figure


def at_every_rate(*reports: Report) -> dict[str, dict[str, np.ndarray]]:
    """The fronts by family and by learning rate, "" for the usual one [strengths, seeds, 3]."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for key, curve in fronts(*reports).items():
        family, _, lr = key.partition(", lr ")
        found.setdefault(family, {})[lr] = curve
    return found


def unbeaten(curves: Iterable[np.ndarray]) -> np.ndarray:
    """Those settings that no other one equals at both texts and beats at one, in the order of code [settings, seeds, 3].

    Settings are compared by their means over the seeds.
    """
    settings = np.concatenate(list(curves))
    mean = settings[..., 1:].mean(1)
    beaten = [((mean <= own).all(1) & (mean < own).any(1)).any() for own in mean]
    best: np.ndarray = settings[~np.array(beaten)]
    return best[best[..., 2].mean(1).argsort(kind="stable")]


def read_off(curve: np.ndarray, code: float) -> np.ndarray | None:
    """Nats of prose at so many nats of code on a curve of unbeaten settings [seeds], on the line between its neighbours.

    The last setting's where that has learned more; None where no setting has learned so much.
    """
    mean = curve[..., 2].mean(1)
    if code < mean[0]:
        return None
    k = int(np.searchsorted(mean, code, side="right"))
    if k == len(mean):
        return np.asarray(curve[-1, :, 1])
    share = (code - mean[k - 1]) / (mean[k] - mean[k - 1])
    return np.asarray((1 - share) * curve[k - 1, :, 1] + share * curve[k, :, 1])


def draw_unbeaten(figure: Figure, *reports: Report) -> Figure:
    """Prose against code, for each family the settings that no other of its settings beats, at whatever rate."""
    ax = figure.subplots()
    for (family, curves), marker in zip(at_every_rate(*reports).items(), MARKERS, strict=False):
        mean, line = unbeaten(curves.values()).mean(1), ":" if family == BOUND else "-"
        ax.plot(mean[:, 2], mean[:, 1], f"{marker}{line}", label=family, color=plots.colour(family), alpha=0.8)
    ax.plot(*reports[0].arrays["start"][0, ::-1], "k*", markersize=12, label="before")
    ax.set(xlabel="new text: nats a character of code", ylabel="old text: nats a character of prose")
    ax.legend(fontsize=10)
    return figure


FEW: dict[str, Any] = {"lam_pseudo": (1.0, 3.0), "lam_recorded": (0.3, 1.0, 3.0), "lam_l2": (1e-3, 1e-2)}
BEYOND: dict[str, Any] = {
    "lrs": (3e-5,), "lora": (3e-4,), "trainable": (4,), "shares": (), "lam_pseudo": (30.0,), "lam_recorded": (),
    "lam_ewc": (3.0,), "lam_l2": (), "both_steps": (), "frozen": (8,), "rates": (3e-4, 1e-4), "averaged": (0.25, 0.5, 0.75),
}  # fmt: skip
RATES = Experiment(
    name="lm-rates", title="Fine-tuning the small language model at other learning rates", source=SOURCE, reference={},
    compute=try_all, draw=draw_rates, unit="nats",
    notes="The base and the texts are those of lm-finetuning. The arrays front/FAMILY, lr RATE hold the strength, nats a "
    f"character of prose and of code [strengths, seeds, 3]; for `{BOUND}` the strength is the number of steps.",
    sizes={
        "quick": Rates(
            **TINY, **HOW, base="quick", seeds=2, steps=20, batch_size=16, kept=50, fisher_samples=20, rates=(3e-4,),
            shares=(0.5,), lam_pseudo=(1.0,), lam_recorded=(1.0,), lam_l2=(1e-2,), lam_ewc=(100.0,), both_steps=(20,),
        ),
        "book": Rates(
            **HOW, **FEW, base="book", seeds=5, steps=300, batch_size=16, rates=(3e-4, 1e-4), shares=(0.25, 0.5, 0.75),
            lam_ewc=(10.0, 30.0, 300.0), both_steps=(300, 600),
        ),
        "paper": Rates(
            **HOW, **FEW, base="paper", seeds=10, width=256, depth=6, context=256, steps=2000, batch_size=64,
            rates=(3e-4, 1e-4), shares=(0.25, 0.5, 0.75), lam_ewc=(10.0, 30.0, 300.0), both_steps=(2000, 4000),
        ),
    },
)  # fmt: skip
ENDS = Experiment(
    name="lm-ends", title="Fine-tuning the small language model beyond the strengths that were tried first", source=SOURCE,
    reference={}, compute=go_beyond, draw=draw_rates, unit="nats",
    notes="The base and the texts are those of lm-finetuning. The arrays front/FAMILY, some of them with a rate behind the "
    "name, hold the strength, nats a character of prose and of code [strengths, seeds, 3]; for "
    f"`{BOUND}` the strength is the number of steps, for averages the share of the fine-tuned network.",
    sizes={
        "quick": Ends(
            **TINY, **HOW, base="quick", seeds=2, steps=20, batch_size=16, kept=50, fisher_samples=20, lrs=(1e-4,),
            lora=(3e-4,), trainable=(4,), shares=(), lam_pseudo=(), lam_recorded=(0.3,), lam_ewc=(3.0,), lam_l2=(1e-4,),
            both_steps=(40,), rates=(3e-4,), averaged=(0.5,), frozen=(2,),
        ),
        "book": Ends(**HOW, **BEYOND, base="book", seeds=5, steps=300, batch_size=16),
        "paper": Ends(
            **HOW, **BEYOND, base="paper", seeds=10, width=256, depth=6, context=256, steps=2000, batch_size=64,
        ),
    },
)  # fmt: skip
