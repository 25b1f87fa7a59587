"""Fine-tuning the small language model at other learning rates: every way to protect the old text, each searched alike.

Book: notebooks/10_finetuning, "What going on costs by itself".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from clbook import methods as m
from clbook import plots
from clbook.checks import Positive
from clbook.lab.further import Recorded
from clbook.lab.language import BOUND, HOW, SOURCE, TINY, Tried, base_of, front, fronts, nats, numbers, run_all
from clbook.lab.report import Computed, Experiment, Report, Setting

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


def at(family: str, lr: float) -> str:
    """The name of a family at a learning rate."""
    return f"{family}, lr {lr:g}"


def try_rates(s: Setting) -> Computed:
    """The fronts of every family at every learning rate."""
    sizes, net, start = s.sizes, s.sizes.net(), base_of(s.sizes.base)
    scenario = sizes.scenario("prose", "code")
    tried = run_all(s, scenario, net.pretrained(start))
    arrays = {f"front/{family}": front(some) for family, some in tried.items()}
    arrays["start"] = np.array([[nats(net, start, scenario, j) for j in (0, 1)]])
    return Computed({}, arrays, numbers(arrays), tuple(result for some in tried.values() for _, result in some))


def draw_rates(report: Report, figure: Figure | None = None) -> Figure:
    """Prose against code in nats a character, a curve over strength for each family, a kind of line for each rate."""
    figure = Figure(figsize=(6.5, 5), layout="constrained") if figure is None else figure
    ax, rates = figure.subplots(), report.settings["rates"]
    for key, curve in fronts(report).items():
        family, lr = key.rsplit(", lr ", 1)
        mean, nth = curve.mean(1), [f"{rate:g}" for rate in rates].index(lr)
        ax.plot(mean[:, 2], mean[:, 1], label=key, **plots.look(family) | {"linestyle": LINES[nth % len(LINES)]})
    ax.plot(*report.arrays["start"][0, ::-1], "k*", markersize=12, label="before")
    ax.set(xlabel="new text: nats a character of code", ylabel="old text: nats a character of prose")
    ax.legend(fontsize=8)
    return figure


FEW: dict[str, Any] = {"lam_pseudo": (1.0, 3.0), "lam_recorded": (0.3, 1.0, 3.0), "lam_l2": (1e-3, 1e-2)}
RATES = Experiment(
    name="lm-rates", title="Fine-tuning the small language model at other learning rates", source=SOURCE, reference={},
    compute=try_rates, draw=draw_rates, unit="nats",
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
