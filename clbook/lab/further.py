"""Fine-tuning the small language model, further: strengths not tried at first, both texts together, two networks in one.

Book: notebooks/10_finetuning, "Further" and "Two networks in one".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from clbook import methods as m
from clbook.checks import Count, Positive
from clbook.importance import fisher
from clbook.lab.language import BOUND, HOW, SOURCE, TINY, Protected, Tried, base_of, draw, front, judged, nats, numbers, run_all
from clbook.lab.report import Computed, Experiment, Setting
from clbook.method import merge
from clbook.net import Net
from clbook.sampling import generator
from clbook.scenarios import Scenario

TEXTS = ("prose", "code", "names")


@dataclass(frozen=True, kw_only=True)
class Recorded(Protected):
    """Strengths of recorded replay as well, and how long both texts are learned."""

    lam_recorded: tuple[Positive, ...]
    both_steps: tuple[Count, ...]

    def settings(self) -> Iterator[Tried]:
        yield from super().settings()
        yield from (Tried("recorded replay", lam, m.RecordedReplay(lam=lam, size=self.kept)) for lam in self.lam_recorded)
        yield from (Tried(BOUND, steps, m.Cumulative(), {"steps": steps}) for steps in self.both_steps)


@dataclass(frozen=True, kw_only=True)
class Further(Recorded):
    """How much of two task vectors is added."""

    scales: tuple[Positive, ...]


def look_further(s: Setting) -> Computed:
    """The fronts of more strengths; then two networks from the one base, for code and for names, put into one."""
    sizes, net, start = s.sizes, s.sizes.net(), base_of(s.sizes.base)
    known = net.pretrained(start)
    tried = run_all(s, sizes.scenario("prose", "code"), known)
    arrays = {f"front/{family}": front(some) for family, some in tried.items()}
    alone = {
        text: s.train(f"alone-{text}", sizes.scenario("prose", text), m.Finetune(), known).theta for text in TEXTS[1:]
    }
    texts = judged([sizes.windows(text) for text in TEXTS])
    pairs = list(zip(alone["code"], alone["names"], strict=True))
    merged = [merges(net, start, pair, texts, sizes, seed) for seed, pair in enumerate(pairs)]
    arrays |= {f"merged/{way}": np.stack([seed[way] for seed in merged]) for way in merged[0]}
    arrays["start"] = arrays["merged/base"][:1, :2]
    ours = numbers(arrays) | {
        f"{way.removeprefix('merged/')}: {text}": array[:, j]
        for way, array in arrays.items() if way.startswith("merged/") for j, text in enumerate(TEXTS)
    }
    return Computed({}, arrays, ours, tuple(result for some in tried.values() for _, result in some))


def merges(
    net: Net, start: Tensor, tuned: tuple[Tensor, Tensor], texts: Scenario, sizes: Further, seed: int
) -> dict[str, Float[np.ndarray, " 3"]]:
    """Nats of prose, code and names: of the base, of each network alone, and of every way to put the two into one."""
    rng = generator(seed, "method")
    weights = []
    for j, theta in enumerate((start, *tuned)):
        rows = torch.randperm(len(texts[j].x), generator=rng)[: sizes.fisher_samples]
        weights.append(fisher(net, theta, texts[j].x[rows], estimator="sampled", rng=rng))
    one = torch.ones_like(start)
    found = {"base": start, "code alone": tuned[0], "names alone": tuned[1]}
    found |= {f"base + {a:g} of both task vectors": added(start, tuned, a) for a in sizes.scales}
    found |= {
        "mean of the two": weighted_mean(tuned, [one, one]),
        "mean, with the base": weighted_mean((start, *tuned), [one, one, one]),
        "Fisher-weighted, of the two": weighted_mean(tuned, weights[1:]),
        "Fisher-weighted, with the base": weighted_mean((start, *tuned), weights),
    }
    return {way: np.array([nats(net, theta, texts, j) for j in range(len(TEXTS))]) for way, theta in found.items()}


def added(start: Tensor, tuned: Iterable[Tensor], share: float) -> Float[Tensor, " P"]:
    """theta_0 + a sum_k (theta_k - theta_0): a share of every task vector. Source: Ilharco et al. 2023 (arXiv:2212.04089)."""
    return start + share * sum((theta - start for theta in tuned), torch.zeros_like(start))


def weighted_mean(thetas: Iterable[Tensor], weights: Iterable[Tensor]) -> Float[Tensor, " P"]:
    """sum_k w_k theta_k / sum_k w_k for each parameter, the lowest point of the sum of their springs.

    Where no weight is positive it is the last theta. Source: Matena & Raffel 2022 (arXiv:2111.09832). Book: eq-families-imm.
    """
    thetas = list(thetas)
    spring = {"omega": torch.zeros_like(thetas[0]), "theta_star": thetas[0]}
    for theta, weight in zip(thetas, weights, strict=True):
        spring = merge(spring, weight, theta)
    return spring["theta_star"]


FURTHER = Experiment(
    name="lm-further", title="Fine-tuning the small language model: further strengths, both texts, two networks in one",
    source=SOURCE, reference={}, compute=look_further, draw=draw, unit="nats",
    notes="The base is that of lm-finetuning, and so are the texts; a third are the names of the characters of Unicode. The "
    "arrays front/... hold the strength, nats a character of prose and of code [strengths, seeds, 3]; for `both texts` the "
    "strength is the number of steps. merged/...: nats of prose, code and names [seeds, 3].",
    sizes={
        "quick": Further(
            **TINY, **HOW, base="quick", seeds=2, steps=20, batch_size=16, kept=50, fisher_samples=20, shares=(0.75,),
            lam_pseudo=(10.0,), lam_recorded=(1.0,), lam_ewc=(10.0,), both_steps=(20,), scales=(0.5,),
        ),
        "book": Further(
            **HOW, base="book", seeds=5, steps=300, batch_size=16, shares=(0.75,), lam_pseudo=(10.0,),
            lam_recorded=(1.0, 3.0, 10.0), lam_ewc=(10.0, 30.0), both_steps=(300, 600), scales=(0.25, 0.5, 0.75, 1.0),
        ),
        "paper": Further(
            **HOW, base="paper", seeds=10, width=256, depth=6, context=256, steps=2000, batch_size=64, shares=(0.75, 0.9),
            lam_pseudo=(10.0, 30.0), lam_recorded=(0.3, 1.0, 3.0, 10.0), lam_ewc=(10.0, 30.0), both_steps=(2000, 4000),
            scales=(0.25, 0.5, 0.75, 1.0),
        ),
    },
)  # fmt: skip
