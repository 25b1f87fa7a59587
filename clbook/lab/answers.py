"""Which right answer fine-tuning moves to, and what it forgets on the way.

A network knows the clothes of Fashion-MNIST and, roughly, whether a digit is even: any digit of the right parity is right. Then
it is fine-tuned on parity alone, in six ways that all learn it. Book: notebooks/10_finetuning.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import one_hot

from clbook import plots
from clbook.checks import Count, Positive
from clbook.data import Data, load
from clbook.lab.provenance import concat
from clbook.lab.report import Computed, Experiment, Reference, Report, Setting
from clbook.likelihood import AnyOf
from clbook.loop import Training
from clbook.method import Method
from clbook.methods import Finetune, OwnAnswers, PolicyGradient
from clbook.net import Net
from clbook.result import Result
from clbook.scenarios import Scenario, sequence

WAYS: dict[str, tuple[str, Method]] = {  # what the targets are, and the method
    "labels 0 and 1": ("0/1", Finetune()),
    "the digit itself": ("digit", Finetune()),
    "any right answer": ("parity", Finetune()),
    "own right answers": ("parity", OwnAnswers()),
    "policy gradient": ("parity", PolicyGradient()),
    "policy gradient, exact": ("parity", PolicyGradient(answers="exact")),
}
MEASURED = ("old", "new", "KL", "reverse KL")


@dataclass(frozen=True, kw_only=True)
class Sizes(Training):
    """How the base is trained, and with which learning rates and numbers of steps it is fine-tuned."""

    seeds: Count
    hidden: tuple[Count, ...]
    known: Count = 500  # images of each task that the base is trained on
    lrs: tuple[Positive, ...]
    tuned_steps: tuple[Count, ...]
    n_train: Count = 20_000  # digits that parity is then learned from
    n_test: Count = 10_000
    data: str = "mnist"


def parity(y: Tensor | None) -> Tensor:
    """The right answers [N, 10] where every digit of the same parity is right."""
    assert y is not None, "the data have labels"
    return (torch.arange(10) % 2 == y[:, None] % 2).float()


def targets(y: Tensor | None, what: str) -> Tensor:
    """The answers [N, 10] that a way of fine-tuning calls right."""
    if what == "parity":
        return parity(y)
    assert y is not None, "the data have labels"
    return one_hot(y % 2 if what == "0/1" else y, 10).float()


def scenario(digits: Data, clothes: Data, what: str, sizes: Sizes, seed: int) -> Scenario:
    """Task 0: clothes, and parity from a few digits; task 1: parity from many digits, with targets of this sort."""
    few_clothes, few_digits = clothes.subset(sizes.known, sizes.n_test, seed), digits.subset(sizes.known, sizes.n_test, seed)
    many = digits.subset(sizes.n_train, None, seed)
    x = torch.cat([few_clothes.x, few_digits.x])
    y = torch.cat([targets(few_clothes.y, "digit"), parity(few_digits.y)])
    base = replace(few_clothes, x=x, y=y, y_test=targets(few_clothes.y_test, "digit"), name="clothes")
    tuned = replace(few_digits, x=many.x, y=targets(many.y, what), y_test=parity(few_digits.y_test), name="parity")
    return replace(sequence([base, tuned], kind="domain"), likelihood=AnyOf())


def clothes_for(digits: Data) -> Data:
    """Fashion-MNIST; where the digits are the small embedded ones, these turned inside out, in another order of the pixels."""
    if digits.name == "mnist":
        return load("fashion")
    return replace(digits, x=1 - digits.x.flip(1), x_test=1 - digits.x_test.flip(1))


def divergences(net: Net, before: Tensor, after: Tensor, x: Tensor) -> tuple[float, float]:
    """KL(p_0 || p) and KL(p || p_0) of the answers to x, in nats, means over the samples."""
    with torch.no_grad():
        old, new = (net(theta, x).log_softmax(-1).double() for theta in (before, after))
    kl = lambda p, q: float((p.exp() * (p - q)).sum(-1).mean())  # noqa: E731
    return kl(old, new), kl(new, old)


def compute(s: Setting) -> Computed:
    """Fine-tune the base of each seed in every way, with every learning rate and number of steps."""
    sizes, clothes = s.sizes, clothes_for(s.data)
    net, bases = s.net(), []
    found: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    runs: dict[str, list[Result]] = {way: [] for way in WAYS}
    for seed in range(sizes.seeds):
        streams = {what: scenario(s.data, clothes, what, sizes, seed) for what, _ in WAYS.values()}
        base = s.train(f"base-{seed}", streams["parity"].first(1), Finetune(), seeds=[seed])
        theta, x = base.theta[0], streams["parity"].test(1)[0]
        bases.append(base)
        for way, (what, method) in WAYS.items():
            for lr in sizes.lrs:
                for steps in sizes.tuned_steps:
                    part = f"{way}-{lr:g}-{steps}-{seed}"
                    tuned = s.train(part, streams[what], method, net.pretrained(theta), [seed], lr=lr, steps=steps)
                    runs[way].append(tuned)
                    found[way].append([*100 * tuned.R[0, 1], *divergences(net, theta, tuned.theta[0], x)])
    shape = (sizes.seeds, len(sizes.lrs), len(sizes.tuned_steps), len(MEASURED))
    arrays = {way: np.array(values).reshape(shape) for way, values in found.items()}
    arrays["start"] = 100 * np.array([r.R[0, 0, 0] for r in bases])
    return Computed({"base": concat(bases)} | {way: concat(some) for way, some in runs.items()}, arrays, _ours(arrays))


def forgotten(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What each way loses of the accuracy on clothes [seeds, lrs, steps], in percentage points."""
    return {way: arrays["start"][:, None, None] - arrays[way][..., 0] for way in WAYS}


def _ours(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Accuracy on clothes and on parity, of each way with the setting that learns parity best."""
    ours = {"clothes, before": arrays["start"]}
    for way in WAYS:
        lr, steps = np.unravel_index(arrays[way][..., 1].mean(0).argmax(), arrays[way].shape[1:3])
        ours |= {f"{way}: clothes": arrays[way][:, lr, steps, 0], f"{way}: parity": arrays[way][:, lr, steps, 1]}
    return ours


def correlation(arrays: dict[str, np.ndarray], kl: int = 2, ways: Iterable[str] = WAYS) -> np.ndarray:
    """Spearman's rank correlation of a KL and what is lost, over these ways and all settings, for each seed [seeds]."""
    from scipy.stats import spearmanr

    gone, ways = forgotten(arrays), list(ways)
    lost = np.stack([gone[way] for way in ways], 1)
    far = np.stack([arrays[way][..., kl] for way in ways], 1)
    pairs = zip(lost.reshape(len(lost), -1), far.reshape(len(far), -1), strict=True)
    return np.array([spearmanr(*pair).statistic for pair in pairs])


def draw(report: Report, figure: Figure | None = None) -> Figure:
    """What is lost on clothes against the distance from the start, a point for each run."""
    figure = Figure(figsize=(6.5, 4.5), layout="constrained") if figure is None else figure
    ax, lost = figure.subplots(), forgotten(report.arrays)
    for way, marker in zip(WAYS, "osD^vx", strict=True):
        far, gone = report.arrays[way][..., 2].ravel(), lost[way].ravel()
        ax.plot(far, gone, marker, label=way, color=plots.colour(way), alpha=0.7)
    ax.set(xscale="log", xlabel="KL(before || after) on digits (nats)", ylabel="lost on clothes (percentage points)")
    ax.legend(loc="upper left", fontsize=9)
    return figure


SKETCH = "target of this book, after a first sketch; the source shows curves of another network"
SMALL: dict[str, Any] = {"steps": 300, "batch_size": 64, "optimizer": "adam", "lr": 1e-3}
LRS = (1e-4, 3e-4, 1e-3, 3e-3)
ANSWERS = Experiment(
    name="parity",
    title="Which right answer fine-tuning moves to, and what it forgets on the way",
    source="after the toy problem of Shenfeld et al. 2025 (arXiv:2509.04259)",
    reference={
        "labels 0 and 1: clothes": Reference("<=", 40.0, SKETCH),
        "own right answers: clothes": Reference(">=", 45.0, SKETCH),
    },
    sizes={
        "quick": Sizes(**SMALL, seeds=2, hidden=(50,), known=300, lrs=(1e-3, 1e-2), tuned_steps=(100,)),
        "book": Sizes(**SMALL | {"steps": 600}, seeds=5, hidden=(256, 256), lrs=LRS, tuned_steps=(300, 1000)),
        "paper": Sizes(**SMALL | {"steps": 600}, seeds=20, hidden=(256, 256), lrs=LRS, tuned_steps=(300, 1000, 3000)),
    },
    compute=compute,
    draw=draw,
    notes="The arrays hold, for each way, accuracy on clothes and on parity in percent, KL(before || after) and "
    "KL(after || before) in nats on the test digits [seeds, learning rates, steps, 4]. Each seed has its own base.",
)
